"""Large values in a PostgreSQL store: parts in rows of their own, which one statement makes the value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from journeyman.errors import NotReady
from journeyman.store.postgres_address import Address
from journeyman.store.postgres_link import LONG_CALL_S, Connection, Link
from journeyman.store.postgres_sql import Statements
from journeyman.threads import in_thread

#: The bytes of one part, and how many parts one read asks for.
PART_BYTES: Final = 1024 * 1024
READ_PARTS: Final = 16

#: How old parts are that belong to no value, and that nobody writes any more, in seconds.
LEFTOVER_S: Final = 3600.0

#: How often a value is read that others replace meanwhile.
LOAD_TRIES: Final = 5


class PostgresBlobs:
    """The tables `blobs` and `blob_parts`."""

    def __init__(self, address: Address, link: Link) -> None:
        self._sql = Statements(address.schema)
        self._link = link

    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        # No transaction is open meanwhile: making the parts may take its time.
        saved, number, size = uuid4().hex, 0, 0
        take = partial(next, _gathered(parts), None)
        while (part := await in_thread(take, name="journeyman: blob")) is not None:
            number, size = number + 1, size + len(part)
            await self._execute("blob_add", saved, number, part)
        await self._execute("blob_finish", name, saved, number, size)
        await self._execute("blob_leftovers", timedelta(seconds=LEFTOVER_S))

    async def load(self, name: str) -> bytes | None:
        for _ in range(LOAD_TRIES):
            found = await self._link.call(lambda connection: connection.fetchrow(self._sql["blob_find"], name))
            if found is None:
                return None
            parts = await self._read(found["saved"])
            if len(parts) == found["parts"]:
                return b"".join(parts)
        raise NotReady(f"The value {name} was replaced again and again while it was read. Try again.")

    async def _read(self, saved: str) -> list[bytes]:
        parts: list[bytes] = []
        while True:
            read = partial(self._fetch_parts, saved=saved, after=len(parts))
            some = await self._link.call(read, within_s=LONG_CALL_S)
            parts += some
            if len(some) < READ_PARTS:
                return parts

    async def _fetch_parts(self, connection: Connection, *, saved: str, after: int) -> list[bytes]:
        return [row[0] for row in await connection.fetch(self._sql["blob_read"], saved, after, READ_PARTS)]

    async def delete(self, name: str) -> None:
        await self._execute("blob_delete", name)

    async def sizes(self) -> dict[str, int]:
        rows = await self._link.call(lambda connection: connection.fetch(self._sql["blob_sizes"]))
        return {row[0]: row[1] for row in rows}

    async def _execute(self, statement: str, *args: object) -> None:
        await self._link.call(lambda connection: connection.execute(self._sql[statement], *args), within_s=LONG_CALL_S)


def _gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of PART_BYTES."""
    gathered = bytearray()
    for part in parts:
        gathered += part
        while len(gathered) >= PART_BYTES:
            yield bytes(gathered[:PART_BYTES])
            del gathered[:PART_BYTES]
    if gathered:
        yield bytes(gathered)

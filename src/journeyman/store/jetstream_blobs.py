"""Large values in a stream: the parts of each under a subject of its own, and its name once all of them are there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final
from uuid import uuid4

import msgspec

from journeyman.errors import OutcomeUnknown
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_direct import Direct
from journeyman.store.jetstream_record import text_of, token
from journeyman.store.jetstream_reply import writing
from journeyman.threads import in_thread

#: How large a part is, in bytes.
PART_BYTES: Final = 512 * 1024

#: How old parts without a name are that nobody writes any more, in seconds.
LEFTOVER_S: Final = 3600.0

#: How long reading waits for a replica that lacks parts, in seconds.
READ_S: Final = 2.0
PAUSE_S: Final = 0.02


class _Name(msgspec.Struct, frozen=True):
    """What is kept under a name: the subject's token of its parts, their sequence numbers, and their size together."""

    parts: str
    sequences: list[int]
    size: int


_decode: Final = msgspec.json.Decoder(_Name).decode


class JetStreamBlobs:
    """See Blobs."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._stream = f"{name}-blobs"
        self._direct = Direct(connection, self._stream)

    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        await self._remove_leftovers()
        old = await self._find(name)
        begun = (
            f"{time.time():.0f}-{uuid4().hex}"  # When, so that leftovers can be told: a wrong clock only keeps them.
        )
        try:
            new = await self._write(begun, parts)
            named = await self._publish(self._name(name), msgspec.json.encode(new))
        except OutcomeUnknown:
            raise  # It may have its name: then these parts are needed, and else they are leftovers.
        except BaseException:
            await asyncio.shield(self._purge(self._parts(begun)))
            raise
        await self._purge(self._name(name), before=named)
        if old is not None:
            await self._purge(self._parts(old.parts))

    async def _write(self, begun: str, parts: Iterable[bytes]) -> _Name:
        pieces, sequences, size = _pieces(parts), list[int](), 0
        while piece := await in_thread(partial(next, pieces, b""), name=f"parts of {begun}"):
            sequences.append(await self._publish(self._parts(begun), piece))
            size += len(piece)
        return _Name(begun, sequences, size)

    async def load(self, name: str) -> bytes | None:
        found = await self._find(name)
        return None if found is None else await self._read(found)

    async def _read(self, found: _Name) -> bytes | None:
        """All the parts; None when they are not there, even after a while: somebody has saved anew, or deleted it."""
        parts: list[bytes] = []
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + READ_S
        while (count := len(parts)) < len(found.sequences):
            missing = len(found.sequences) - count
            chunk = await self._direct.chunk(found.sequences[count], missing, subject=self._parts(found.parts))
            parts += chunk.contents
            if not chunk.contents:
                if loop.time() > give_up_at:
                    return None
                await asyncio.sleep(PAUSE_S)
        value = b"".join(parts)
        return value if len(value) == found.size else None

    async def delete(self, name: str) -> None:
        found = await self._find(name)
        if found is not None:
            await self._purge(self._name(name))
            await self._purge(self._parts(found.parts))

    async def sizes(self) -> dict[str, int]:
        return {name: found.size for name, found in (await self._all()).items()}

    async def _all(self) -> dict[str, _Name]:
        prefix = f"{self._stream}.names."
        names = sorted(text_of(subject.removeprefix(prefix)) for subject in await self._direct.subjects(f"{prefix}>"))
        found = await asyncio.gather(*map(self._find, names))
        return {name: one for name, one in zip(names, found, strict=True) if one is not None}

    async def _find(self, name: str) -> _Name | None:
        found = await self._direct.newest(self._name(name))
        return None if found is None else _decode(found.content)

    async def _remove_leftovers(self) -> None:
        """What a process has left that died while it wrote."""
        prefix = f"{self._stream}.parts."
        begun = [subject.removeprefix(prefix) for subject in await self._direct.subjects(f"{prefix}>")]
        long_ago_s = time.time() - LEFTOVER_S
        if old := [one for one in begun if float(one.partition("-")[0]) < long_ago_s]:
            named = {one.parts for one in (await self._all()).values()}
            for one in set(old) - named:
                await self._purge(self._parts(one))

    async def _publish(self, subject: str, content: bytes) -> int:
        with writing():
            acknowledged = await self._connection.publish([(subject, content, None)])
        sequence: int = acknowledged["seq"]
        return sequence

    async def _purge(self, subject: str, *, before: int = 0) -> None:
        """Remove the subject's messages; those before a sequence number, if one is given."""
        with writing():
            await self._connection.ask(f"STREAM.PURGE.{self._stream}", {"filter": subject, "seq": before})

    def _name(self, name: str) -> str:
        return f"{self._stream}.names.{token(name)}"

    def _parts(self, begun: str) -> str:
        return f"{self._stream}.parts.{begun}"


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, cut anew into pieces of the same size, none of them empty."""
    waiting = bytearray()
    for part in parts:
        waiting += part
        while len(waiting) >= PART_BYTES:
            yield bytes(waiting[:PART_BYTES])
            del waiting[:PART_BYTES]
    if waiting:
        yield bytes(waiting)

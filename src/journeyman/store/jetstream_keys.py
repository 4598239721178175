"""The key-value table: a bucket, as the `nats kv` command knows them, read from the leader alone."""

from __future__ import annotations

from typing import Final

from journeyman.errors import NotReady
from journeyman.store.base import Entry
from journeyman.store.jetstream_connection import Connection
from journeyman.store.jetstream_direct import Direct
from journeyman.store.jetstream_record import text_of, token
from journeyman.store.jetstream_reply import Refused, writing
from journeyman.store.limits import check_entry

#: The parts of the bucket: what applications put, and what claims are made of.
KEYS: Final = "keys"
ROLES: Final = "roles"
SESSIONS: Final = "sessions"

#: JetStream's numbers for another revision than was expected: server/errors.json in nats-server.
_OTHER_REVISION: Final = frozenset({10071, 10164})

#: How often a delete of whatever is there is tried, while others put.
_TRIES: Final = 100

_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"


class JetStreamKeys:
    """See KeyValue. A revision is a sequence number of the stream: it never comes again."""

    def __init__(self, connection: Connection, name: str, *, part: str = KEYS) -> None:
        self._connection = connection
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}.{part}."
        self._direct = Direct(connection, self._stream)

    async def get(self, key: str) -> Entry | None:
        found = await self._direct.newest(self._subject(key))
        return None if found is None else Entry(found.content, found.sequence)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        check_entry(key, value)
        headers = None if expect is None else {_EXPECTED: str(expect)}
        with writing():
            try:
                acknowledged = await self._connection.publish([(self._subject(key), value, headers)])
            except Refused as refused:
                if refused.code in _OTHER_REVISION:
                    return None
                raise
        revision: int = acknowledged["seq"]
        return revision

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        for _ in range(_TRIES):
            entry = await self.get(key)
            if entry is None or expect not in (None, entry.revision):
                return False
            if await self._remove(key, entry.revision):
                return True
        raise NotReady(f"The key {key!r} was put {_TRIES} times while it was to be deleted. Try again.")

    async def _remove(self, key: str, revision: int) -> bool:
        """Remove that revision, and no newer one: the bucket holds one message a key, so it is this one or none."""
        request = {"filter": self._subject(key), "seq": revision + 1}
        with writing():
            answer = await self._connection.ask(f"STREAM.PURGE.{self._stream}", request)
        return bool(answer["purged"])

    async def keys(self, prefix: str = "") -> list[str]:
        subjects = await self._direct.subjects(f"{self._prefix}>")
        found = (text_of(subject.removeprefix(self._prefix)) for subject in subjects)
        return sorted(key for key in found if key.startswith(prefix))

    def _subject(self, key: str) -> str:
        return f"{self._prefix}{token(key)}"

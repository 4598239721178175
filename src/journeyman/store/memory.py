"""The store in memory: for tests, demonstrations and a first try. It is gone when the process ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import islice

from journeyman.message import Record
from journeyman.store.base import Blobs, Check, Entry, Examination, KeyValue, MessageLog
from journeyman.store.limits import check_batch, check_entry, check_written

#: The turn that this task holds, if any. Tasks that the holder starts inherit it: they append on its behalf.
_turn_held: ContextVar[object | None] = ContextVar("journeyman_memory_turn", default=None)


class MemoryLog:
    """The message log as a list. Used from one event loop, by as many tasks as one likes.

    `append` and `read` give way to other tasks once, as a real store does: so conflicts happen, and no task that
    appends in a loop can starve the others.
    """

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._turns = asyncio.Lock()
        self._turn: object | None = None

    async def head(self) -> int:
        return len(self._records)

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        await asyncio.sleep(0)
        if name is None:
            return self._records[after : after + limit]
        named = (record for record in islice(self._records, after, None) if record.name == name)
        return list(islice(named, limit))

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        check_batch(records, after=after)
        if self._turn is None or _turn_held.get() is self._turn:
            self._write(records, after)
        else:
            async with self._turns:
                self._write(records, after)
        await asyncio.sleep(0)

    def _write(self, records: Sequence[Record], after: int) -> None:
        head = len(self._records)
        if head != after:
            stored_ids = [record.id for record in self._records[after : after + len(records)]]
            check_written(records, stored_ids, after=after, head=head)
            return
        self._records += records
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, after: int, timeout_s: float) -> None:
        if len(self._records) > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
            return
        # There is no await between the check and the registration, so no append can fall between them.
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        try:
            await asyncio.wait((woken,), timeout=timeout_s)
        finally:
            self._waiting.discard(woken)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._turns:
            self._turn = object()
            token = _turn_held.set(self._turn)
            try:
                yield
            finally:
                self._turn = None
                _turn_held.reset(token)


class MemoryKeys:
    """The key-value table as a dict. Unlike the log, it may be used from the loops of several threads."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._last_revision = 0
        self._changing = threading.Lock()

    async def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        check_entry(key, value)
        with self._changing:
            if expect is not None and expect != self._revision(key):
                return None
            # One counter for all keys: a key that was deleted and put again never has an old revision again.
            self._last_revision += 1
            self._entries[key] = Entry(value=value, revision=self._last_revision)
            return self._last_revision

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        with self._changing:
            if key not in self._entries or (expect is not None and expect != self._revision(key)):
                return False
            del self._entries[key]
            return True

    async def keys(self, prefix: str = "") -> list[str]:
        return sorted(key for key in list(self._entries) if key.startswith(prefix))

    def _revision(self, key: str) -> int:
        entry = self._entries.get(key)
        return 0 if entry is None else entry.revision


class MemoryBlobs:
    """Large values in a dict."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        self._values[name] = await asyncio.to_thread(b"".join, parts)

    async def load(self, name: str) -> bytes | None:
        return self._values.get(name)

    async def delete(self, name: str) -> None:
        self._values.pop(name, None)

    async def sizes(self) -> dict[str, int]:
        return {name: len(value) for name, value in sorted(self._values.items())}


class MemoryStore:
    """A store in memory. Several applications of one process may share the object, and so the log.

    It keeps its content when it is closed, so a test can stop an application and start another on the same object.
    Each handle has its own claims, as if it were in a process of its own.
    """

    url = "memory:"
    durability = "memory only: gone when the process ends"

    def __init__(self, same: MemoryStore | None = None) -> None:
        """A fresh store; or another handle on the `same`."""
        self.log: MessageLog = MemoryLog() if same is None else same.log
        self.keys: KeyValue = MemoryKeys() if same is None else same.keys
        self.blobs: Blobs = MemoryBlobs() if same is None else same.blobs
        self._holders: dict[str, MemoryStore] = {} if same is None else same._holders

    async def claim(self, role: str) -> bool:
        return self._holders.setdefault(role, self) is self

    async def release(self, role: str) -> None:
        if self._holders.get(role) is self:
            del self._holders[role]

    async def examine(self) -> Examination:
        return Examination(checks=(Check("memory", True, self.durability),), facts={})

    async def open_again(self) -> MemoryStore:
        """Another handle. Of what it has, the log may be used from the first handle's event loop only."""
        return MemoryStore(same=self)

    async def close(self) -> None:
        for role in [role for role, holder in list(self._holders.items()) if holder is self]:
            del self._holders[role]

"""A message log that fails as a test says: around a real log, without sleeps and without chance.

    log = FaultyLog(store.log)
    log.fail_next(lose_reply)                   # the next append is written, but its caller never hears of it
    held = log.fail_next(Held())                # the one after waits …
    await held.arrived.wait()                   # … and says when it came in
    held.release()

`FaultyStore` is a store with such a log, for `app.running(store)`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from journeyman.errors import NotReady, OutcomeUnknown
from journeyman.message import Record
from journeyman.store.base import Blobs, Examination, KeyValue, MessageLog, Store

Append = Callable[[], Awaitable[None]]

#: What becomes of one append: it is given the real one, calls it or not, and returns or raises what the caller sees.
Fault = Callable[[Append], Awaitable[None]]

F = TypeVar("F", bound=Fault)


async def work(append: Append) -> None:
    """No fault: for a script in which a later append fails."""
    await append()


async def lose_reply(append: Append) -> None:
    """The append is done, and OutcomeUnknown is raised."""
    await append()
    raise OutcomeUnknown("The reply was lost on purpose; the append was done.")


async def lose_request(append: Append) -> None:
    """The append is not done, and OutcomeUnknown is raised."""
    raise OutcomeUnknown("The request was lost on purpose; nothing was written.")


async def refuse(append: Append) -> None:
    """The append is not done, and NotReady is raised."""
    raise NotReady("The store is not ready, on purpose; nothing was written.")


class Held:
    """An append that waits for `release`, and is then done.

    As with a real store, it is done even when its caller has given up meanwhile: late, or after a Conflict.
    """

    def __init__(self) -> None:
        #: Set when the append came in.
        self.arrived = asyncio.Event()
        #: Set when it was done, or refused.
        self.ended = asyncio.Event()
        self._released = asyncio.Event()
        self._error: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def release(self) -> None:
        """Let the append go on."""
        self._released.set()

    def fail(self, error: Exception) -> None:
        """Let it end with this error; what was not done by then is not done."""
        self._error = error
        self._released.set()

    async def __call__(self, append: Append) -> None:
        self.arrived.set()
        task = asyncio.create_task(self._go_on(append), name="held append")
        self._tasks.add(task)
        # The caller may be gone, and then nobody else asks for the outcome.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(task)

    async def _go_on(self, append: Append) -> None:
        try:
            await self._wait()
            await append()
        finally:
            self.ended.set()

    async def _wait(self) -> None:
        await self._released.wait()
        if self._error is not None:
            raise self._error


class ReplyHeld(Held):
    """An append that is done at once, but whose reply waits for `release`."""

    async def _go_on(self, append: Append) -> None:
        try:
            await append()
        finally:
            self.ended.set()
        await self._wait()


class FaultyLog:
    """A message log around another one. Without a script it does what the other does."""

    def __init__(self, log: MessageLog) -> None:
        #: The log around which this one stands.
        self.real = log
        self._faults: deque[Fault] = deque()
        self._otherwise: Fault = work
        self._read_error: Exception | None = None
        self._wait_error: Exception | None = None
        self._reads_go = asyncio.Event()
        self._reads_go.set()
        #: What each append was asked to write, in order, whatever became of it.
        self.appends: list[tuple[Record, ...]] = []
        #: How often the writer's turn was taken.
        self.turns = 0
        #: Set when a read came in while reads are held.
        self.read_arrived = asyncio.Event()
        #: Set when a `wait` failed.
        self.wait_failed = asyncio.Event()

    def fail_next(self, fault: F) -> F:
        """Let the next append, or the one after those scripted already, meet this fault; return the fault."""
        self._faults.append(fault)
        return fault

    def fail_others(self, fault: Fault) -> None:
        """Let every append that nothing is scripted for meet this fault, from now on; `work` mends it."""
        self._otherwise = fault

    def become(self, log: MessageLog) -> None:
        """Be another log from now on: as when a store is replaced, or restored from a backup."""
        self.real = log

    def hold_reads(self) -> None:
        """Let `head` and `read` wait from now on."""
        self.read_arrived.clear()
        self._reads_go.clear()

    def release_reads(self) -> None:
        """Let `head` and `read` go on."""
        self._reads_go.set()

    def fail_reads(self, error: Exception | None) -> None:
        """Let `head` and `read` raise from now on; None mends them."""
        self._read_error = error

    def fail_waits(self, error: Exception | None) -> None:
        """Let `wait` raise from now on; None mends it."""
        self._wait_error = error

    async def head(self) -> int:
        await self._reading()
        return await self.real.head()

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        await self._reading()
        return await self.real.read(after, limit, name=name)

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        self.appends.append(tuple(records))
        fault = self._faults.popleft() if self._faults else self._otherwise
        await fault(lambda: self.real.append(records, after=after))

    async def wait(self, after: int, timeout_s: float) -> None:
        if self._wait_error is not None:
            self.wait_failed.set()
            raise self._wait_error
        await self.real.wait(after, timeout_s)

    def turn(self) -> AbstractAsyncContextManager[None]:
        self.turns += 1
        return self.real.turn()

    async def _reading(self) -> None:
        if not self._reads_go.is_set():
            self.read_arrived.set()
            await self._reads_go.wait()
        if self._read_error is not None:
            raise self._read_error


class FaultyStore:
    """A store around another one, with a log that fails as a test says."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.url = store.url
        self.durability = store.durability
        self.faulty_log = FaultyLog(store.log)
        self.log: MessageLog = self.faulty_log
        self.keys: KeyValue = store.keys
        self.blobs: Blobs = store.blobs
        #: How often it was closed.
        self.closed = 0

    async def claim(self, role: str) -> bool:
        """See Store.claim."""
        return await self._store.claim(role)

    async def release(self, role: str) -> None:
        """See Store.release."""
        await self._store.release(role)

    async def examine(self) -> Examination:
        """See Store.examine."""
        return await self._store.examine()

    async def open_again(self) -> Store:
        """Another handle on the store that this one stands around: without faults."""
        return await self._store.open_again()

    async def close(self) -> None:
        """See Store.close."""
        self.closed += 1
        await self._store.close()

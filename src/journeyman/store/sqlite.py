"""The store in a SQLite file: the default. One machine, as many processes as one likes.

Each store has two threads with a connection each, so that no reader waits for a writer and nothing blocks the event
loop. What happens in them is in `sqlite_file`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import apsw

from journeyman.message import Record
from journeyman.store.base import Entry, KeyValue, MessageLog
from journeyman.store.limits import check_batch, check_entry
from journeyman.store.sqlite_file import Reader, Writer, translated
from journeyman.store.thread import Thread

#: The most records that one read transaction reads: while one is open, the WAL can't be reset.
READ_RECORDS_MAX = 2000

#: How often the file is looked at for appends of others, in seconds, while somebody waits for them.
POLL_S = 0.05

#: How long `close` waits for each thread, in seconds. The writer may be queued behind another process.
CLOSE_S = 10.0

T = TypeVar("T")
C = TypeVar("C", Reader, Writer)
Args = TypeVarTuple("Args")


class SqliteStore:
    """A store in a SQLite file. Open it by `open`, or by `open_store` from a URL."""

    durability = "SQLite WAL, synchronous=FULL"

    def __init__(self, url: str, threads: _Threads, writer: Writer, reader: Reader) -> None:
        self.url = url
        self._threads, self._reader = threads, reader
        self._watch = _Watch(threads, reader)
        self.log: MessageLog = SqliteLog(threads, writer, reader, self._watch)
        self.keys: KeyValue = SqliteKeys(threads, writer, reader)

    @classmethod
    async def open(cls, path: str, *, url: str) -> SqliteStore:
        """Open the file, or create it; its folder must exist.

        Raises:
            NotReady: it can't be opened now: no folder, no permission, no space, a file system without shared memory.
            NotAStore: it is a folder, not a SQLite file, another application's, or has a layout newer than known.
        """
        threads = _Threads(path)
        try:
            writer, reader = await threads.open()
        except BaseException:
            await threads.end()
            raise
        return cls(url, threads, writer, reader)

    async def claim(self, role: str) -> bool:
        # In the reader's thread: the writer's may be queued behind another process.
        return await self._threads.read(self._reader.claim, role)

    async def close(self) -> None:
        self._watch.stop()
        await self._threads.end()


class SqliteLog:
    """The message log: the table `messages`."""

    def __init__(self, threads: _Threads, writer: Writer, reader: Reader, watch: _Watch) -> None:
        self._threads, self._writer, self._reader = threads, writer, reader
        self._watch = watch
        self._turns = asyncio.Lock()

    async def head(self) -> int:
        return await self._threads.read(self._reader.head)

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records: list[Record] = []
        while (wanted := min(limit - len(records), READ_RECORDS_MAX)) > 0:
            chunk = await self._threads.read(self._reader.read, after, wanted, name)
            records = records + chunk if records else chunk
            if len(chunk) < wanted:
                break
            after = chunk[-1].position
        return records

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        check_batch(records, after=after)
        await self._threads.write(self._writer.append, records, after)
        self._watch.saw(after + len(records))

    async def wait(self, after: int, timeout_s: float) -> None:
        await self._watch.wait(after, timeout_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the lock that every writer of every process takes for its transaction."""
        async with self._turns:
            try:
                await self._threads.write(self._writer.turn.take)
                yield
            finally:
                # If this task was cancelled while it waited for the lock, the thread takes it first, then gives it.
                self._threads.post_write(self._writer.turn.give)


class SqliteKeys:
    """The key-value table: the table `key_values`."""

    def __init__(self, threads: _Threads, writer: Writer, reader: Reader) -> None:
        self._threads, self._writer, self._reader = threads, writer, reader

    async def get(self, key: str) -> Entry | None:
        return await self._threads.read(self._reader.get, key)

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        check_entry(key, value)
        return await self._threads.write(self._writer.put, key, value, expect)

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        return await self._threads.write(self._writer.delete, key, expect)

    async def keys(self, prefix: str = "") -> list[str]:
        return await self._threads.read(self._reader.keys, prefix)


class _Threads:
    """The writer's thread and the reader's. Here, at the edge, the driver's errors are translated."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._write = Thread(f"writer of {path}")
        self._read = Thread(f"reader of {path}")

    async def open(self) -> tuple[Writer, Reader]:
        # Two names of one file must have one lock file; and the process may change its working directory.
        self._path = await self.write(_real_path, self._path)
        writer = await self.write(_opened, Writer, self._path, self._write)
        return writer, await self.read(_opened, Reader, self._path, self._read)

    async def write(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await self._call(self._write, function, *args)

    async def read(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await self._call(self._read, function, *args)

    def post_write(self, function: Callable[[], object]) -> None:
        self._write.post(function)

    async def end(self) -> None:
        # The writer last: the last connection to close folds the WAL into the database.
        await self._read.end(timeout_s=CLOSE_S)
        await self._write.end(timeout_s=CLOSE_S)

    async def _call(self, thread: Thread, function: Callable[[*Args], T], *args: *Args) -> T:
        try:
            return await thread.call(function, *args)
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            raise translated(error, self._path) from error


def _real_path(path: str) -> str:
    return os.path.realpath(path)


def _opened(kind: Callable[[str], C], path: str, thread: Thread) -> C:
    """Open a connection, in its thread, which closes it at its end even if nobody waits for this call any more."""
    connection = kind(path)
    thread.closing.callback(connection.close)
    return connection


class _Watch:
    """Wakes those who wait for the log to grow: at once for appends of this store, by one poll for all others.

    The poll runs only while somebody waits. It finds what changed before it began, too: so no wake-up is lost
    between looking at the head and waiting.
    """

    def __init__(self, threads: _Threads, reader: Reader) -> None:
        self._threads, self._reader = threads, reader
        self._head = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._poll: asyncio.Task[None] | None = None

    def saw(self, head: int) -> None:
        """Take note of a position that is in the log."""
        if head > self._head:
            self._head = head
            self._wake()

    async def wait(self, after: int, timeout_s: float) -> None:
        if self._head > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        poll = self._poll
        if poll is None or poll.done():
            poll = self._poll = self._polling()
        try:
            await asyncio.wait((woken, poll), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if poll.done() and not poll.cancelled():
                poll.result()  # It ends by itself only with an error, which everybody who waits must see.
        finally:
            self._waiting.discard(woken)
            if not self._waiting and self._poll is not None:
                self._poll.cancel()
                self._poll = None

    def stop(self) -> None:
        """Wake everybody, for the last time."""
        self._wake()

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    def _polling(self) -> asyncio.Task[None]:
        poll = asyncio.create_task(self._look_again_and_again())
        # An error counts as seen even if all who waited were cancelled meanwhile: the next call meets it again.
        poll.add_done_callback(lambda poll: poll.cancelled() or poll.exception())
        return poll

    async def _look_again_and_again(self) -> None:
        while True:
            self.saw(await self._threads.read(self._reader.look))
            await asyncio.sleep(POLL_S)

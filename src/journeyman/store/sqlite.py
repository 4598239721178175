"""The store in a SQLite file: the default. One machine, as many processes as one likes.

Each store has two threads with a connection each, so that no reader waits for a writer and nothing blocks the event
loop. What happens in them is in `sqlite_file`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from typing import TypeVar, TypeVarTuple

import apsw

from journeyman.errors import NotReady
from journeyman.message import Record
from journeyman.store.base import Blobs, Entry, Examination, KeyValue, MessageLog
from journeyman.store.files import FileBlobs
from journeyman.store.limits import check_batch, check_entry
from journeyman.store.sqlite_file import Reader, Writer, news_file, translated
from journeyman.store.thread import Thread
from journeyman.store.touch import TouchWatch, watch_touches
from journeyman.store.waiters import Waiters
from journeyman.threads import in_thread

#: The most records that one read transaction reads: while one is open, the WAL can't be reset.
READ_RECORDS_MAX = 2000

#: How often the file is looked at for appends of others, in seconds, while somebody waits for them: where the kernel
#: tells of them, only in case that it does not; and where it can't.
LOOK_S = 1.0
LOOK_UNTOLD_S = 0.02

#: How long opening may take, in seconds: behind other writers it waits its turn, which a stopped one never gives.
OPEN_S = 10.0

#: How long `close` waits for each thread, in seconds. The writer may be queued behind another process.
CLOSE_S = 10.0

T = TypeVar("T")
C = TypeVar("C", Reader, Writer)
Args = TypeVarTuple("Args")


class SqliteStore:
    """A store in a SQLite file. Open it by `open`, or by `open_store` from a URL."""

    durability = "SQLite WAL, synchronous=FULL"

    def __init__(self, url: str, threads: _Threads, writer: Writer, reader: Reader, news: TouchWatch | None) -> None:
        self.url = url
        self._threads, self._reader = threads, reader
        self._watch = _Watch(threads, reader, news)
        self.log: MessageLog = SqliteLog(threads, writer, reader, self._watch)
        self.keys: KeyValue = SqliteKeys(threads, writer, reader)
        self.blobs: Blobs = SqliteBlobs(threads.path)

    @classmethod
    async def open(cls, path: str, *, url: str) -> SqliteStore:
        """Open the file, or create it; its folder must exist.

        Raises:
            NotReady: it can't be opened now: no folder, no permission, no space, a file system without shared memory.
            NotAStore: it is a folder, not a SQLite file, another application's, or has a layout newer than known.
        """
        threads, limit = _Threads(path), asyncio.timeout(OPEN_S)
        try:
            async with limit:
                return cls(url, threads, *await threads.open())
        except BaseException as error:
            await threads.end(timeout_s=0 if limit.expired() else CLOSE_S)
            if isinstance(error, TimeoutError) and limit.expired():
                raise NotReady(
                    f"{path} could not be opened within {OPEN_S:g} s: another process holds {path}-lock, and does not "
                    f"go on. Is one stopped? Find it with: fuser {path}-lock"
                ) from None
            raise

    @property
    def path(self) -> str:
        """The file, wherever the process's working directory is by now."""
        return self._threads.path

    async def claim(self, role: str) -> bool:
        # In the reader's thread: the writer's may be queued behind another process.
        return await self._threads.read(self._reader.claims.take, role)

    async def release(self, role: str) -> None:
        await self._threads.read(self._reader.claims.give, role)

    async def examine(self) -> Examination:
        return await self._threads.read(self._reader.examine)

    async def open_again(self) -> SqliteStore:
        return await SqliteStore.open(self._threads.path, url=self.url)

    async def close(self) -> None:
        await self._watch.stop()
        await self._threads.end(timeout_s=CLOSE_S)


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

    def scan(self, after: int, batch: int) -> Generator[list[Record]]:
        """On a connection of its own: nothing else of this store is used in the thread, or waits for it."""
        try:
            with closing(Reader(self._threads.path)) as reader:
                while records := reader.read(after, batch, None):
                    yield records
                    after = records[-1].position
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            raise translated(error, self._threads.path) from error

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


class SqliteBlobs:
    """Large values as files `blog.db-blob-NAME`: in the database they would make its backups slow and large."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files = FileBlobs(f"{path}-blob-")

    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        await self._call(self._files.save, name, parts)

    async def load(self, name: str) -> bytes | None:
        return await self._call(self._files.load, name)

    async def delete(self, name: str) -> None:
        await self._call(self._files.delete, name)

    async def sizes(self) -> dict[str, int]:
        return await self._call(self._files.sizes)

    async def _call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """In a thread of its own: neither commands nor reads wait for a large file."""
        try:
            return await in_thread(partial(function, *args), name=f"blobs of {self._path}")
        except OSError as error:
            raise translated(error, self._path) from error


class _Threads:
    """The writer's thread and the reader's. Here, at the edge, the driver's errors are translated."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._write = Thread(f"writer of {path}")
        self._read = Thread(f"reader of {path}")

    async def open(self) -> tuple[Writer, Reader, TouchWatch | None]:
        # Two names of one file must have one lock file; and the process may change its working directory.
        self.path = await self.write(_real_path, self.path)
        writer = await self.write(_opened, Writer, self.path, self._write)
        reader = await self.read(_opened, Reader, self.path, self._read)
        return writer, reader, await self.read(_watched, news_file(self.path), self._read)

    async def write(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await self._call(self._write, function, *args)

    async def read(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await self._call(self._read, function, *args)

    def post_write(self, function: Callable[[], object]) -> None:
        self._write.post(function)

    async def end(self, *, timeout_s: float) -> None:
        # The writer last: the last connection to close folds the WAL into the database.
        await self._read.end(timeout_s=timeout_s)
        await self._write.end(timeout_s=timeout_s)

    async def _call(self, thread: Thread, function: Callable[[*Args], T], *args: *Args) -> T:
        try:
            return await thread.call(function, *args)
        except (apsw.Error, OSError, UnicodeDecodeError) as error:
            raise translated(error, self.path) from error


def _real_path(path: str) -> str:
    return os.path.realpath(path)


def _opened(kind: Callable[[str], C], path: str, thread: Thread) -> C:
    """Open a connection, in its thread, which closes it at its end even if nobody waits for this call any more."""
    connection = kind(path)
    thread.closing.callback(connection.close)
    return connection


def _watched(path: str, thread: Thread) -> TouchWatch | None:
    """Watch the file. Opened in the thread, because that blocks, and closed at the thread's end."""
    news = watch_touches(path)
    if news is not None:
        thread.closing.callback(news.close)
    return news


class _Watch:
    """Wakes those who wait for the log to grow: at once for appends of this store; for those of all others, when the
    kernel tells that the file beside the database was touched, or after a look by oneself.
    """

    def __init__(self, threads: _Threads, reader: Reader, news: TouchWatch | None) -> None:
        self._threads, self._reader, self._news = threads, reader, news
        self._head = 0
        self._waiters = Waiters(self._look_again_and_again)

    def saw(self, head: int) -> None:
        """Take note of a position that is in the log."""
        if head > self._head:
            self._head = head
            self._waiters.wake()

    async def wait(self, after: int, timeout_s: float) -> None:
        if self._head > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
        else:
            await self._waiters.wait(timeout_s)

    async def stop(self) -> None:
        """Wake everybody, for the last time."""
        self._news = None
        await self._waiters.stop()

    async def _look_again_and_again(self) -> None:
        touched = asyncio.Event()
        with _told(self._news, touched) as told:
            while True:
                touched.clear()  # Before looking: what is touched meanwhile may be newer than what is seen.
                self.saw(await self._threads.read(self._reader.look))
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S if told else LOOK_UNTOLD_S):
                        await touched.wait()


@contextmanager
def _told(news: TouchWatch | None, touched: asyncio.Event) -> Iterator[bool]:
    """While the block runs, the event is set when the file is touched. Yields whether it ever will be."""
    if news is None:
        yield False
        return
    loop, file = asyncio.get_running_loop(), news.fileno()
    loop.add_reader(file, _note_touch, news, touched)
    try:
        yield True
    finally:
        loop.remove_reader(file)


def _note_touch(news: TouchWatch, touched: asyncio.Event) -> None:
    news.drain()
    touched.set()

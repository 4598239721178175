"""The index as the pages use it: kept up with the log in the background, and asked.

On one machine one process writes an index, the one that has its lock; the others read the same file, and one of them
goes on with it when that process ends. It begins with the first question: who never looks at the console pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Final, TypeVar

import apsw
import msgspec

from journeyman.app import App
from journeyman.doors.console.index.file import Place, connect_to_read, connect_to_write, inode_of, place_of, remove
from journeyman.doors.console.index.job_effects import JobEffects
from journeyman.doors.console.index.reader import IndexReader
from journeyman.doors.console.index.writer import LAYOUT, BuiltFor, IndexWriter, Mark
from journeyman.errors import JourneymanError, NotRunning
from journeyman.follower import check_no_gap
from journeyman.message import Record
from journeyman.set_aside import NAME as SET_ASIDE_NAME
from journeyman.set_aside import read_set_asides
from journeyman.store.base import MessageLog, Scannable
from journeyman.store.sqlite_file import LockFile
from journeyman.store.thread import Thread

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How many records one transaction adds: few, so that the thread lets the event loop in again soon.
BATCH: Final = 500

#: For each second that the thread works it rests so long while commands come in: they go before looking at them.
REST: Final = 1.0

#: The pause between two batches at the head, in seconds: so that messages gather, each of which would cost a commit.
GATHER_S: Final = 0.5

#: So many messages may be missing, for somebody to wait for them at all.
NEAR: Final = 5_000

#: How long somebody waits at most who wants to see what was just done, in seconds.
HURRY_S: Final = 1.0

#: How often it is looked whether the index has come far enough, in seconds.
LOOK_S: Final = 0.01

#: How long one wait for the log's growth is, and the pause when something fails or another process writes, in seconds.
WAIT_S: Final = 1.0

#: How long ending a thread may take, in seconds.
END_S: Final = 5.0


class NotIndexed(Exception):
    """There is no index to ask yet. The text says why."""


class Progress(msgspec.Struct, frozen=True):
    """How far the index is: up to `position` of `head`. `trouble` is what holds it up, for people."""

    position: int
    head: int
    trouble: str | None = None

    @property
    def is_behind(self) -> bool:
        """Whether so much is missing that a page should say so: more than what a batch at the head brings."""
        return self.head - self.position > BATCH


class Index:
    """The index of a running application's log."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._effects = JobEffects(app.catalog, app.todo_workers)
        self._task: asyncio.Task[None] | None = None
        self._writing: _Writing | None = None
        self._reading: _Reading | None = None
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._trouble: str | None = None

    def begin(self) -> None:
        """Keep up with the log from now on, if it is not done already."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow(), name="journeyman: console index")

    async def stop(self) -> None:
        """Stop keeping up, and close the files."""
        if self._writing is not None:
            self._writing.stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        # The writer last: the last connection to close folds the WAL into the file.
        if self._reading is not None:
            await self._reading.end()
        if self._writing is not None:
            await self._writing.end()
        self._task = self._writing = self._reading = None
        self._ready.clear()

    async def ask(self, question: Callable[[IndexReader], T]) -> T:
        """What the index answers, as far as it reaches.

        Raises:
            NotIndexed: there is no index yet.
            TooSlow: the question was given up.
        """
        self.begin()
        if not self._ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._ready.wait()
        if self._reading is None or not self._ready.is_set():
            raise NotIndexed(self._trouble or "The log is empty, or can't be read: there is nothing to look up.")
        return await self._reading.ask(question)

    async def progress(self) -> Progress:
        """How far it is."""
        head = self._app.position
        try:
            position = await self.ask(lambda reader: reader.position)
        except NotIndexed:
            position = 0
        return Progress(min(position, head), head, self._trouble)

    async def gather(self) -> None:
        """Wait a moment for the last messages, if only those are missing: somebody wants to see what was just done."""
        progress = await self.progress()
        if 0 < progress.head - progress.position <= NEAR:
            self._hurry.set()
            await self.until(progress.head, timeout_s=HURRY_S)

    async def until(self, position: int, *, timeout_s: float) -> bool:
        """Wait until it reaches a position; whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while (await self.progress()).position < position:  # noqa: ASYNC110  # another process may write it
                    await asyncio.sleep(LOOK_S)
                return True
        return False

    # Keeping up.

    async def _follow(self) -> None:
        while True:
            try:
                await self._keep_up()
            except NotRunning:
                return
            except (JourneymanError, apsw.Error, OSError) as error:
                if self._trouble is None:
                    logger.warning("the console's index is not kept up: %s", error)
                self._trouble = str(error)
                if self._writing is not None and isinstance(error, apsw.CorruptError | apsw.NotADBError):
                    await self._writing.discard()
            await asyncio.sleep(WAIT_S)

    async def _keep_up(self) -> None:
        log = self._app.store.log
        writing = self._writing = self._writing or _Writing(
            await self._find_place(log), self._effects, app_position=lambda: self._app.position
        )
        if not await writing.take():
            self._ready.set()  # The process that writes it has looked whether it is of this log.
            return
        mark = await self._begin(writing, log)
        self._ready.set()
        while True:
            mark = await self._catch_up(writing, log, mark)
            self._trouble = None
            await self._let_gather()
            await log.wait(mark.position, WAIT_S)

    async def _let_gather(self) -> None:
        """Let single messages gather for a moment, unless somebody waits for them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._hurry.wait()
        self._hurry.clear()

    async def _find_place(self, log: MessageLog) -> Place:
        while self._reading is None:
            if first := await log.read(0, 1):
                self._reading = _Reading(place_of(self._app.store, first[0].id))
            else:
                await log.wait(0, WAIT_S)
        return self._reading.place

    async def _begin(self, writing: _Writing, log: MessageLog) -> Mark:
        """Go on with the index that is there, if it is of this log, and of this code; else begin a new one."""
        wanted = await self._wanted(log)
        mark = await writing.call(lambda writer: writer.mark if writer.is_built_for(wanted) else None)
        if mark is None or not await _is_of(log, mark):
            await writing.call(lambda writer: writer.begin_anew(wanted))
            mark = Mark()
        return mark

    async def _wanted(self, log: MessageLog) -> BuiltFor:
        return BuiltFor(self._app.fingerprint, tuple(sorted(await read_set_asides(log))))

    async def _catch_up(self, writing: _Writing, log: MessageLog, mark: Mark) -> Mark:
        """Add what the log has beyond the mark: a long way in the thread, which reads it in place where it can."""
        if isinstance(log, Scannable) and await log.head() - mark.position > BATCH:
            await writing.add_all(log, mark.position)
            mark = await writing.call(lambda writer: writer.mark)
        while records := await log.read(mark.position, BATCH):
            check_no_gap(records, after=mark.position)
            if SET_ASIDE_NAME in {record.name for record in records} and not await self._is_built(writing, log):
                # What is decided now concerns messages before: their effects are taken out by beginning anew.
                return await self._begin(writing, log)
            await writing.add(records)
            mark = await writing.call(lambda writer: writer.mark)
        return mark

    async def _is_built(self, writing: _Writing, log: MessageLog) -> bool:
        wanted = await self._wanted(log)
        return await writing.call(lambda writer: writer.is_built_for(wanted))


async def _is_of(log: MessageLog, mark: Mark) -> bool:
    """Whether the log has the mark's messages where the mark has them."""
    if mark.position == 0:
        return True
    found = [*await log.read(0, 1), *await log.read(mark.position - 1, 1)]
    return [record.id for record in found] == [mark.first_id, mark.last_id]


class _Writing:
    """The writer in its thread, while this process has the lock of the index.

    Args:
        app_position: how far the application is: when it moves, commands come in.
    """

    def __init__(self, place: Place, effects: JobEffects, *, app_position: Callable[[], int]) -> None:
        self.stopping = threading.Event()
        self._app_position = app_position
        self._last_position = 0
        self._place, self._effects = place, effects
        self._thread = Thread("console index: writer")
        self._thread.closing.callback(self._close)
        self._lock: LockFile | None = None
        self._connection: apsw.Connection | None = None
        self._writer: IndexWriter | None = None

    async def take(self) -> bool:
        """Begin to write; False when another process does."""
        return await self._thread.call(self._take)

    def _take(self) -> bool:
        if not self._place.in_memory and self._lock is None:
            lock = LockFile(self._place.lock)
            if not lock.try_take():
                lock.close()
                return False
            self._lock = lock
        if self._connection is None:
            self._connection = connect_to_write(self._place)
            self._writer = IndexWriter(self._connection, self._effects)
        return True

    async def discard(self) -> None:
        """Delete an index that is damaged; `take` makes another one."""
        await self._thread.call(self._discard)

    def _discard(self) -> None:
        self._close_connection()
        remove(self._place)

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._writer = None

    def _close(self) -> None:
        self._close_connection()
        if self._lock is not None:
            self._lock.close()

    async def call(self, function: Callable[[IndexWriter], T]) -> T:
        return await self._thread.call(lambda: function(self._there()))

    def _there(self) -> IndexWriter:
        assert self._writer is not None
        return self._writer

    async def add(self, records: Sequence[Record]) -> None:
        await self._thread.call(self._add, records)

    async def add_all(self, log: Scannable, after: int) -> None:
        """Add all that there is now."""
        await self._thread.call(self._add_all, log, after)

    def _add_all(self, log: Scannable, after: int) -> None:
        with closing(log.scan(after, BATCH)) as batches:
            for records in batches:
                if self.stopping.is_set() or SET_ASIDE_NAME in {record.name for record in records}:
                    return
                self._add(records)

    def _add(self, records: Sequence[Record]) -> None:
        begun_s = time.monotonic()
        self._there().add(records)
        before, self._last_position = self._last_position, self._app_position()
        if self._last_position > before:
            self.stopping.wait((time.monotonic() - begun_s) * REST)

    async def end(self) -> None:
        await self._thread.end(timeout_s=END_S)


class _Reading:
    """The reader in its thread. It opens the file again when it was replaced."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._thread = Thread("console index: reader")
        self._thread.closing.callback(self._close)
        self._connection: apsw.Connection | None = None
        self._reader: IndexReader | None = None
        self._inode: int | None = None

    async def ask(self, question: Callable[[IndexReader], T]) -> T:
        return await self._thread.call(self._ask, question)

    def _ask(self, question: Callable[[IndexReader], T]) -> T:
        try:
            return question(self._there())
        except (apsw.CantOpenError, apsw.SQLError, apsw.NotADBError, apsw.CorruptError) as error:
            self._close()
            raise NotIndexed("The index is being made.") from error

    def _there(self) -> IndexReader:
        if self._reader is None or self._connection is None or inode_of(self.place) != self._inode:
            self._close()
            self._inode = inode_of(self.place)
            self._connection = connect_to_read(self.place)
            self._reader = IndexReader(self._connection)
        if self._connection.pragma("user_version") != LAYOUT:
            raise NotIndexed("The index is being made, or a process of another version of Journeyman keeps it.")
        return self._reader

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._reader = None

    async def end(self) -> None:
        await self._thread.end(timeout_s=END_S)

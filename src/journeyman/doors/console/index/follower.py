"""The index as the pages use it: kept up with the log in the background, and asked.

On one machine one process writes an index, the one that has its lock; the others read the same file, and one of them
goes on with it when that process ends. It begins with the first question: who never looks at the console pays nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import apsw
import msgspec

from journeyman.app import App
from journeyman.doors.console.index.file import Place, place_of
from journeyman.doors.console.index.job_effects import JobEffects
from journeyman.doors.console.index.reader import IndexReader
from journeyman.doors.console.index.threads import BATCH, NotIndexed, Reading, Writing
from journeyman.doors.console.index.writer import BuiltFor, Mark
from journeyman.errors import JourneymanError, NotRunning
from journeyman.follower import check_no_gap
from journeyman.set_aside import NAME as SET_ASIDE_NAME
from journeyman.set_aside import read_set_asides
from journeyman.store.base import MessageLog, Scannable

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
        self._writing: Writing | None = None
        self._reading: Reading | None = None
        self._ready = asyncio.Event()
        self._hurry = asyncio.Event()
        self._trouble: str | None = None

    def begin(self) -> None:
        """Keep up with the log from now on, if it is not done already."""
        if self._task is None or self._task.done():
            self._app.at_stop(self.stop)
            self._task = asyncio.create_task(self._follow(), name="journeyman: console index")

    async def stop(self) -> None:
        """Stop keeping up, and close the files."""
        self._app.not_at_stop(self.stop)
        if self._writing is not None:
            self._writing.stopping.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def _close(self) -> None:
        # The writer last: the last connection to close folds the WAL into the file.
        if self._reading is not None:
            await self._reading.end()
        if self._writing is not None:
            await self._writing.end()
        self._writing = self._reading = None
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
        """Until the application stops: started again, it may be on another store."""
        while self._runs():
            try:
                await self._keep_up()
            except (JourneymanError, apsw.Error, OSError) as error:
                if not self._runs():
                    break
                if self._trouble is None:
                    logger.warning("the console's index is not kept up: %s", error)
                self._trouble = str(error)
                if self._writing is not None and isinstance(error, apsw.CorruptError | apsw.NotADBError):
                    await self._writing.discard()
            await asyncio.sleep(WAIT_S)
        await self._close()
        self._app.not_at_stop(self.stop)

    def _runs(self) -> bool:
        """Whether the application does."""
        try:
            return self._app.position >= 0
        except NotRunning:
            return False

    def _is_on(self, log: MessageLog) -> bool:
        """Whether the application still runs on that log: one in memory can be read for ever."""
        return self._runs() and self._app.store.log is log

    async def _keep_up(self) -> None:
        log = self._app.store.log
        writing = self._writing = self._writing or Writing(
            await self._find_place(log), self._effects, app_position=lambda: self._app.position
        )
        if not await writing.take():
            self._ready.set()  # The process that writes it has looked whether it is of this log.
            return
        mark = await self._begin(writing, log)
        self._ready.set()
        while self._is_on(log):
            mark = await self._catch_up(writing, log, mark)
            self._trouble = None
            await self._let_gather()
            await log.wait(mark.position, WAIT_S)
        await self._close()

    async def _let_gather(self) -> None:
        """Let single messages gather for a moment, unless somebody waits for them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._hurry.wait()
        self._hurry.clear()

    async def _find_place(self, log: MessageLog) -> Place:
        while self._reading is None:
            if not self._is_on(log):
                raise NotRunning("The application has stopped.")
            if first := await log.read(0, 1):
                self._reading = Reading(place_of(self._app.store, first[0].id))
            else:
                await log.wait(0, WAIT_S)
        return self._reading.place

    async def _begin(self, writing: Writing, log: MessageLog) -> Mark:
        """Go on with the index that is there, if it is of this log, and of this code; else begin a new one."""
        wanted = await self._wanted(log)
        mark = await writing.call(lambda writer: writer.mark if writer.is_built_for(wanted) else None)
        if mark is None or not await _is_of(log, mark):
            await writing.call(lambda writer: writer.begin_anew(wanted))
            mark = Mark()
        return mark

    async def _wanted(self, log: MessageLog) -> BuiltFor:
        return BuiltFor(self._app.fingerprint, tuple(sorted(await read_set_asides(log))))

    async def _catch_up(self, writing: Writing, log: MessageLog, mark: Mark) -> Mark:
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

    async def _is_built(self, writing: Writing, log: MessageLog) -> bool:
        wanted = await self._wanted(log)
        return await writing.call(lambda writer: writer.is_built_for(wanted))


async def _is_of(log: MessageLog, mark: Mark) -> bool:
    """Whether the log has the mark's messages where the mark has them."""
    if mark.position == 0:
        return True
    found = [*await log.read(0, 1), *await log.read(mark.position - 1, 1)]
    return [record.id for record in found] == [mark.first_id, mark.last_id]

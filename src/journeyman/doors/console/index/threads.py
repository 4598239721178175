"""The two threads that an index lives in: the one that writes, and the one that is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Final, TypeVar

import apsw

from journeyman.doors.console.index.file import Place, connect_to_read, connect_to_write, inode_of, remove
from journeyman.doors.console.index.job_effects import JobEffects
from journeyman.doors.console.index.reader import IndexReader
from journeyman.doors.console.index.writer import LAYOUT, IndexWriter
from journeyman.message import Record
from journeyman.set_aside import NAME as SET_ASIDE_NAME
from journeyman.store.base import Scannable
from journeyman.store.sqlite_file import LockFile
from journeyman.store.thread import Thread

T = TypeVar("T")

#: How many records one transaction adds: few, so that the thread lets the event loop in again soon.
BATCH: Final = 500

#: For each second that the thread works it rests two, while commands come in: they go before looking at them.
REST: Final = 2.0

#: How long ending a thread may take, in seconds.
END_S: Final = 5.0


class NotIndexed(Exception):
    """There is no index to ask yet. The text says why."""


class Writing:
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


class Reading:
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

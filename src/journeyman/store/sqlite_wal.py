"""The write-ahead log of a SQLite file, the WAL: that what stands in it is on the disk, and gets into the database.

SQLite trusts its disk: what can be read back was written, and a sync that succeeds covers all that was written before
it. Neither is so after a sync that failed: Linux takes the pages for clean, whatever became of them, and the next sync
succeeds without them (lwn.net/Articles/752063). Only writing makes them dirty again. SQLite does write again what a
failed sync was about, with two exceptions, which are mended here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import apsw

from journeyman.errors import Corrupt

logger = logging.getLogger(__name__)

#: How many pages the WAL grows by between checkpoints.
CHECKPOINT_PAGES = 1000

#: How long the WAL may stay when all of it is in the database, in bytes: a reader that takes long has it grow.
WAL_KEPT_BYTES = 16 * 1024 * 1024

#: The sizes of what stands before all frames of the WAL and before each (sqlite.org/fileformat2.html, 4.1).
WAL_HEADER_BYTES = 32
WAL_FRAME_HEADER_BYTES = 24

#: How much of the WAL is written again at once. SQLite masks a length with 0x1ffff: a multiple of 128 KiB would be a
#: write of nothing, which it takes for a full disk.
COPY_BYTES = 64 * 1024


def write_again(connection: apsw.Connection, path: str) -> None:
    """Write the valid part of the WAL over itself, and sync it. To be called under the writers' lock.

    The first to open the file after a crash takes every whole commit in the WAL for done. But a process may have died
    between writing one and syncing it, or after a sync that failed: such a commit was told to nobody, and is perhaps
    in the kernel's cache only. Told now, as the receipt of a repeated idempotency key or by a query, it could be lost
    with the power, and all that was appended behind it, too. While its process lives there is no such danger: SQLite
    does not count a commit whose sync failed, and writes the next one over it.

    Raises:
        Corrupt: the file was cut off.
    """
    frames, _ = progress(connection)
    page_bytes = _page_bytes(connection)
    if frames <= 0:
        _check_whole(path, page_bytes)
        return
    size = WAL_HEADER_BYTES + frames * (WAL_FRAME_HEADER_BYTES + page_bytes)
    # The lock keeps our own writers out, the transaction those of other tools. Unlike the database, the WAL may be
    # opened a second time: SQLite locks nothing in it.
    with begun(connection), _opened(f"{path}-wal", apsw.SQLITE_OPEN_WAL) as wal:
        for offset in range(0, size, COPY_BYTES):
            wal.xWrite(wal.xRead(min(COPY_BYTES, size - offset), offset), offset)
        wal.xSync(apsw.SQLITE_SYNC_FULL)


class Checkpoints:
    """Gets the WAL into the database, page by page, so that it can begin anew. Used by the writer, under its lock.

    SQLite would do this by itself, and keep its errors to itself. They matter: while somebody reads, a checkpoint
    copies a part of the WAL only, counts it as done, and does not sync it. If the sync of a later one fails, that part
    may have got lost on its way to the disk; it is not copied again, for it counts as done; and once all is copied, the
    WAL begins anew. So when the disk fails while a part counts as done, the WAL is kept, all of it, until every process
    has ended: who opens the file then counts from nothing. Whoever met the failure first: each process that had the
    file open is told of it by its own next sync.
    """

    def __init__(self, connection: apsw.Connection, path: str) -> None:
        self._connection, self._path = connection, path
        self._pages = 0
        self._next = CHECKPOINT_PAGES
        #: Whether the WAL is kept: then there are no more checkpoints here, and by others as few as can be prevented.
        self._keeps = False
        #: A transaction that reads: while it is open, nobody can begin the WAL anew.
        self._keeper: apsw.Connection | None = None
        connection.pragma("journal_size_limit", WAL_KEPT_BYTES)
        connection.set_wal_hook(self._note_pages)

    def run_if_due(self) -> None:
        """After a commit. What fails is no failure of the commit, and loses nothing, so it is only logged."""
        if self._keeps:
            self._keep()
        elif self._pages >= self._next:
            self._run()

    def close(self) -> None:
        """Before the connection, which would complete what counts as begun, and then remove the WAL."""
        if self._keeps or self._copied_part():
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        if self._keeper is not None:
            self._keeper.close()

    def _note_pages(self, connection: apsw.Connection, database: str, pages: int) -> int:
        if pages < self._pages:
            self._next = CHECKPOINT_PAGES  # The WAL has begun anew.
        self._pages = pages
        return apsw.SQLITE_OK

    def _run(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            return  # Another tool is at it.
        except apsw.Error as error:
            self._meet(error)
        # While somebody reads, the WAL can't begin anew, and each commit would have its own.
        self._next = self._pages + CHECKPOINT_PAGES

    def _meet(self, error: apsw.Error) -> None:
        if isinstance(error, apsw.IOError) and self._copied_part():
            self._keeps = True
            self._keep()
            logger.error(
                "%s: the disk failed while the write-ahead log was copied (%s). Nothing is lost, but the log is kept "
                "and grows until all processes that use the file have been stopped. Look at the disk, then start them.",
                self._path,
                error,
            )
        else:
            logger.warning("%s: the write-ahead log could not be copied: %s. It is tried again.", self._path, error)

    def _copied_part(self) -> bool:
        """Whether a part of the WAL counts as copied; also when that can't be told."""
        try:
            frames, copied = progress(self._connection)
        except apsw.Error:
            return True
        return 0 < copied < frames

    def _keep(self) -> None:
        """Begin to read, if the disk lets us; else after the next commit."""
        if self._keeper is None:
            with suppress(apsw.Error):
                keeper = apsw.Connection(self._path, apsw.SQLITE_OPEN_READWRITE)
                keeper.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                keeper.execute("BEGIN")
                keeper.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                self._keeper = keeper


@contextmanager
def begun(connection: apsw.Connection) -> Iterator[None]:
    """A transaction that writes. What the block has not committed at its end is taken back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        # After some errors SQLite has rolled back by itself, and another ROLLBACK would hide the error behind its own.
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def progress(connection: apsw.Connection) -> tuple[int, int]:
    """How many frames the WAL has, and how many of them count as copied into the database."""
    return connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)


@contextmanager
def _opened(path: str, kind: int) -> Iterator[apsw.VFSFile]:
    """A file of SQLite's, opened by SQLite: closing it then drops no locks."""
    file = apsw.VFSFile("", path, [apsw.SQLITE_OPEN_READWRITE | kind, 0])
    try:
        yield file
    finally:
        file.xClose()


def _page_bytes(connection: apsw.Connection) -> int:
    return int(connection.pragma("page_size"))


def _check_whole(path: str, page_bytes: int) -> None:
    """With nothing in the WAL, the file has whole pages only. What the last one lacks SQLite would take for zeros."""
    if os.path.getsize(path) % page_bytes:
        raise damaged(path, "it was cut off within a page")


def damaged(path: str, why: str) -> Corrupt:
    """What to raise when the file is not what was written to it."""
    return Corrupt(f"{path} is damaged: {why}. Stop all processes that use it, and restore it from a backup.")

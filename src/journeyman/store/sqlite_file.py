"""A SQLite file as a store, seen from the threads that use it: nothing here knows asyncio.

The file may be open in many processes. Beside `blog.db` and SQLite's own `blog.db-wal` and `blog.db-shm` stand
`blog.db-lock`, which every writer locks around its transaction, `blog.db-wake`, which it touches when it has appended,
and `blog.db-claim-ROLE`, one for each claimed role.
Nothing may open the database file itself but SQLite: closing it would drop the locks that SQLite has in this process
(sqlite.org, "How To Corrupt An SQLite Database File", 2.2).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from itertools import chain, starmap, takewhile
from typing import Any, ClassVar, cast
from urllib.parse import quote
from weakref import WeakSet

import apsw
import msgspec

from journeyman.errors import Corrupt, NotAStore, NotReady, OutcomeUnknown, StoreError
from journeyman.message import Record
from journeyman.store import sqlite_wal
from journeyman.store.base import Check, Entry, Examination
from journeyman.store.limits import check_written
from journeyman.store.sqlite_wal import Checkpoints, begun, damaged
from journeyman.store.touch import TouchFile

#: What marks a SQLite file as a store ("Jnym"), and the layout that this version writes; both set by the .sql file.
APPLICATION_ID = 0x4A6E796D
LAYOUT_VERSION = 1

#: The first SQLite without the WAL-reset bug of 3.7.0 to 3.51.2, which could corrupt a database with several writers.
SQLITE_VERSION_MIN = (3, 51, 3)

#: How long to wait for foreign tools that lock the database, in milliseconds. Our own writers queue at the lock file.
BUSY_TIMEOUT_MS = 5000

#: The message name that has an index of its own.
SET_ASIDE = "journeyman/message-set-aside"


def _sql(name: str) -> str:
    return files(__package__).joinpath(f"sqlite_{name}.sql").read_text(encoding="utf-8")


_CREATE, _APPEND, _HEAD, _IDS = _sql("create"), _sql("append"), _sql("head"), _sql("ids")
_READ, _READ_NAMED, _READ_SET_ASIDE = _sql("read"), _sql("read_named"), _sql("read_set_aside")
_GET, _PUT, _DELETE, _KEYS, _NEXT_REVISION = (
    _sql("get"),
    _sql("put"),
    _sql("delete"),
    _sql("keys"),
    _sql("next_revision"),
)

#: So many records are inserted by one statement: each then costs half of what it does alone.
TOGETHER = 16
_APPEND_TOGETHER = _APPEND.rstrip() + (", " + _APPEND[_APPEND.rindex("(") :].rstrip()) * (TOGETHER - 1)


class LockFile:
    """An exclusive lock of one process, on a file of its own. The kernel drops it when the process dies.

    Waiting for it blocks in the kernel, whose queue is fair. Measured with four processes that append as fast as they
    can: SQLite's own busy_timeout gave them 18,234, 33,721, 1 and 1 commits.
    Used as a context it nests: only the outermost one takes and gives the lock. Used by one thread only.
    """

    #: All that are open in this process.
    _open: ClassVar[WeakSet[LockFile]] = WeakSet()

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._depth = 0
        self._open.add(self)

    def take(self) -> None:
        if self._depth == 0:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self._depth += 1

    def try_take(self) -> bool:
        """Take the lock if nobody else has it; never waits."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._depth += 1
        return True

    def give(self) -> None:
        """Give the lock back. Nothing happens when it is not held: taking it may have failed."""
        if self._depth == 1:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._depth = max(0, self._depth - 1)

    def stands_at(self, path: str) -> bool:
        """Whether the locked file is still the one of that name: else the lock keeps nobody out."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        self._open.discard(self)
        os.close(self._file)

    @classmethod
    def close_after_fork(cls) -> None:
        """In a forked child: let the locks be the parent's alone, or they would be held until the child ends, too."""
        for lock in list(cls._open):
            lock.close()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()


# Those who perform in a pool of forked processes leave children behind when they are killed.
os.register_at_fork(after_in_child=LockFile.close_after_fork)


class Claims:
    """The roles that one store has taken: a locked file for each. Lives in one thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._locks: dict[str, LockFile] = {}

    def take(self, role: str) -> bool:
        """Take the role if nobody else has it. Its file is removed when it is given back, so look what was locked."""
        while role not in self._locks:
            lock = LockFile(self._file_of(role))
            if not lock.try_take():
                lock.close()
                return False
            if lock.stands_at(self._file_of(role)):
                self._locks[role] = lock
            else:
                lock.close()
        return True

    def give(self, role: str) -> None:
        """Give the role back. Its file goes first: who has opened it meanwhile sees that, and opens a new one."""
        lock = self._locks.pop(role, None)
        if lock is not None:
            try:
                os.unlink(self._file_of(role))
            finally:
                lock.close()

    def close(self) -> None:
        for role in list(self._locks):
            with suppress(OSError):
                self.give(role)

    def _file_of(self, role: str) -> str:
        return f"{self._path}-claim-{quote(role, safe='')}"


class Writer:
    """The connection that writes, and the lock that goes with it. Lives in one thread."""

    def __init__(self, path: str) -> None:
        """Open the file; create the store when there is none."""
        _check_place(path)
        self._path = path
        self.turn = LockFile(f"{path}-lock")
        self._news = TouchFile(news_file(path))
        try:
            # Under the lock, so that processes that start together don't create the store together.
            with self.turn:
                self.connection = _connect_durably(path)
                self._checkpoints = Checkpoints(self.connection, path)
        except BaseException:
            self._news.close()
            self.turn.close()
            raise

    def append(self, records: Sequence[Record], after: int) -> None:
        with self._transaction():
            head = _one(self.connection, _HEAD)
            if head != after:
                stored = self.connection.execute(_IDS, (after, len(records)))
                check_written(records, [cast(str, row[0]) for row in stored], after=after, head=head)
                return
            self._insert([msgspec.structs.astuple(record) for record in records])
        self._news.touch()  # After the commit: whoever this wakes must find what was appended.

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        rest = len(rows) % TOGETHER
        for start in range(0, len(rows) - rest, TOGETHER):
            self.connection.execute(_APPEND_TOGETHER, tuple(chain.from_iterable(rows[start : start + TOGETHER])))
        if rest:
            self.connection.executemany(_APPEND, rows[-rest:])

    def put(self, key: str, value: bytes, expect: int | None) -> int | None:
        with self._transaction():
            if expect is not None and expect != self._revision(key):
                return None
            revision = _one(self.connection, _NEXT_REVISION)
            self.connection.execute(_PUT, (key, value, revision))
            return revision

    def delete(self, key: str, expect: int | None) -> bool:
        with self._transaction():
            revision = self._revision(key)
            if revision == 0 or (expect is not None and expect != revision):
                return False
            self.connection.execute(_DELETE, (key,))
            return True

    def close(self) -> None:
        self._checkpoints.close()
        self.connection.close()
        self.turn.close()
        self._news.close()

    def _revision(self, key: str) -> int:
        row = self.connection.execute(_GET, (key,)).fetchone()
        return 0 if row is None else cast(int, row[1])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self.turn:
            with begun(self.connection):
                yield
                self._commit()
            self._checkpoints.run_if_due()

    def _commit(self) -> None:
        try:
            self.connection.execute("COMMIT")
        except apsw.FullError:
            # No space for a frame of the WAL: the last one is what makes a commit of them, and was not written.
            raise
        except apsw.Error as error:
            # The commit may stand in the WAL already, without a successful sync: the next to open the file after a
            # crash may take it for done, as long as nothing else is written in its place.
            raise OutcomeUnknown(
                f"{self._path}: the disk failed during a commit ({error}). It may have been recorded; look at the "
                "disk, then repeat with the same idempotency key."
            ) from error


class Reader:
    """The connection that reads, and the roles this store has claimed. Lives in one thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.connection = _connect(path, apsw.SQLITE_OPEN_READWRITE)
        self.connection.pragma("query_only", 1)
        # Checkpoints are the writer's.
        self.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.claims = Claims(path)
        self._data_version: int | None = None
        self._head = 0

    def head(self) -> int:
        return _one(self.connection, _HEAD)

    def read(self, after: int, limit: int, name: str | None) -> list[Record]:
        if name is None:
            records = self._records(_READ, (after, limit))
            # Each is looked at: a page that stands in the place of another may have as many records.
            if [record.position for record in records] != list(range(after + 1, after + 1 + len(records))):
                raise Corrupt(
                    f"{self._path}: of the positions {after + 1} to {records[-1].position} some are missing, or not in "
                    "their place. Restore the file from a backup."
                )
            return records
        if name == SET_ASIDE:
            return self._records(_READ_SET_ASIDE, (after, limit))
        return self._records(_READ_NAMED, (after, limit, name))

    def _records(self, sql: str, bindings: tuple[int | str, ...]) -> list[Record]:
        cursor = self.connection.execute(sql, bindings)
        try:
            return list(starmap(Record, cursor))
        finally:
            # An unfinished statement would keep its read transaction open, and so the WAL from being reset.
            cursor.close()

    def look(self) -> int:
        """The head, as of the last change of the file by another connection. Costs little when nothing changed."""
        version = _one(self.connection, "PRAGMA data_version")
        if version != self._data_version:
            # In this order: a commit between the two lines changes the version again, and is seen the next time.
            self._head = self.head()
            self._data_version = version
        return self._head

    def get(self, key: str) -> Entry | None:
        row = self.connection.execute(_GET, (key,)).fetchone()
        return None if row is None else Entry(value=cast(bytes, row[0]), revision=cast(int, row[1]))

    def keys(self, prefix: str) -> list[str]:
        # SQLite compares text by its UTF-8 bytes, which is the order of code points, as in Python.
        keys = (cast(str, row[0]) for row in self.connection.execute(_KEYS, (prefix,)).fetchall())
        return list(takewhile(lambda key: key.startswith(prefix), keys))

    def examine(self) -> Examination:
        """Opening has refused everything else that could be wrong."""
        damage = cast(str, self.connection.execute("PRAGMA quick_check(1)").get)
        return Examination(
            checks=(
                Check("library", True, f"SQLite {apsw.sqlite_lib_version()}"),
                Check("journal_mode", True, cast(str, self.connection.pragma("journal_mode"))),
                Check("synchronous", True, "full"),
                Check("content", damage == "ok", damage, "" if damage == "ok" else "restore the file from a backup"),
            ),
            facts={
                "file": self._path,
                "layout": LAYOUT_VERSION,
                "size_bytes": os.path.getsize(self._path),
                "wal_bytes": os.path.getsize(f"{self._path}-wal"),
            },
        )

    def close(self) -> None:
        self.connection.close()
        self.claims.close()


def news_file(path: str) -> str:
    """The file beside the database that is touched after each append."""
    return f"{path}-wake"


def check_library(version: str) -> None:
    """Refuse a SQLite that can corrupt a store.

    Raises:
        NotReady: the version is below SQLITE_VERSION_MIN.
    """
    if tuple(map(int, version.split("."))) < SQLITE_VERSION_MIN:
        raise NotReady(
            f"SQLite {version} can corrupt a database that several processes write (its WAL-reset bug). Install apsw "
            f"{'.'.join(map(str, SQLITE_VERSION_MIN))} or newer from PyPI, which carries its own SQLite."
        )


def translated(error: apsw.Error | OSError | UnicodeDecodeError, path: str) -> StoreError:
    """What an error of the driver means to a caller. Before COMMIT nothing was written: the transaction is undone."""
    match error:
        case apsw.CorruptError() | apsw.NotADBError() | apsw.SQLError() | UnicodeDecodeError():
            # Of a schema that can't be read, SQLite shows all that there is, over many lines.
            return damaged(path, str(error).partition("\n")[0])
        case apsw.FullError() | OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return NotReady(f"{path}: no space is left ({error}). Nothing was written. Make room, then try again.")
        case apsw.BusyError() | apsw.LockedError():
            return NotReady(f"{path} is locked by another tool: {error}. Nothing was written. Close that tool.")
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | PermissionError():
            return NotReady(
                f"{path} or a file beside it can't be opened for writing: {error}. Let this user write to it and to "
                "its folder."
            )
        case _:
            return NotReady(f"{path} can't be used: {error}. Nothing was written. Look at the disk, then try again.")


def _check_place(path: str) -> None:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise NotReady(f"{path} can't be opened: there is no folder {folder}. Make it, or correct the store's URL.")
    if os.path.isdir(path):
        raise NotAStore(f"{path} is a folder, not a store. Name a file in it: sqlite:///{path}/blog.db")


def _connect(path: str, flags: int) -> apsw.Connection:
    """Open the file, check what it is, make it a store if it is empty, and set what durability needs."""
    connection = apsw.Connection(path, flags)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        empty = _check_content(connection, path)
        if connection.readonly("main"):
            raise NotReady(f"{path} is read-only. Let this user write to it and to its folder.")
        _set_pragmas(connection, path)
        if empty:
            # In one transaction with its marks: a crash in between leaves the file empty, not half made.
            with begun(connection):
                connection.execute(_CREATE)
                connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_durably(path: str) -> apsw.Connection:
    """Open the file or create it, and make sure that all that can be read from it will survive a loss of power."""
    connection = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        sqlite_wal.write_again(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_content(connection: apsw.Connection, path: str) -> bool:
    """True when the file is empty, False when it is a store; everything else is refused, and not touched."""
    try:
        application, layout = _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
        tables = _one(connection, "SELECT count(*) FROM sqlite_schema")
        pages = _one(connection, "PRAGMA page_count")
    except apsw.NotADBError as error:
        raise _not_sqlite(path) from error
    # SQLite takes any file below 512 bytes for an empty one, and would write over it.
    if pages == 0 and os.path.getsize(path) > 0:
        raise _not_sqlite(path)
    if (application, layout, tables) == (0, 0, 0):
        return True
    if application != APPLICATION_ID:
        raise NotAStore(
            f"{path} is a SQLite file of another application (application_id {application:#x}). Correct the store's "
            "URL, or move that file away."
        )
    if layout != LAYOUT_VERSION:
        raise NotAStore(
            f"{path} has layout {layout}, this version of Journeyman knows {LAYOUT_VERSION}. Upgrade Journeyman."
        )
    return False


def _not_sqlite(path: str) -> NotAStore:
    return NotAStore(f"{path} is not a SQLite file. Correct the store's URL, or move that file away.")


def _set_pragmas(connection: apsw.Connection, path: str) -> None:
    """Set what "durable" and "several processes" rest on, and make sure that it took.

    fullfsync does something on macOS only, whose fsync does not reach the disk.
    """
    wanted = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "checkpoint_fullfsync": 1}
    for pragma, value in wanted.items():
        connection.pragma(pragma, value)
        if (found := connection.pragma(pragma)) != value:
            raise NotReady(
                f"{path} can't be used safely: SQLite left {pragma} at {found}, it must be {value}. Put the file on "
                "a local disk."
            )


def _one(connection: apsw.Connection, sql: str) -> int:
    return cast(int, connection.execute(sql).get)


check_library(apsw.sqlite_lib_version())

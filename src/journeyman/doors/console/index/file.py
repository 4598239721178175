"""Where an index is kept, and how it is opened. It is disposable: a damaged one is deleted, and made again."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from hashlib import blake2b
from uuid import uuid4

import apsw
import msgspec

from journeyman.doors.console.index.writer import APPLICATION_ID
from journeyman.errors import NotAStore
from journeyman.store.base import InFile, Store

#: How long a connection waits for another one, in milliseconds: only batches and checkpoints are waited for.
BUSY_TIMEOUT_MS = 5000

#: What the writer keeps of the file in memory, in KiB: jobs and subjects come in no order, and meet many pages of it.
CACHE_KIB = 65_536


class Place(msgspec.Struct, frozen=True):
    """The file of an index; for a store in memory, a name in this process's memory."""

    path: str
    in_memory: bool = False

    @property
    def lock(self) -> str:
        """The file that the one process locks that writes the index."""
        return f"{self.path}-lock"


def place_of(store: Store, first_id: str) -> Place:
    """Beside a store in a file; else in a cache of this user on this machine, by the id of the log's first message."""
    if store.url == "memory:":
        return Place(f"file:/journeyman-index-{uuid4()}?vfs=memdb", in_memory=True)
    if isinstance(store, InFile):
        return Place(f"{store.path}-index")
    return Place(os.path.join(_cache(), f"{blake2b(first_id.encode(), digest_size=12).hexdigest()}.db-index"))


def _cache() -> str:
    """The user's cache folder; where that can't be written, a folder of the user's own among the temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    for folder in (f"{home}/journeyman", f"{tempfile.gettempdir()}/journeyman-{os.getuid()}"):
        with suppress(OSError):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            if os.stat(folder).st_uid == os.getuid() and os.access(folder, os.W_OK):
                return folder
    return tempfile.mkdtemp(prefix="journeyman-")


def connect_to_write(place: Place) -> apsw.Connection:
    """Open the index, or an empty one where there is none.

    Raises:
        NotAStore: the file is something else.
        apsw.NotADBError, apsw.CorruptError: it is damaged: remove it.
    """
    connection = _connect(place, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        application = connection.pragma("application_id")
        if application not in (0, APPLICATION_ID):
            raise NotAStore(f"{place.path} is no index of Journeyman's console: move it away, and the index is made.")
        if not place.in_memory:
            connection.pragma("journal_mode", "wal")
            # A crash may lose the last batches, and never what was whole before: they are indexed again.
            connection.pragma("synchronous", 1)
            connection.pragma("cache_size", -CACHE_KIB)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_to_read(place: Place) -> apsw.Connection:
    """Open an index that is there.

    Raises:
        apsw.CantOpenError: there is none.
    """
    connection = _connect(place, apsw.SQLITE_OPEN_READWRITE)
    connection.pragma("query_only", 1)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def _connect(place: Place, flags: int) -> apsw.Connection:
    connection = apsw.Connection(place.path, flags | apsw.SQLITE_OPEN_URI if place.in_memory else flags)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def remove(place: Place) -> None:
    """Delete the index, with what SQLite keeps beside it."""
    for path in (place.path, f"{place.path}-wal", f"{place.path}-shm"):
        with suppress(FileNotFoundError):
            os.unlink(path)


def inode_of(place: Place) -> int | None:
    """Which file it is: another one after a damaged one was replaced."""
    if place.in_memory:
        return None
    try:
        return os.stat(place.path).st_ino
    except FileNotFoundError:
        return None

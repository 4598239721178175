"""A disk that fails, and one that loses power, below SQLite.

`Disk` is a VFS of SQLite over the usual one, and the default while it is registered: what is opened then goes through
it. It counts every access, fails those that a `Fault` names, and knows what of each file would be left if the power
went out now: what was synced, and of the rest as much as chance wants.

It is harsher than life: what a failed sync has lost is lost by the byte, where the kernel loses pages, and a write
beside it brings nothing back. The shared memory (`-shm`) is not part of it: SQLite builds it anew after a loss of
power.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
from msgspec import Struct

#: What is written to the disk at once, or not at all.
SECTOR: Final = 512

#: The accesses that can fail, and how they do.
ERRORS: Final = {
    "open": apsw.SQLITE_CANTOPEN,
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "size": apsw.SQLITE_IOERR_FSTAT,
    "delete": apsw.SQLITE_IOERR_DELETE,
}

#: What a file is to SQLite, by the end of its name.
_ROLES: Final = {"-wal": "log", "-journal": "journal"}


class Fault(Struct, frozen=True, kw_only=True):
    """The n-th access of that kind fails: once, or with all that follow. `error` is SQLite's code, else the usual."""

    kind: str
    nth: int
    for_ever: bool = False
    error: int | None = None

    def hits(self, kind: str, count: int) -> bool:
        return kind == self.kind and (count >= self.nth if self.for_ever else count == self.nth)


class Content:
    """The bytes of one file: what programs see, what is on the disk, and what is on the way there."""

    def __init__(self, content: bytes = b"") -> None:
        self.seen = bytearray(content)
        self._synced = bytearray(content)
        #: Writes as (offset, bytes), truncations as (size, None).
        self._waiting: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        _write(self.seen, offset, data)
        self._waiting.append((offset, data))

    def truncate(self, size: int) -> None:
        _resize(self.seen, size)
        self._waiting.append((size, None))

    def sync(self) -> None:
        for offset, data in self._waiting:
            _write(self._synced, offset, data) if data is not None else _resize(self._synced, offset)
        self._waiting.clear()

    def fail_to_sync(self, reaches: Callable[[], bool]) -> None:
        """As Linux does it: what could not be written counts as written, and no later sync will write it."""
        self._synced = self.left_by_loss(reaches)
        self._waiting.clear()

    def left_by_loss(self, reaches: Callable[[], bool]) -> bytearray:
        """What is on the disk when each waiting sector reaches it, or does not."""
        left = bytearray(self._synced)
        for offset, data in self._waiting:
            if data is None:
                if reaches():
                    _resize(left, offset)
            else:
                for start, sector in _sectors(offset, data):
                    if reaches():
                        _write(left, start, sector)
        return left

    def copy(self) -> Content:
        copy = Content()
        copy.seen, copy._synced, copy._waiting = bytearray(self.seen), bytearray(self._synced), list(self._waiting)
        return copy


class Disk(apsw.VFS):
    """The usual disk, with its faults.

    `counts` has the accesses since `arm`, by kind, and `sites` by kind and role, as in "write log". `before` is called
    before each one, with its kind and role. `fired` is how often the fault hit.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.usual = apsw.vfs_names()[0]
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.sites: Counter[str] = Counter()
        self.fired = 0
        self.fault: Fault | None = None
        self.before: Callable[[str], None] = lambda site: None
        self._contents: dict[str, Content] = {}
        #: The folder's entries that are on the disk.
        self._entries: dict[str, Content] = {}
        self._lock = threading.RLock()
        super().__init__("faulty-disk", self.usual, makedefault=True)

    def arm(self, fault: Fault | None) -> None:
        """From now on count anew, and fail so."""
        with self._lock:
            self.counts.clear()
            self.fired = 0
            self.fault = fault

    def lose_power(self, into: Path, *, reaches: Callable[[], bool] = lambda: False) -> Path:
        """Write to a new folder what would be on the disk if the power went out now. The running go on undisturbed.

        `reaches` is asked for each sector and each entry of the folder that was not synced. Returns the folder.
        """
        into.mkdir()
        with self._lock:
            for path in sorted({*self._contents, *self._entries}):
                entry, now = self._entries.get(path), self._contents.get(path)
                content = entry if entry is now or not reaches() else now
                if content is not None:
                    (into / Path(path).name).write_bytes(content.left_by_loss(reaches))
        return into

    def kill(self, into: Path) -> Path:
        """Write to a new folder what a kill of all processes would leave, and know of its files what is synced."""
        into.mkdir()
        with self._lock:
            for path, content in list(self._contents.items()):
                copy = str(into / Path(path).name)
                Path(copy).write_bytes(content.seen)
                self._contents[copy] = content.copy()
                if path in self._entries:
                    self._entries[copy] = self._contents[copy]
                del self._contents[path]
                self._entries.pop(path, None)
        return into

    def is_synced(self, path: Path) -> bool:
        """Whether all that programs see of the file would survive a loss of power."""
        content = self._contents[str(path)]
        return self._entries.get(str(path)) is content and content.left_by_loss(lambda: False) == content.seen

    # What SQLite calls, by its names.

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:  # A temporary file: its loss is nobody's.
            return apsw.VFSFile(self.usual, name, flags)
        with self._access("open", path):
            known = path in self._contents and os.path.exists(path)
            there = not known and os.path.exists(path)
            file = _File(self, path, name, flags)
            if not known:
                # What the disk had before it was watched is safe.
                content = self._contents[path] = Content(Path(path).read_bytes() if there else b"")
                if there:
                    self._entries[path] = content
            return file

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        with self._access("delete", filename):
            super().xDelete(filename, syncdir)
            self._contents.pop(filename, None)
            if syncdir:
                self._sync_folder()

    # What files call.

    @contextmanager
    def _access(self, kind: str, path: str, torn: Callable[[], None] = lambda: None) -> Iterator[None]:
        with self._lock:
            site = f"{kind} {_role_of(path)}"
            self.before(site)
            self.counts[kind] += 1
            self.sites[site] += 1
            if self.fault is not None and self.fault.hits(kind, self.counts[kind]):
                self.fired += 1
                torn()
                raise _error(self.fault.error or ERRORS[kind])
            yield

    def _content_of(self, path: str) -> Content:
        # A file that was deleted or left behind by `kill` lives on, for who has it open.
        return self._contents.get(path) or Content()

    def _sync_folder(self) -> None:
        self._entries = dict(self._contents)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, path: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk, self._path = disk, path
        # The usual VFS syncs the folder when it first syncs a journal or log that it was told to create.
        kinds = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        self._syncs_folder = bool(flags[0] & kinds and flags[0] & apsw.SQLITE_OPEN_CREATE)
        super().__init__(disk.usual, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        with self._disk._access("read", self._path):
            return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        whole = bytes(data)
        with self._disk._access("write", self._path, lambda: self._write(whole[: len(whole) // 2], offset)):
            self._write(whole, offset)

    def _write(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._disk._content_of(self._path).write(offset, data)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        with self._disk._access("truncate", self._path):
            super().xTruncate(newsize)
            self._disk._content_of(self._path).truncate(newsize)

    def xFileSize(self) -> int:  # noqa: N802
        with self._disk._access("size", self._path):
            return super().xFileSize()

    def xSync(self, flags: int) -> None:  # noqa: N802
        with self._disk._access("sync", self._path, self._fail_to_sync):
            super().xSync(flags)
            self._disk._content_of(self._path).sync()
            if self._syncs_folder:
                self._syncs_folder = False
                self._disk._sync_folder()

    def _fail_to_sync(self) -> None:
        chance = self._disk.chance
        share = chance.choice((0.0, 0.5))
        self._disk._content_of(self._path).fail_to_sync(lambda: chance.random() < share)


@contextmanager
def faulty_disk(*, seed: int = 0) -> Iterator[Disk]:
    """While the block runs, SQLite's files are on this disk. Those that are open then stay there."""
    disk = Disk(seed=seed)
    try:
        yield disk
    finally:
        disk.arm(None)
        disk.before = lambda site: None
        disk.unregister()
        apsw.set_default_vfs(disk.usual)


def _error(code: int) -> apsw.Error:
    error = apsw.exception_for(code)
    assert isinstance(error, apsw.Error)
    error.args = (apsw.mapping_extended_result_codes[code] if code > 255 else apsw.mapping_result_codes[code],)
    return error


def _role_of(path: str) -> str:
    return next((role for end, role in _ROLES.items() if path.endswith(end)), "database")


def _sectors(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The data in pieces that end where sectors do."""
    start = 0
    while start < len(data):
        end = start + SECTOR - (offset + start) % SECTOR
        yield offset + start, data[start:end]
        start = end


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        _resize(content, offset)
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))

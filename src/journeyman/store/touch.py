"""Waking other processes by touching a file: the kernel tells those who watch it.

Watching the database's own files would not do: SQLite writes to its write-ahead log before a commit is visible.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

logger = logging.getLogger(__name__)


class TouchFile:
    """A file that is touched when there is news. Opening it makes it. Used by one thread."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def touch(self) -> None:
        """Wake who watches. An error is nobody's loss: who isn't woken looks by himself, only later.

        A byte is written in place, because setting the file's times was seen to take a third of the speed of commits:
        the next fsync has to write them.
        """
        with suppress(OSError):
            os.pwrite(self._file, b"\n", 0)

    def close(self) -> None:
        os.close(self._file)


class TouchWatch:
    """Tells a loop when a file is touched, through the kernel's inotify."""

    def __init__(self, path: str) -> None:
        """Watch the file, which exists.

        Raises:
            OSError: the kernel has no watch left for this user.
        """
        from inotify_simple import INotify, flags

        self._inotify = INotify(nonblocking=True)
        try:
            self._inotify.add_watch(path, flags.MODIFY)
        except BaseException:
            self._inotify.close()
            raise

    def fileno(self) -> int:
        number: int = self._inotify.fileno()
        return number

    def drain(self) -> None:
        """Take note of all touches so far: the next one tells anew."""
        self._inotify.read(timeout=0)

    def close(self) -> None:
        self._inotify.close()


def watch_touches(path: str) -> TouchWatch | None:
    """A watch of the file; None where there is none to be had, and looking again and again has to do."""
    if sys.platform != "linux":
        return None
    try:
        return TouchWatch(path)
    except OSError as error:
        logger.warning("%s can't be watched, so appends of other processes are noticed later: %s", path, error)
        return None

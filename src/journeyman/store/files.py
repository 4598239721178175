"""Large values as files beside a database file: each is there whole, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from glob import escape, glob
from typing import Final
from urllib.parse import quote, unquote
from uuid import uuid4

#: How old a file without a name is that nobody writes any more, in seconds.
LEFTOVER_S: Final = 3600.0


class FileBlobs:
    """Blobs as files `PREFIX + NAME`. Its methods block: call them in a thread.

    Raises:
        OSError: the disk fails, or is full.
    """

    def __init__(self, prefix: str) -> None:
        self._folder, self._prefix = os.path.split(prefix)
        #: How files begin that have no name yet: one that is quoted never begins so.
        self._beside = f"{prefix}%tmp-"

    def save(self, name: str, parts: Iterable[bytes]) -> None:
        """Write the parts beside, and give them the name when they are on the disk."""
        self._remove_leftovers()
        path = f"{self._beside}{uuid4().hex}"
        try:
            with open(path, "xb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self._path(name))
        except BaseException:
            with suppress(OSError):
                os.unlink(path)
            raise

    def _remove_leftovers(self) -> None:
        """What a process has left that died while it wrote."""
        long_ago_s = time.time() - LEFTOVER_S
        for path in glob(f"{escape(self._beside)}*"):
            with suppress(FileNotFoundError):
                if os.stat(path).st_mtime < long_ago_s:
                    os.unlink(path)

    def load(self, name: str) -> bytes | None:
        try:
            with open(self._path(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path(name))

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(self._prefix) and not entry.path.startswith(self._beside):
                    with suppress(FileNotFoundError):
                        found[unquote(entry.name.removeprefix(self._prefix))] = entry.stat().st_size
        return dict(sorted(found.items()))

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, f"{self._prefix}{quote(name, safe='')}")

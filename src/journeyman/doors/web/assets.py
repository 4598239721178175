"""Stylesheets, scripts and images: read once, named by their content, and kept by browsers for a year."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from msgspec import Struct

from journeyman.doors.web.answers import Answer
from journeyman.doors.web.problems import UNKNOWN_PATH, Refused

#: Where they are, below the path of whoever brings them.
PATH: Final = "/assets"

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

_FOREVER: Final = {"cache-control": "public, max-age=31536000, immutable"}


class Asset(Struct, frozen=True):
    """One file. Its name holds a hash of its content, so that another content is another name."""

    name: str
    media_type: str
    content: bytes


class Assets:
    """The files in the folder `static` of a package: these, and no path that a client makes up."""

    def __init__(self, package: str, *, path: str = "") -> None:
        """`path` is where the routes of the package are."""
        self._path = path.rstrip("/") + PATH
        self._by_file = dict(_read(package))
        self._by_name = {asset.name: asset for asset in self._by_file.values()}

    def __contains__(self, file: str) -> bool:
        return file in self._by_file

    def path(self, file: str) -> str:
        """The path of a file, below where the site is mounted."""
        return f"{self._path}/{self._by_file[file].name}"

    def handler(self) -> HTTPRouteHandler:
        """What serves them: among the handlers of the router of that path."""
        by_name: Mapping[str, Asset] = self._by_name

        @get(PATH + "/{name:str}")
        async def asset(request: Request[Any, Any, Any], name: FromPath[str]) -> Answer:
            if (found := by_name.get(name)) is None:
                raise Refused(UNKNOWN_PATH, "This file is not, or no longer, part of the application.")
            return Answer(found.content, media_type=found.media_type, headers=_FOREVER)

        return asset


def _read(package: str) -> list[tuple[str, Asset]]:
    folder = files(package) / "static"
    if not folder.is_dir():
        return []
    return [(file.name, _asset(file.name, file.read_bytes())) for file in folder.iterdir() if file.is_file()]


def _asset(file: str, content: bytes) -> Asset:
    stem, dot, suffix = file.rpartition(".")
    name = f"{stem}-{sha256(content).hexdigest()[:12]}{dot}{suffix}"
    return Asset(name, _MEDIA_TYPES.get(dot + suffix, "application/octet-stream"), content)

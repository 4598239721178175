"""Answers that are not problems: JSON, encoded by msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from journeyman.app import App
from journeyman.doors.web.guard import Receive, Scope, Send

_encode = msgspec.json.Encoder().encode

_JSON: Final = (b"content-type", b"application/json")
_NO_HEADERS: Final[Mapping[str, str]] = {}


class JsonAnswer:
    """A value as JSON: an ASGI application, which litestar sends as it is.

    Its own Response took 15 % of a command in a profile: it merges headers, cookies and defaults of several layers.
    """

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, value: Any, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        self._status = status
        self._headers = headers
        self._body = _encode(value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [_JSON, (b"content-length", b"%d" % len(self._body))]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body})


def freshness(app: App, settled: int) -> dict[str, str]:
    """The headers that say how new an answer is: it holds all up to that position; its age, when the store stalls."""
    headers = {"journeyman-position": str(settled)}
    if (stalled_s := app.stalled_s) is not None:
        headers["journeyman-age"] = f"{stalled_s:.1f}"
    return headers

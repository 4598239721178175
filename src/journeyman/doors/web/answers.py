"""Answers as plain ASGI applications, which litestar sends as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from journeyman.doors.web.asgi import MOUNTED_AT, Receive, Scope, Send
from journeyman.doors.web.problems import CONTENT_TYPE, Refused

_NO_HEADERS: Final[Mapping[str, str]] = {}


class Answer:
    """A body of some type, with a status and headers."""

    __slots__ = ("body", "headers", "media_type", "status")

    def __init__(
        self, body: bytes, *, media_type: str, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        self.body = body
        self.media_type = media_type
        self.status = status
        self.headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", self.media_type.encode()), (b"content-length", b"%d" % len(self.body))]
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Page(Answer):
    """HTML: a whole page, or a part of one."""

    __slots__ = ()

    def __init__(self, html: str, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(html.encode(), media_type="text/html; charset=utf-8", status=status, headers=headers)


class SeeOther(Answer):
    """Sends a browser on after a form, with GET: what it then reloads is the page, not the form.

    `at` is the position of what was recorded: the next page shows at least that, whichever process answers it.
    """

    __slots__ = ("_target",)

    def __init__(self, path: str, *, at: int | None = None, **values: str | int) -> None:
        super().__init__(b"", media_type="text/plain", status=303)
        query = urlencode(values if at is None else {**values, "at": at})
        self._target = f"{path}?{query}" if query else path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = {"location": scope.get(MOUNTED_AT, "") + self._target}
        await super().__call__(scope, receive, send)


def problem_answer(scope: Scope, refused: Refused) -> Answer:
    """What clients get that are programs: the problem document."""
    return Answer(refused.document, media_type=CONTENT_TYPE, status=refused.problem.status, headers=refused.headers)

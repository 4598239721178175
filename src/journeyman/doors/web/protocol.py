"""Uvicorn's protocol, with bounds on a request: its parser takes heads of any size, and waits for them for ever."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from journeyman.doors.web.bodies import BODY_S_MAX

#: How many bytes the request line and the headers may have together, about.
HEAD_BYTES_MAX: Final = 64 * 1024

#: How long the head may take to arrive, in seconds: from the connection, or from the first byte after an answer.
HEAD_S_MAX: Final = 10.0

#: How long the body may take then, in seconds, whoever reads it: a reader of ours gives up, and answers, before.
UNREAD_BODY_S_MAX: Final = BODY_S_MAX + 5.0

#: How many connections above the server's limit are answered that there are too many; others are closed at once.
OVER_LIMIT_MAX: Final = 50

#: What the client has yet to send; None when the request is there.
Awaited = Literal["head", "body"] | None

_PATIENCE_S: Final[dict[Awaited, float]] = {"head": HEAD_S_MAX, "body": UNREAD_BODY_S_MAX}


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request whose head is too large, or that does not arrive in time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._awaited: Awaited = "head"
        self._head_bytes = 0
        #: What the deadline that runs is for; None when none runs.
        self._deadline_for: Awaited = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency + OVER_LIMIT_MAX:
            transport.abort()
            return
        self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._awaited = None
        self._set_deadline()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaited = "head"
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaited == "head":  # Behind the body come trailers: nobody asks for them, and they may change nothing.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._awaited = "body"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaited = None
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._set_deadline()  # Once for what came together, not at each part of it: most requests need none.
        if self._awaited != "head":
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response(f"The request line and headers may have {HEAD_BYTES_MAX} bytes.")

    def _set_deadline(self) -> None:
        """Let one run for what is awaited now; one that runs for it already goes on."""
        if self._awaited == self._deadline_for:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline_for, self._deadline = self._awaited, None
        if self._awaited is not None:
            self._deadline = self.loop.call_later(_PATIENCE_S[self._awaited], self._give_up)

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        if self._awaited == "head" and self._head_bytes:
            self.transport.write(STATUS_LINE[408] + b"connection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()

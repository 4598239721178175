"""Uvicorn's protocol, with a bound on the head of a request: its parser takes headers of any size."""

from __future__ import annotations

from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: How many bytes the request line and the headers may have together, about.
HEAD_BYTES_MAX: Final = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """Refuses a request that has more than that before the end of its headers."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = False
        self._head_bytes = 0

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # Behind the body come trailers: nobody asks for them, and nothing may be changed by them.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response(f"The request line and headers may have {HEAD_BYTES_MAX} bytes.")

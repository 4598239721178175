"""HEAD: answered as GET is, without the body (RFC 9110, 9.3.2). No handler needs to know of it."""

from __future__ import annotations

from journeyman.doors.web.asgi import Event, Send


def head_of(send: Send) -> Send:
    """Sends the head of an answer only, Content-Length as with the body.

    The answer is complete with that, so the server tells whoever sends a stream that nobody listens any more (ASGI:
    http.disconnect comes, too, "if receive is called after a response has been sent").
    """

    async def send_head(event: Event) -> None:
        if event["type"] == "http.response.start":
            await send(event)
            await send({"type": "http.response.body", "body": b""})

    return send_head


def allowing_head(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers, with HEAD in Allow where GET is."""
    return [(name, _with_head(value) if name == b"allow" else value) for name, value in headers]


def _with_head(allow: bytes) -> bytes:
    methods = {method.strip() for method in allow.split(b",")}
    return b", ".join(sorted(methods | {b"HEAD"})) if b"GET" in methods else allow

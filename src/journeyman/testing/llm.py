"""A language model's HTTP service for tests: it answers as the test says, in all the ways in which services fail.

It speaks OpenAI's chat completions on a port of its own, so that an application's real client is tested against it::

    async with FakeLLM([status(429, headers={"Retry-After": "2"}), ok("A summary.")]) as llm:
        client = openai.AsyncOpenAI(base_url=llm.base_url, api_key="any")
        ...
        assert llm.requests[0].body["model"] == "small"

The script has one reply for each request, in order; the last one is repeated. In place of a reply it may have a
function that makes one of the request.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeAlias

#: The largest request body that is read; a larger one gets 413.
REQUEST_BYTES_MAX = 8_000_000
#: The pause after each byte of a reply that trickles.
TRICKLE_S = 0.01


class Ending(Enum):
    """How a reply goes over the wire, and what then happens to the connection."""

    CLOSE = "closed after the whole reply"
    TRUNCATE = "closed after half of the body"
    RESET = "reset after half of the body"
    STREAM_CUT = "streamed in chunks, and closed after the first of them"
    TRICKLE = "sent a byte at a time, with a pause after each"
    HANG = "left open without a reply, until the client or the test ends"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. Make it with the functions below."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    ending: Ending = Ending.CLOSE


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came in. Header names are in lower case; `body` is the decoded JSON, or None if it is none."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


Step: TypeAlias = Reply | Callable[[Request], Reply]


def ok(text: str | None = "A short summary.", *, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    """A chat completion whose answer is `text`."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    completion = {"id": "fake-1", "object": "chat.completion", "created": 0, "model": "fake"}
    return Reply(body=json.dumps(completion | {"choices": [choice], "usage": usage}).encode())


def empty() -> Reply:
    """A chat completion with an empty answer."""
    return ok("")


def long(characters: int = 100_000) -> Reply:
    """A chat completion with an absurdly long answer."""
    return ok("And then there was one thing more to say. " * (characters // 42 + 1))


def refusal(text: str = "I can't help with that.") -> Reply:
    """A chat completion in which the model refuses."""
    return ok(None, refusal=text)


def filtered() -> Reply:
    """A chat completion that a content filter has cut short."""
    return ok("This text is", finish_reason="content_filter")


def status(code: int, *, headers: Mapping[str, str] | None = None, message: str = "no", error_code: str = "") -> Reply:
    """A response of that HTTP status, with an error body as OpenAI's."""
    error = {"message": message, "type": "error", "param": None, "code": error_code or None}
    return Reply(status=code, body=json.dumps({"error": error}).encode(), headers=headers or {})


def malformed() -> Reply:
    """A response that says it is JSON, and is not."""
    return Reply(body=b'{"id": "fake-1", "choices": [oops')


def truncated() -> Reply:
    """A response whose connection is closed in the middle of the body."""
    return Reply(body=ok().body, ending=Ending.TRUNCATE)


def stream_cut() -> Reply:
    """A response that is streamed, without a length, and dies half-way."""
    return Reply(body=ok().body, ending=Ending.STREAM_CUT)


def reset() -> Reply:
    """A response whose connection is reset in the middle of the body."""
    return Reply(body=ok().body, ending=Ending.RESET)


def trickle() -> Reply:
    """A response that comes so slowly that nobody waits for its end, though it never stops."""
    return Reply(body=ok().body, ending=Ending.TRICKLE)


def hang() -> Reply:
    """No reply at all; the connection stays open."""
    return Reply(ending=Ending.HANG)


class FakeLLM:
    """The server: `async with` starts it on a free port of this machine and stops it."""

    def __init__(self, script: Sequence[Step] = (), *, requests_max: int = 1_000) -> None:
        self._steps = deque(script or [ok()])
        self._arrived = asyncio.Condition()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._stopping = False
        #: The last `requests_max` requests, oldest first.
        self.requests: deque[Request] = deque(maxlen=requests_max)
        #: How many requests came in.
        self.calls = 0
        #: What a client takes as its base URL.
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        self._server.close()
        await asyncio.sleep(0)  # A connection that was just accepted gets to `_serve`.
        for writer in self._connections.values():
            writer.transport.abort()
        # Awaited and not cancelled: asyncio's streams log a cancelled handler as an error (Python 3.11).
        await asyncio.gather(*self._connections)

    async def wait_for_calls(self, count: int) -> None:
        """Return when `count` requests have come in since the start."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self.calls >= count)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._stopping:
            return writer.transport.abort()
        task = asyncio.current_task()
        assert task is not None  # asyncio.start_server runs this in a task of its own
        self._connections[task] = writer
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):  # The client went away, as clients do.
                await _send(await self._reply(reader), reader, writer)
        finally:
            writer.close()
            del self._connections[task]

    async def _reply(self, reader: asyncio.StreamReader) -> Reply:
        request = await _read(reader)
        if request is None:
            return status(413, message="The request is too large.")
        async with self._arrived:
            self.requests.append(request)
            self.calls += 1
            self._arrived.notify_all()
        step = self._steps.popleft() if len(self._steps) > 1 else self._steps[0]
        return step if isinstance(step, Reply) else step(request)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next request; None if it is too large."""
    try:
        start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        return None
    method, path, _ = start.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    if length > REQUEST_BYTES_MAX:
        return None
    return Request(method, path, headers, _json(await reader.readexactly(length)))


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


async def _send(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if reply.ending is Ending.HANG:
        await reader.read()  # It returns when the client goes, or the server stops.
        return
    writer.write(_head(reply))
    await _send_body(reply, writer)
    if reply.ending is Ending.RESET:
        _reset(writer)


async def _send_body(reply: Reply, writer: asyncio.StreamWriter) -> None:
    if reply.ending is Ending.TRICKLE:
        for byte in reply.body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(TRICKLE_S)
        return
    whole, half = reply.body, reply.body[: len(reply.body) // 2]
    sent = {Ending.CLOSE: whole, Ending.STREAM_CUT: b"%x\r\n%s\r\n" % (len(half), half)}
    writer.write(sent.get(reply.ending, half))
    await writer.drain()


def _head(reply: Reply) -> bytes:
    fixed = {"content-type": "application/json", "connection": "close"}
    streamed = reply.ending is Ending.STREAM_CUT
    length = {"transfer-encoding": "chunked"} if streamed else {"content-length": str(len(reply.body))}
    fields = "".join(f"{name}: {value}\r\n" for name, value in {**fixed, **length, **reply.headers}.items())
    return f"HTTP/1.1 {reply.status} {_reason(reply.status)}\r\n{fields}\r\n".encode("latin-1")


def _reason(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Unknown"


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with a TCP reset: that is what closing a socket with a linger time of zero does."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

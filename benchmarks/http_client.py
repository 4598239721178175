"""A client of an HTTP server, in a process of its own: as little work as can be, so that the server is measured.

    python -m benchmarks.http_client PORT CONNECTIONS COUNT

Each connection sends a command, waits for the answer, and sends the next. Prints its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys

from benchmarks.load import BUSY_PAUSE_S, Figures, Writing, drive

PATH = "/commands/posts/write"


class Connection(asyncio.Protocol):
    """One connection that is kept open. It understands answers with a content-length, and no others."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _content_length(head):
            return
        self._received = b""
        if self._answer is not None and not self._answer.done():
            if head.startswith((b"HTTP/1.1 201 ", b"HTTP/1.1 503 ")):
                self._answer.set_result(head.startswith(b"HTTP/1.1 201 "))
            else:
                self._answer.set_exception(RuntimeError((head + b"\n" + body).decode()))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("the server closed the connection"))

    async def send(self, request: bytes) -> None:
        """Send a request, again when the server is busy, and return when the command is recorded."""
        while not await self._send(request):  # noqa: ASYNC110  # nothing tells when the server has recovered
            await asyncio.sleep(BUSY_PAUSE_S)

    async def _send(self, request: bytes) -> bool:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r\n")[0])


async def load(port: int, *, connections: int, count: int) -> Figures:
    """So many connections that send `count` commands together."""
    loop = asyncio.get_running_loop()
    waiting = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(connections)]

    async def execute(writing: Writing) -> None:
        connection = waiting.pop()
        await connection.send(_request(writing, port))
        waiting.append(connection)

    return await drive(execute, callers=connections, count=count)


def _request(writing: Writing, port: int) -> bytes:
    body = json.dumps(writing._asdict()).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def measured(port: int, *, connections: int, count: int) -> Figures:
    """For a server: the figures of a client in a process of its own, while this one serves."""
    words = [str(number) for number in (port, connections, count)]
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.http_client", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await client.communicate()
    if client.returncode != 0:
        raise RuntimeError(f"the client failed with {client.returncode}")
    figures: Figures = json.loads(output)
    return figures


if __name__ == "__main__":
    port, connections, count = map(int, sys.argv[1:])
    print(json.dumps(asyncio.run(load(port, connections=connections, count=count))))

"""A TCP proxy of the test's own: it can swallow what is sent, as a network does that fails silently."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Forwards connections to a port of 127.0.0.1. `port` is its own.

    With `tls`, it speaks PostgreSQL's TLS with clients in the server's place (docs.postgresql.org, "SSL Session
    Encryption"): the server that the tests have is built without.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self.port = 0
        self._connections: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def swallow(self, which: Callable[[bytes], bool] = lambda said: True) -> int:
        """Let nothing through any more, in either direction, on the connections whose client has said such a thing.

        They stay open, as far as both sides can see. Returns how many they are.
        """
        chosen = [one for one in self._connections if not one.swallows and which(bytes(one.said))]
        for one in chosen:
            one.swallows = True
        return len(chosen)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # Streams would log these as errors of this server's; the last ones are of clients that do not trust it.
        with suppress(asyncio.CancelledError, asyncio.IncompleteReadError, OSError):
            if self._tls is not None:
                await reader.readexactly(8)  # The request for it.
                writer.write(b"S")
                await writer.start_tls(self._tls)
            await self._forward(reader, writer)
        writer.transport.abort()
        self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        connection = _Connection()
        self._connections.append(connection)
        try:
            await asyncio.gather(
                connection.pump(reader, there_writer, connection.said), connection.pump(there_reader, writer, None)
            )
        finally:
            self._connections.remove(connection)
            there_writer.transport.abort()


class _Connection:
    def __init__(self) -> None:
        self.said = bytearray()
        self.swallows = False

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytearray | None) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if said is not None:
                    said += data
                if not self.swallows:
                    writer.write(data)
                    await writer.drain()
        if not self.swallows:
            with suppress(ConnectionError, OSError):
                writer.write_eof()


@asynccontextmanager
async def proxy(target: int, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A running proxy to that port."""
    made = Proxy(target, tls)
    server = await made.serve()
    try:
        yield made
    finally:
        server.close()
        await made.close()

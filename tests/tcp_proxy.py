"""A TCP proxy on loopback, for tests of what a network does: it holds what passes, or swallows it, or hangs up."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from tests.servers_nats import free_port

#: How a server of a cluster says who it is, in the first bytes of a route's connection.
_SERVER_NAME: Final = re.compile(rb'"(?:server_)?name":"(n\d)"')

Gate = Callable[[bytes], Awaitable[bytes]]


class Proxy:
    """Passes connections on to a port, until it is told otherwise.

    `held` stops all that passes, in both directions, without anybody noticing. `swallow_requests` and
    `swallow_replies` let it vanish.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self.swallow_requests = self.swallow_replies = False
        #: How many pieces vanished.
        self.swallowed = 0
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        while self._connections:  # noqa: ASYNC110  # they are ending, and set no event
            await asyncio.sleep(0.01)

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def hang_up(self) -> None:
        """Reset all connections."""
        for connection in self._connections:
            connection.hang_up()

    def hold_those_of(self, name: str, held: bool) -> None:
        """Hold the routes that the server of that name has made, or let them go."""
        for connection in self._connections:
            if connection.peer == name:
                (connection.open.clear if held else connection.open.set)()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, writer)
        self._connections.add(connection)
        try:
            with suppress(OSError):
                await connection.run(reader)
        finally:
            connection.hang_up()
            self._connections.discard(connection)

    async def request_gate(self, data: bytes) -> bytes:
        await self._open.wait()
        return self._perhaps(data, vanishes=self.swallow_requests)

    async def reply_gate(self, data: bytes) -> bytes:
        await self._open.wait()
        return self._perhaps(data, vanishes=self.swallow_replies)

    def _perhaps(self, data: bytes, *, vanishes: bool) -> bytes:
        self.swallowed += vanishes
        return b"" if vanishes else data


class _Connection:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, writer: asyncio.StreamWriter) -> None:
        self.peer: str | None = None
        self.open = asyncio.Event()
        self.open.set()
        self._proxy = proxy
        self._writers = [writer]

    async def run(self, reader: asyncio.StreamReader) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        self._writers.append(other_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, other_writer, self._proxy.request_gate)),
            asyncio.create_task(self._pump(other_reader, self._writers[0], self._proxy.reply_gate)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: Gate) -> None:
        with suppress(OSError):
            while data := await reader.read(2**18):
                if self.peer is None and gate == self._proxy.request_gate and (found := _SERVER_NAME.search(data)):
                    self.peer = found[1].decode()
                await self.open.wait()
                writer.write(await gate(data))
                await writer.drain()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

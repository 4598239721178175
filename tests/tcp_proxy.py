"""A TCP proxy on loopback, for tests of what a network does: it holds what passes, or swallows it, or is not there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self

from tests.ports import free_port

#: How a server of a cluster says who it is, in the first bytes of its connection to another.
_SERVER_NAME: Final = re.compile(rb'"(?:server_)?name":"(n\d)"')


class Proxy:
    """Passes connections on to a port, until it is told otherwise.

    `swallow_requests` and `swallow_replies` let what passes vanish. `swallowed` counts the pieces that did.
    """

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self.swallow_requests = self.swallow_replies = False
        self.swallowed = 0
        self.open = asyncio.Event()
        self._held_peers: set[str] = set()
        self._peers_changed = asyncio.Event()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self.open.set()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()

    # What a test does to it.

    async def accept(self) -> None:
        """Be there."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Reset all connections, and take no more."""
        assert self._server is not None
        self._server.close()
        while self._connections:
            for connection in self._connections:
                connection.hang_up()
            await asyncio.sleep(0.01)

    def hold(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told."""
        self.open.clear()

    def hold_those_of(self, name: str) -> None:
        """The same for the connections that the server of that name makes, or has made."""
        self._held_peers.add(name)

    def let_go(self) -> None:
        """What was held goes on its way, and all else too."""
        self.open.set()
        self._held_peers.clear()
        self._peers_changed.set()
        self._peers_changed = asyncio.Event()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    async def until_left(self, *, but: int = 0) -> None:
        """Return when all that was under way has arrived, and whoever was connected has left, but for so many."""
        while len(self._connections) > but:  # noqa: ASYNC110  # they end by themselves, and set no event
            await asyncio.sleep(0.01)

    # What passes.

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self._connections.add(connection)
        try:
            with suppress(OSError):
                await connection.run()
        finally:
            connection.hang_up()
            self._connections.discard(connection)

    async def pass_gate(self, peer: str | None) -> None:
        """Return when what comes from that peer, or goes there, may pass."""
        await self.open.wait()
        while peer in self._held_peers:
            await self._peers_changed.wait()


class _Connection:
    """One connection through the proxy. What came in is passed on to its end, also when its sender has left."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._peer: str | None = None
        self._reader, self._writer = reader, writer
        self._writers = [writer]

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.target)
        self._writers.append(writer)
        replies = asyncio.create_task(self._pass_replies(reader))
        try:
            await self._pass_requests(writer)
        finally:
            replies.cancel()
            await asyncio.wait({replies})

    async def _pass_requests(self, writer: asyncio.StreamWriter) -> None:
        while data := await self._reader.read(2**18):
            if self._peer is None and (found := _SERVER_NAME.search(data)):
                self._peer = found[1].decode()
            await self._proxy.pass_gate(self._peer)
            self._proxy.swallowed += self._proxy.swallow_requests
            writer.write(b"" if self._proxy.swallow_requests else data)
            await writer.drain()
        writer.write_eof()

    async def _pass_replies(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(2**18):
                await self._proxy.pass_gate(self._peer)
                self._proxy.swallowed += self._proxy.swallow_replies
                self._writer.write(b"" if self._proxy.swallow_replies else data)
                await self._writer.drain()
            self._writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

"""A cluster of NATS servers that reach each other through proxies, so that one of them can be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.ports import free_port
from tests.servers_nats import NatsCluster, NatsServer
from tests.tcp_proxy import Proxy


class Network:
    """The cluster, and the proxy in front of each server's port for the others."""

    def __init__(self, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        self.proxies = [Proxy(port) for port in ports]
        self.cluster = NatsCluster(folder, ports=ports, seen=[proxy.port for proxy in self.proxies])

    def cut_off(self, server: NatsServer) -> None:
        """Nothing passes between that server and the others any more, and nobody is told."""
        for proxy, other in zip(self.proxies, self.cluster.servers, strict=True):
            if other is server:
                proxy.hold()
            else:
                proxy.hold_those_of(server.name)

    def join(self) -> None:
        """All is well again."""
        for proxy in self.proxies:
            proxy.let_go()


@asynccontextmanager
async def proxied_cluster(folder: Path) -> AsyncIterator[Network]:
    """A cluster and its proxies, while the block runs."""
    network = Network(folder)
    async with AsyncExitStack() as stack:
        for proxy in network.proxies:
            await stack.enter_async_context(proxy)
        stack.callback(network.cluster.kill)
        await asyncio.to_thread(network.cluster.start)
        yield network

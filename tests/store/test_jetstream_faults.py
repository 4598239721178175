"""What JetStream's servers and the network do to a log that is written: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from journeyman.store import open_store
from tests.log_load import Load
from tests.servers_nats import NatsCluster, NatsServer, free_port, shared_cluster
from tests.store.test_jetstream import log_of
from tests.tcp_proxy import Proxy


async def test_a_leader_that_is_killed_under_load_costs_nothing_but_time(tmp_path: Path) -> None:
    cluster, log = shared_cluster(), log_of(tmp_path)
    load = Load(lambda: open_store(cluster.url(log)))
    async with load.running():
        leader = await asyncio.to_thread(cluster.leader, log)
        leader.kill()
        await load.stall()
        await asyncio.to_thread(leader.start)
    counted = await load.counted()
    assert not counted.broken, counted


async def test_a_leader_that_is_stopped_and_goes_on_costs_nothing_but_time(tmp_path: Path) -> None:
    cluster, log = shared_cluster(), log_of(tmp_path)
    load = Load(lambda: open_store(cluster.url(log)))
    async with load.running():
        leader = await asyncio.to_thread(cluster.leader, log)
        leader.stop()
        await load.stall()
        leader.go_on()
        await asyncio.to_thread(leader.until_ready)
    counted = await load.counted()
    assert not counted.broken, counted


async def test_a_leader_that_is_cut_off_from_the_others_costs_nothing_but_time(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    async with proxied_cluster(tmp_path) as network:
        load = Load(lambda: open_store(network.cluster.url(log)))
        async with load.running():
            leader = await asyncio.to_thread(network.cluster.leader, log)
            network.cut_off(leader)
            await load.stall()
            network.join(leader)
        counted = await load.counted()
    assert not counted.broken, counted


class Network:
    """A cluster whose servers reach each other through proxies."""

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
                proxy.hold_those_of(server.name, True)

    def join(self, server: NatsServer) -> None:
        for proxy in self.proxies:
            proxy.let_go()
            proxy.hold_those_of(server.name, False)


@asynccontextmanager
async def proxied_cluster(folder: Path) -> AsyncIterator[Network]:
    network = Network(folder)
    async with AsyncExitStack() as stack:
        for proxy in network.proxies:
            await stack.enter_async_context(proxy)
        stack.callback(network.cluster.kill)
        await asyncio.to_thread(network.cluster.start)
        yield network

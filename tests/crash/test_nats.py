"""The same promises over NATS JetStream, while servers of its cluster are killed, stopped and cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import quantiles
from typing import Final

import pytest
import pytest_asyncio

from journeyman.store import Store, open_store
from journeyman.testing.store_contract import StoreContract
from tests.crash import test_kills, test_takeover
from tests.crash.checker import Findings
from tests.crash.experiment import full, sizes
from tests.crash.lab import Lab, laboratory, report
from tests.log_load import Load
from tests.nats_network import proxied_cluster
from tests.servers_nats import NatsCluster, NatsServer, shared_cluster, shared_server
from tests.store.test_jetstream import log_of

#: How long a writer may be kept waiting by the loss of a leader, in seconds, in 19 of 20 cases.
STALL_P95_S: Final = 15.0


@pytest.fixture(scope="module")
def server() -> NatsServer:
    """Started here, where no event loop waits."""
    return shared_server()


@pytest.fixture(scope="module")
def cluster() -> NatsCluster:
    return shared_cluster()


@full
@pytest.mark.usefixtures("cluster")
class TestJetStreamCluster(StoreContract):
    """The contract again, where each reply may come from another server."""

    shared_between_processes = True
    patience_s = 60.0

    async def open(self, place: Path) -> Store:
        return await open_store(shared_cluster().url(log_of(place)))


# Servers are lost while the log is written and read.


@full
@pytest.mark.timeout(1200)
async def test_leaders_are_killed_under_load(cluster: NatsCluster, lab: Lab, tmp_path: Path) -> None:
    await _lose_leaders(cluster, lab, log_of(tmp_path), how="kill", times=20)


@full
@pytest.mark.timeout(600)
async def test_leaders_are_stopped_and_go_on_under_load(cluster: NatsCluster, lab: Lab, tmp_path: Path) -> None:
    await _lose_leaders(cluster, lab, log_of(tmp_path), how="stop", times=6)


async def _lose_leaders(cluster: NatsCluster, lab: Lab, log: str, *, how: str, times: int) -> None:
    load = Load(lambda: open_store(cluster.url(log)))
    async with load.running():
        for _ in range(times):
            await asyncio.sleep(lab.chance.uniform(0, 1))
            leader = await asyncio.to_thread(cluster.leader, log)
            (leader.kill if how == "kill" else leader.stop)()
            await load.stall()
            await asyncio.to_thread(leader.start if how == "kill" else leader.go_on)
            await asyncio.to_thread(leader.until_ready)
    words = {"kill": "kill -9 of the leader of three servers", "stop": "SIGSTOP of the leader of three servers"}
    await _judge(load, lab, words[how], fired=times, fault="leaders lost")


@full
@pytest.mark.timeout(600)
async def test_leaders_are_cut_off_under_load(lab: Lab, tmp_path: Path) -> None:
    times, log = 4, log_of(tmp_path)
    async with proxied_cluster(tmp_path) as network:
        load = Load(lambda: open_store(network.cluster.url(log)))
        async with load.running():
            for _ in range(times):
                leader = await asyncio.to_thread(network.cluster.leader, log)
                network.cut_off(leader)
                await load.stall()
                await asyncio.sleep(lab.chance.uniform(0, 5))
                network.join()
                await asyncio.to_thread(leader.until_ready)
        await _judge(load, lab, "partitions that cut off the leader", fired=times, fault="leaders cut off")


async def _judge(load: Load, lab: Lab, experiment: str, *, fired: int, fault: str) -> None:
    counted = await load.counted()
    stall_p95_s = quantiles(counted.stalls_s, n=20, method="inclusive")[18]
    lost, doubled = counted.lost + counted.gaps + counted.read_differently, counted.doubled
    findings = Findings(lost=lost, doubled=doubled, acknowledged=counted.acknowledged)
    report(experiment, lab, findings, fired=fired, fault=fault, stall_p95_s=round(stall_p95_s, 1))
    assert not counted.broken, counted
    assert stall_p95_s <= STALL_P95_S, counted.stalls_s


# Processes are lost, with the workers that they run.


@pytest_asyncio.fixture
async def nats_lab(server: NatsServer, tmp_path: Path) -> AsyncIterator[Lab]:
    """A laboratory whose processes share a log on one server."""
    async with laboratory(tmp_path, url=server.url(log_of(tmp_path))) as lab:
        yield lab


@sizes(1, 100)
async def test_processes_are_killed(size: int, nats_lab: Lab) -> None:
    await test_kills.test_kills_at_random_times(size, nats_lab)


@full
@pytest.mark.timeout(600)
async def test_processes_are_stopped(nats_lab: Lab) -> None:
    await test_takeover.test_zombies((2, 5), nats_lab)


@full
@pytest.mark.timeout(1200)
async def test_processes_and_leaders_are_killed(cluster: NatsCluster, tmp_path: Path) -> None:
    """Both at once: what one knows of the death of the other is recorded once."""
    log = log_of(tmp_path)
    async with laboratory(tmp_path, url=cluster.url(log)) as lab, _killing_leaders(cluster, log) as killed:
        lab.beside = ", while its leaders are killed"
        await test_kills.test_kills_at_random_times(40, lab)
        assert killed


@asynccontextmanager
async def _killing_leaders(cluster: NatsCluster, log: str, *, every_s: float = 10.0) -> AsyncIterator[list[str]]:
    killed: list[str] = []

    async def kill_again_and_again() -> None:
        while True:
            await asyncio.sleep(every_s)
            with suppress(RuntimeError):  # Nobody leads it yet, or no longer.
                leader = await asyncio.to_thread(cluster.leader, log)
                leader.kill()
                killed.append(leader.name)
                await asyncio.to_thread(leader.start)

    killing = asyncio.create_task(kill_again_and_again())
    try:
        yield killed
    finally:
        killing.cancel()
        await asyncio.wait({killing})
        for server in cluster.servers:
            if server.process is None:
                await asyncio.to_thread(server.start)

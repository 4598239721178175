"""The same experiments on PostgreSQL, and those that only a server can be the subject of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.crash import test_kills, test_takeover, test_writers
from tests.crash.experiment import FULL_S, finish, full, sizes
from tests.crash.lab import Lab, laboratory, questions_of, report
from tests.servers_postgres import PostgresServer, postgres


@pytest_asyncio.fixture
async def lab(tmp_path: Path, postgres_server: PostgresServer) -> AsyncIterator[Lab]:
    """The laboratory of every experiment here, instead of the one on a file."""
    async with laboratory(tmp_path, url=postgres_server.url()) as lab:
        yield lab


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with postgres() as server:
        yield server


@sizes(2, 300)
async def test_kills_at_random_times(size: int, lab: Lab) -> None:
    await test_kills.test_kills_at_random_times(size, lab)


@full
@pytest.mark.timeout(FULL_S)
async def test_zombies(lab: Lab) -> None:
    await test_takeover.test_zombies((4, 10), lab)


@full
@pytest.mark.timeout(FULL_S)
async def test_eight_writers(lab: Lab) -> None:
    await test_writers.test_eight_writers_share_one_file(("full", 30.0), lab)


@full
@pytest.mark.timeout(FULL_S)
async def test_lost_replies(lab: Lab) -> None:
    await test_writers.test_lost_replies(3000, lab)


@sizes(1, 40)
async def test_the_server_is_killed_while_processes_work(size: int, tmp_path: Path, own_server: PostgresServer) -> None:
    """The processes go on by themselves when it is back; clients repeat what they were not told."""
    async with laboratory(tmp_path, url=own_server.url()) as lab:
        processes = [await lab.start(takeover_s=5.0, think_s=0.05) for _ in range(2)]
        for number in range(size):
            putting = asyncio.create_task(lab.put(questions_of(f"s{number}-", 40, subjects=20, chance=lab.chance)))
            await asyncio.sleep(lab.chance.uniform(0.1, 0.5))
            await own_server.restart("immediate")
            await putting
        await lab.until_done()
        for process in processes:
            assert await lab.end(process) == 0
        findings = await lab.findings(parked_allowed=lab.acknowledged)
        report("the server is killed", lab, findings, fired=size, fault="servers killed")
        assert findings.broken == {}
        assert findings.instances_lost == 0, "a process that lived was taken for gone"


@sizes(20, 1000)
async def test_sessions_are_ended_while_processes_work(size: int, lab: Lab, postgres_server: PostgresServer) -> None:
    """All sessions of all processes, again and again: those that append, read, hold a role, or listen."""
    processes = [await lab.start(takeover_s=5.0, think_s=0.05) for _ in range(2)]
    outside = await asyncpg.connect(postgres_server.dsn)
    ended = 0

    async def end_again_and_again() -> None:
        nonlocal ended
        while ended < size:
            ended += await end_one(outside)
            await asyncio.sleep(0.02)

    ending = asyncio.create_task(end_again_and_again())
    number = 0
    while not ending.done():
        number += 1
        await lab.put(questions_of(f"e{number}-", 20, subjects=10, chance=lab.chance))
    await ending
    await outside.close()
    await lab.until_done()
    for process in processes:
        assert await lab.end(process) == 0
    await finish(lab)
    findings = await lab.findings(parked_allowed=lab.acknowledged)
    report("sessions are ended", lab, findings, fired=ended, fault="sessions ended")
    assert findings.broken == {}


async def end_one(outside: asyncpg.Connection[Any]) -> int:
    ended = await outside.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = "
        "'journeyman' ORDER BY random() LIMIT 1) AS one"
    )
    assert isinstance(ended, int)
    return ended

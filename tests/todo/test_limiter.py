"""A limit on attempts a minute holds in every minute, over all processes, whatever their clocks do."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from bisect import bisect_left
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman import App, DefinitionError
from journeyman.errors import NotReady
from journeyman.store.base import Entry
from journeyman.store.memory import MemoryKeys, MemoryStore
from journeyman.timing import Timing
from journeyman.todo.ledger import jobs_state
from journeyman.todo.limiter import MINUTE_US, Limiter
from tests.todo.desk import WAIT_S, Ask, Desk, answered, desk, idle, log_of, make, running, until
from tests.todo.test_runner import Held


class Clock:
    now_us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now_us


def most_in_a_minute(begun: list[int]) -> int:
    """The most attempts in any 60 seconds; `begun` are times in order."""
    return max((bisect_left(begun, start + MINUTE_US) - number for number, start in enumerate(begun)), default=0)


class Asking(msgspec.Struct, frozen=True):
    """After a pause, a process gives back what it holds unused, asks for leave, and uses a part of it.

    The pause is in intervals of the even pace, less a millisecond: what is just not over yet is the worst case.
    """

    process: int
    pause: float
    gives_back: bool
    count: int
    unused: int


ASKING = st.builds(
    Asking,
    process=st.integers(0, 1),
    pause=st.sampled_from([0, 0.1, 1, 2, 5, 100]),
    gives_back=st.booleans(),
    count=st.sampled_from([1, 2, 9]),
    unused=st.sampled_from([0, 1, 9]),
)


@settings(max_examples=500, deadline=None)
@given(per_minute=st.sampled_from([1, 7, 20, 50]), askings=st.lists(ASKING, max_size=5))
def test_no_minute_has_more_than_the_limit_however_processes_ask(per_minute: int, askings: list[Asking]) -> None:
    assert most_in_a_minute(asyncio.run(begun_by(per_minute, askings))) <= per_minute


async def begun_by(per_minute: int, askings: list[Asking]) -> list[int]:
    """When attempts begin that are asked for so, and then as many as may, for a minute."""
    keys, clock, begun = MemoryKeys(), Clock(), []
    limiters = [Limiter(keys, "w", per_minute, now_us=clock) for _ in range(2)]
    unused_us: list[list[int]] = [[], []]
    for asking in askings:
        clock.now_us += max(0, round(asking.pause * MINUTE_US / (per_minute - per_minute // 10 + 1)) - 1000)
        limiter, held_us = limiters[asking.process], unused_us[asking.process]
        if asking.gives_back and held_us:
            await limiter.give_back(held_us)
            held_us.clear()
        granted = await limiter.take(asking.count)
        unused = min(asking.unused, granted)
        held_us += [clock.now_us] * unused
        begun += [clock.now_us] * (granted - unused)
    end_us = clock.now_us + MINUTE_US
    while clock.now_us < end_us:
        begun += [clock.now_us] * await limiters[0].take(per_minute)
        clock.now_us += round(limiters[0].waits_s * 1_000_000)
    return begun


@pytest.mark.parametrize("per_minute", [1, 2, 10, 60, 600])
async def test_who_always_waits_as_told_gets_nearly_the_limit(per_minute: int) -> None:
    clock, begun = Clock(), []
    limiter = Limiter(MemoryKeys(), "w", per_minute, now_us=clock)
    end_us = clock.now_us + 10 * MINUTE_US
    while clock.now_us < end_us:
        granted = await limiter.take(5)
        begun += [clock.now_us] * granted
        clock.now_us += round(limiter.waits_s * 1_000_000) if granted < 5 else 0
    assert most_in_a_minute(begun) <= per_minute
    assert len(begun) >= 0.85 * 10 * per_minute


async def test_what_is_given_back_may_begin() -> None:
    clock = Clock()
    limiter = Limiter(MemoryKeys(), "w", 60, now_us=clock)
    assert await limiter.take(10) == 6
    assert await limiter.take(10) == 0
    assert limiter.waits_s > 0
    await limiter.give_back([clock.now_us] * 2)
    assert await limiter.take(10) == 2


async def test_what_is_given_back_late_makes_no_burst_larger() -> None:
    """The leave that was not used had come back with time, and others used that."""
    clock = Clock()
    limiter = Limiter(MemoryKeys(), "w", 60, now_us=clock)
    taken_us = clock.now_us
    assert await limiter.take(6) == 6
    clock.now_us += 6_000_000
    at_once = await limiter.take(10)
    await limiter.give_back([taken_us] * 5 + [clock.now_us])
    assert at_once + await limiter.take(10) == 6


@pytest.mark.parametrize("jump_us", [60 * MINUTE_US, -60 * MINUTE_US], ids=["ahead", "back"])
async def test_a_clock_that_jumps_an_hour_neither_blocks_nor_floods(jump_us: int) -> None:
    clock = Clock()
    limiter = Limiter(MemoryKeys(), "w", 60, now_us=clock)
    before = await limiter.take(100)
    clock.now_us += jump_us
    at_once = await limiter.take(100)
    assert before + at_once <= 2 * 6
    clock.now_us += MINUTE_US
    assert await limiter.take(100) == 6


async def test_a_decision_that_can_not_be_made_is_told_once_and_made_later(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryKeys):
        fails = True

        async def get(self, key: str) -> Entry | None:
            if self.fails:
                raise NotReady("The disk is gone, on purpose.")
            return await super().get(key)

    keys, clock = Broken(), Clock()
    limiter = Limiter(keys, "w", 60, now_us=clock)
    for _ in range(3):
        assert await limiter.take(1) == 0
        assert 0 < limiter.waits_s <= 1
    assert len(caplog.records) == 1
    keys.fails = False
    assert await limiter.take(1) == 1


async def test_a_value_that_is_no_time_is_told_and_holds_up_no_longer_than_a_burst_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys, clock = MemoryKeys(), Clock()
    await keys.put("limits/w", b"not a number")
    limiter = Limiter(keys, "w", 60, now_us=clock)
    assert await limiter.take(1) == 0
    assert "limits/w" in caplog.text
    assert 0 < limiter.waits_s < 10
    clock.now_us += round(limiter.waits_s * 1_000_000)
    assert await limiter.take(1) == 1


async def test_processes_together_begin_no_more_than_the_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'desk.db'}"
    limited = [make(requests_per_minute=60) for _ in range(3)]
    async with (
        running(limited[0], store=url) as app,
        running(limited[1], store=url),
        running(limited[2], store=url),
    ):
        await asyncio.gather(*(app.execute(Ask(key=str(number))) for number in range(30)))
        began_s = asyncio.get_running_loop().time()
        await until(app, answered(*map(str, range(6))))
        await asyncio.sleep(2.5)
        starts = await log_of(app, "journeyman/job-started")
        took_s = asyncio.get_running_loop().time() - began_s
        assert 6 < len(starts) <= 6 + took_s * 55 / 60 + 1


async def test_who_was_not_first_at_a_job_gives_its_leave_back() -> None:
    """With a clock that stands still, the shared number shows exactly how many leaves are taken."""
    store, clock = MemoryStore(), Clock()
    workers = [make(requests_per_minute=1000) for _ in range(3)]
    interval_us = MINUTE_US // (1000 - 100 + 1) + 1
    async with (
        running(workers[0], store=store, timing=Timing(now_us=clock)) as app,
        running(workers[1], store=store, timing=Timing(now_us=clock)),
        running(workers[2], store=store, timing=Timing(now_us=clock)),
    ):
        await asyncio.gather(*(app.execute(Ask(key=str(number))) for number in range(60)))
        await until(app, idle)

        async def taken() -> int:
            entry = await store.keys.get("limits/desk/answers")
            assert entry is not None
            return round((int(entry.value) - clock.now_us) / interval_us)

        async with asyncio.timeout(WAIT_S):
            while await taken() != 60:
                await store.log.wait(await store.log.head(), 0.02)


@pytest.mark.parametrize(("per_minute", "total"), [(600, 3), (300, 8)])
async def test_real_processes_on_one_file_keep_both_limits_at_every_moment(
    tmp_path: Path, per_minute: int, total: int
) -> None:
    """Counted from the log alone. Nothing can be recorded before it had leave, however slow the machine is."""
    url, jobs = f"sqlite:///{tmp_path / 'desk.db'}", per_minute // 10 + 40
    async with running(make(), store=url, workers_run=False) as app:
        await asyncio.gather(*(app.execute(Ask(key=str(number))) for number in range(jobs)))
        began_us = time.time_ns() // 1000
        codes = await asyncio.gather(*(run_limited(url, per_minute, total) for _ in range(3)))
        records = await log_of(app, "journeyman/job-started", "desk/answer")
    assert codes == [0, 0, 0]
    starts = [record for record in records if record.name == "journeyman/job-started"]
    assert len(starts) == jobs
    interval_us = MINUTE_US / (per_minute - per_minute // 10 + 1)
    for number, record in enumerate(starts):
        assert record.recorded_at_us >= began_us + (number + 1 - per_minute // 10) * interval_us
    under_way = itertools.accumulate(1 if record in starts else -1 for record in records)
    assert max(under_way) <= total


async def run_limited(url: str, per_minute: int, total: int) -> int:
    """Run the desk in a process of its own, with the limits; its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.todo.limited_process", url, str(per_minute), str(total)
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_processes_together_have_no_more_attempts_under_way_than_the_total() -> None:
    store, helds = MemoryStore(), [Held(), Held()]
    workers = [make(held, concurrency=8, concurrency_total=3) for held in helds]
    async with running(workers[0], store=store) as app, running(workers[1], store=store) as other:
        await asyncio.gather(*(app.execute(Ask(key=str(number))) for number in range(10)))
        await until(app, lambda state: jobs_state(state).jobs.count("due", Desk.name, "running") == 3)
        await asyncio.sleep(0.2)
        assert len(await log_of(app, "journeyman/job-started")) == 3
        for held in helds:
            held.go.set()
        await until(app, answered(*map(str, range(10))))
        await until(other, answered(*map(str, range(10))))
        most = now = 0
        for record in await log_of(app, "journeyman/job-started", "desk/answer"):
            now += 1 if record.name == "journeyman/job-started" else -1
            most = max(most, now)
        assert most == 3


@pytest.mark.parametrize("limit", ["requests_per_minute", "concurrency_total"])
def test_a_limit_below_1_is_refused(limit: str) -> None:
    limited = type("Limited", (Desk,), {limit: 0})
    with pytest.raises(DefinitionError, match=f"{limit} is 0"):
        App(features=[desk], workers=[limited()])

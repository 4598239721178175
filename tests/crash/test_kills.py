"""Processes are killed, at any time and at each step: nothing is lost, and no job is forgotten or answered twice."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from typing import Final

import pytest

from tests.crash.app import EATS, EXITS, HANGS_ONCE, KILLS
from tests.crash.experiment import finish, sizes
from tests.crash.lab import ENDS, PATIENCE_S, Lab, questions_of, report
from tests.crash.process import EXIT_BY_JOB, POINTS

WORKERS: Final = 3

#: How many questions wait at most while processes are killed.
BACKLOG_MAX: Final = 100

#: So many attempts that hardly any job is killed in all of them by chance.
ATTEMPTS: Final = 10

#: A question whose first call the service leaves without an answer.
AIMED_AT: Final = f"{HANGS_ONCE}-first"


@sizes(9, 700)
async def test_kills_at_random_times(size: int, lab: Lab) -> None:
    """Three processes that run the workers are killed again and again while they start or work, and so is a client."""
    killed = 0

    async def kill_again_and_again() -> None:
        nonlocal killed
        while killed < size:
            process = await lab.spawn(attempts=ATTEMPTS, think_s=0.1)
            if lab.chance.random() < 0.8:
                await lab.ready(process)
            await asyncio.sleep(lab.chance.uniform(0, 0.4))
            killed += await lab.kill(process) == -signal.SIGKILL

    async def put_again_and_again() -> None:
        number = 0
        while killed < size:
            number += 1
            questions = questions_of(f"q{number}-", 30, subjects=15, chance=lab.chance)
            await lab.put_some(questions, lab.chance.randrange(30))
            await lab.put(questions)
            while len(lab.acknowledged) - len(lab.calls) > BACKLOG_MAX and killed < size:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    await _kill_within_a_call(lab)
    async with asyncio.TaskGroup() as group:
        group.create_task(put_again_and_again())
        for _ in range(WORKERS):
            group.create_task(kill_again_and_again())
    await finish(lab, attempts=ATTEMPTS)
    # One that is killed twice in its last attempt is parked, rightly; the checker knows its charges.
    findings = await lab.findings(attempts_max=ATTEMPTS, parked_allowed=lab.acknowledged)
    report("kill -9 at random times", lab, findings, fired=killed + 1, fault="processes killed")
    assert findings.broken == {}
    assert findings.jobs == len(lab.acknowledged)
    assert findings.instances_lost > 0, "no kill met an attempt"


async def _kill_within_a_call(lab: Lab) -> None:
    """Few kills at random times may all miss the attempts, so that one before them is aimed."""
    process = await lab.start(attempts=ATTEMPTS)
    await lab.put([(AIMED_AT, AIMED_AT)])
    await lab.until_called([AIMED_AT], 1)
    assert await lab.kill(process) == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS)
@sizes(1, 50)
async def test_kills_at_each_step_of_the_protocol(point: str, size: int, lab: Lab) -> None:
    """A process kills itself at that step, for the first or second time that it comes there; the next one goes on."""
    kind = {"job-failed": "fails-once-", "give_up's": "fails-", "job-released": "hangs-once-"}
    prefix = next((prefix for word, prefix in kind.items() if word in point), "q")
    killed = 0
    for number in range(size):
        # All that a drain releases goes into one append.
        nth = 1 if "released" in point else lab.chance.randrange(1, 3)
        process = await lab.start(point=point, nth=nth, drain_s=0.1)
        questions = [(f"{prefix}{number}-{n}", f"subject-{n}") for n in range(3)]
        await lab.put(questions)
        if "released" in point:
            await lab.until_called([key for key, _ in questions], 3)
            process.send_signal(signal.SIGTERM)
        assert await lab.ended(process) == -signal.SIGKILL, f"it never came to: {point}"
        killed += 1
        await finish(lab)
    findings = await lab.findings()
    report(f"kill -9 {point}", lab, findings, fired=killed, fault="processes killed")
    assert findings.broken == {}


@pytest.mark.parametrize("kind", [KILLS, EXITS])
@sizes(1, 10)
async def test_a_job_that_ends_its_process_is_parked_and_its_neighbours_are_done(
    kind: str, size: int, lab: Lab
) -> None:
    """By a signal, as the kernel kills those that take too much memory, and by leaving without a word."""
    killers = [f"{kind}-{number}" for number in range(size)]
    deaths = 0
    for killer in killers:
        await lab.put([(killer, killer), *questions_of(f"beside-{killer}-", 7, subjects=7)])
        while not await is_over(lab, killer):
            process = await lab.start(think_s=0.2)
            deaths += await until_over(lab, process, killer) in (-signal.SIGKILL, EXIT_BY_JOB)
    await finish(lab)
    findings = await lab.findings(parked_allowed=killers)
    report(f"a job that {kind} its process, beside seven others", lab, findings, fired=deaths, fault="deaths by a job")
    assert findings.broken == {}
    assert findings.parked == size
    # One death makes all eight suspects; then it is alone to be charged, three times.
    assert deaths == 4 * size


@sizes(1, 10)
async def test_a_job_that_eats_the_memory_is_given_up_and_its_neighbours_are_done(size: int, lab: Lab) -> None:
    """To the last KiB, in a process that may take no more: allocations fail wherever it is, in the loop itself too."""
    eaters = [f"{EATS}-{number}" for number in range(size)]
    for eater in eaters:
        await lab.put([(eater, eater), *questions_of(f"beside-{eater}-", 7, subjects=7)])
        while not await is_over(lab, eater):
            await until_over(lab, await lab.start(think_s=0.2, memory_mb=64), eater)
    await finish(lab)
    findings = await lab.findings(parked_allowed=eaters)
    eaten = lab.calls.total() - 7 * size
    report("a job that eats the memory, beside seven others", lab, findings, fired=eaten, fault="times eaten")
    assert findings.broken == {}
    assert findings.given_up + findings.parked == size, "a neighbour was given up"


async def is_over(lab: Lab, key: str) -> bool:
    """Whether nothing more is done for the question by itself."""
    return any(record.name in ENDS and record.subject == key for record in await lab.records())


async def until_over(lab: Lab, process: Process, key: str) -> int:
    """Wait until the process dies; it is told to end once nothing more is done for the question. Its exit code."""
    async with asyncio.timeout(PATIENCE_S):
        while process.returncode is None and not await is_over(lab, key):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return await lab.end(process)

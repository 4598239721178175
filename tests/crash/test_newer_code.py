"""Messages that a process can't read: poison stops it and is set aside, newer code ends it for a restart."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.crash.checker import Findings
from tests.crash.experiment import sizes
from tests.crash.lab import Lab, laboratory, questions_of, report
from tests.crash.newer import make_newer_app
from tests.crash.process import EXIT_OUTDATED

EXIT_FAILED: Final = 1
PROCESSES: Final = 3


async def test_poison_stops_every_process_and_every_start_until_it_is_set_aside(lab: Lab) -> None:
    processes = [await lab.work("app") for _ in range(2)]
    await lab.put(questions_of("before-", 4, subjects=2))
    await lab.until_done()
    position = await lab.insert("questions/put", b'{"key": 7}')
    for process in processes:
        assert await lab.ended(process) == EXIT_FAILED
    await lab.end_client()

    assert await lab.ended(await lab.journeyman("app", "work")) == EXIT_FAILED
    assert f"at position {position} (questions/put)" in lab.said
    assert f"log set-aside {position} --reason" in lab.said

    setting_aside = ("log", "set-aside", str(position), "--reason", "a number is no key")
    assert await lab.ended(await lab.journeyman("app", *setting_aside)) == 0
    process = await lab.work("app")
    await lab.put(questions_of("after-", 4, subjects=2))
    await lab.until_done()
    assert await lab.end(process) == 0
    answers = [record.subject for record in await lab.records() if record.name == "questions/answer"]
    assert Counter(answers) == dict.fromkeys(lab.acknowledged, 1)


@pytest.mark.parametrize(
    ("name", "version"), [("questions/withdraw", 1), ("questions/put", 2)], ids=["an unknown name", "a newer version"]
)
async def test_newer_code_ends_a_running_process_with_75(name: str, version: int, lab: Lab) -> None:
    process = await lab.work("app")
    position = await lab.insert(name, b'{"key": "a", "about": "b"}', version=version)
    assert await lab.ended(process) == EXIT_OUTDATED
    assert f"at position {position} ({name}) is from newer code" in lab.said


@sizes((1, 30), (10, 200))
async def test_a_rolling_deploy(size: tuple[int, int], lab: Lab, tmp_path: Path) -> None:
    """Three processes get the later release one after the other; those that are still of the older one end with 75."""
    deploys, questions = size
    total, exits = Findings(), 0
    for number in range(deploys):
        place = tmp_path / str(number)
        place.mkdir()
        async with laboratory(place) as one:
            exits += await deploy(one, questions)
            total = total + await one.findings(make=make_newer_app)
            await check_ratings(one)
    report("rolling deploys under load", lab, total, fired=exits, fault="exits for newer code", deploys=deploys)
    assert total.broken == {}
    assert total.charged_max == 1, "a deploy charged a job"
    assert exits >= deploys


async def deploy(lab: Lab, count: int) -> int:
    """Deploy while so many questions are put; how many processes of the older release ended by themselves."""
    processes = [await lab.work("app") for _ in range(PROCESSES)]
    questions = questions_of("d", count, subjects=10)
    await lab.put(questions[: count // 3])
    lab.newer = True
    exits = 0
    async with asyncio.TaskGroup() as group:
        group.create_task(lab.put(questions[count // 3 :]))
        for old in processes[:]:
            exits += await replace(lab, old, processes)
    await lab.until_done()
    for process in processes:
        assert await lab.end(process) == 0
    return exits


async def replace(lab: Lab, old: Process, processes: list[Process]) -> int:
    """Start one of the later release, then end the old one; 1 when that had ended by itself by then."""
    processes.append(await lab.work("newer"))
    processes.remove(old)
    code = await lab.end(old)
    # The signal may also come when it is ending already, and nobody in it listens any more.
    assert code in (0, EXIT_OUTDATED, -signal.SIGTERM)
    return int(code == EXIT_OUTDATED)


async def check_ratings(lab: Lab) -> None:
    """The later release's new reaction has handled every answer once, also those of the older release."""
    records = await lab.records()
    answered = [record.subject for record in records if record.name == "questions/answer"]
    rated = [record.subject for record in records if record.name == "ratings/rate"]
    # It comes last, and may have been left to the next start when the processes were told to end.
    assert rated == answered[: len(rated)]
    assert len(rated) > len(answered) / 2

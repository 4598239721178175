"""Each experiment finds the bug that it is for: processes are given one, and the checker tells it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any, Final

import pytest

from tests.crash.experiment import full
from tests.crash.lab import TAKEOVER_S, Lab, questions_of
from tests.crash.planted import ACKNOWLEDGE_EARLY, GREEDY, NO_KEY, REPEAT_ANEW
from tests.crash.test_kills import is_over, until_over
from tests.crash.test_writers import SHARE_MIN, share_of_slowest, written

pytestmark = full

#: How long to wait for what a bug keeps from coming, in seconds.
LONG_ENOUGH_S: Final = 3.0


async def test_a_store_that_acknowledges_early_is_found(lab: Lab) -> None:
    await lab.put(questions_of("q", 5, subjects=5), planted=ACKNOWLEDGE_EARLY)
    await lab.end_client()
    assert (await lab.findings()).broken.keys() >= {"lost"}


async def test_a_client_that_repeats_without_a_key_is_found(lab: Lab) -> None:
    for number in range(20):
        questions = questions_of(f"q{number}-", 20, subjects=5)
        await lab.put_some(questions, 3)
        await lab.put(questions, planted=NO_KEY)
    assert (await lab.findings()).broken.keys() >= {"doubled"}


async def test_processes_that_ignore_fences_are_found(lab: Lab) -> None:
    zombies = [await lab.start(think_s=0.5, planted="ignore fences") for _ in range(2)]
    questions = questions_of("q", 16, subjects=1000)
    await lab.put(questions)
    await lab.until_called([key for key, _ in questions], 15)
    await lab.stop(zombies)
    await lab.start(planted="ignore fences")
    await asyncio.sleep(2 * TAKEOVER_S)
    await lab.until_done()
    for zombie in zombies:
        zombie.send_signal(signal.SIGCONT)
    await asyncio.sleep(TAKEOVER_S)
    await lab.close()
    assert (await lab.findings()).broken.keys() >= {"answered_twice", "unfenced"}


async def test_attempts_that_nobody_records_are_found(lab: Lab) -> None:
    process = await lab.start(planted="perform unrecorded")
    await lab.put(questions_of("fails-once-", 3, subjects=3))
    await lab.until_done()
    await lab.end(process)
    assert (await lab.findings()).broken.keys() == {"calls_unrecorded"}


async def test_jobs_that_are_not_taken_over_are_found(lab: Lab) -> None:
    process = await lab.start(point="as perform begins", planted="forget the dead")
    await lab.put(questions_of("q", 3, subjects=3))
    assert await lab.ended(process) == -signal.SIGKILL
    await lab.start(planted="forget the dead")
    await asyncio.sleep(LONG_ENOUGH_S)
    await lab.close()
    assert (await lab.findings()).broken.keys() >= {"forgotten"}


async def test_neighbours_that_are_charged_for_a_killer_are_found(lab: Lab) -> None:
    await lab.put([("kills", "kills"), *questions_of("beside-", 7, subjects=7)])
    while not await is_over(lab, "kills"):
        process = await lab.start(think_s=0.2, planted="charge everybody")
        await until_over(lab, process, "kills")
    assert (await lab.findings(parked_allowed=["kills"])).broken.keys() >= {"charged_wrongly"}


async def test_a_deploy_that_charges_jobs_is_found(lab: Lab) -> None:
    options: dict[str, Any] = {"planted": "charge releases", "drain_s": 0.2, "attempts": 1}
    process = await lab.start(**options)
    await lab.put([("hangs-once", "a")])
    await lab.until_called(["hangs-once"], 1)
    await lab.end(process)
    await lab.start(**options)
    await asyncio.sleep(LONG_ENOUGH_S)
    await lab.close()
    assert (await lab.findings(attempts_max=1)).broken.keys() >= {"charged_wrongly", "forgotten"}


async def test_processes_that_believe_clocks_are_found(lab: Lab, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("3600")
    await lab.start(think_s=0.2, planted="believe clocks")
    await lab.start(think_s=0.2, planted="believe clocks", clock=str(clock))
    await lab.put(questions_of("q", 30, subjects=30))
    await asyncio.sleep(LONG_ENOUGH_S)
    await lab.close()
    assert (await lab.findings()).instances_lost > 0


async def test_a_renamed_reaction_is_found(lab: Lab) -> None:
    older = await lab.start()
    await lab.put(questions_of("q", 5, subjects=5))
    await lab.until_done()
    await lab.end(older)
    renamed = await lab.work("planted")
    await asyncio.sleep(LONG_ENOUGH_S)
    await lab.end(renamed)
    assert (await lab.findings()).broken.keys() >= {"reacted_twice"}


async def test_a_writer_that_keeps_the_turn_is_found(lab: Lab) -> None:
    assert share_of_slowest(await written(lab, LONG_ENOUGH_S, planted=GREEDY)) < SHARE_MIN["full"]


async def test_an_append_without_a_reply_that_is_made_again_as_a_new_one_is_found(lab: Lab) -> None:
    process = await lab.start(lose=0.33, planted=REPEAT_ANEW)
    await lab.put(questions_of("q", 100, subjects=30))
    await asyncio.sleep(LONG_ENOUGH_S)
    await lab.end(process)
    assert (await lab.findings()).broken.keys() & {"answered_twice", "overlaps", "reacted_twice"}


@pytest.mark.parametrize("name", ["questions/put", "questions/withdraw"], ids=["poison", "newer code"])
async def test_a_process_that_passes_over_what_it_can_not_read_is_found(name: str, lab: Lab) -> None:
    """It goes on, where each of the experiments waits for its end."""
    process = await lab.work("planted:lenient")
    await lab.insert(name, b'{"key": 7}')
    await asyncio.sleep(LONG_ENOUGH_S)
    assert process.returncode is None
    assert await lab.end(process) == 0

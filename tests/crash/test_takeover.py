"""Processes stop, go on, lose their clock, or are told to end: who takes what over, and what it costs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final

from tests.crash.experiment import finish, sizes
from tests.crash.lab import TAKEOVER_S, Lab, questions_of, report

#: So long that nothing is taken over because of silence.
NEVER_S: Final = 1000.0


@sizes((2, 1), (4, 25))
async def test_zombies(size: tuple[int, int], lab: Lab) -> None:
    """Processes are stopped while they work, for three takeover times, and go on: what they bring late is not taken."""
    at_once, rounds = size
    for number in range(rounds):
        # They think for so long that none is done when it is stopped, however slow the machine is.
        zombies = await asyncio.gather(*(lab.start(think_s=3.0) for _ in range(at_once)))
        questions = questions_of(f"z{number}-", 8 * at_once, subjects=1000)
        await lab.put(questions)
        await lab.until_called([key for key, _ in questions], 8 * at_once - 1)
        await lab.stop(zombies)
        other = await lab.start()
        await asyncio.sleep(3 * TAKEOVER_S)
        await lab.until_done()
        for zombie in zombies:
            zombie.send_signal(signal.SIGCONT)
        # They live, and do their part under new ids, alone.
        await lab.end(other)
        await lab.put(questions_of(f"z{number}-after-", 8, subjects=1000))
        await lab.until_done()
        for zombie in zombies:
            assert await lab.end(zombie) == 0
    findings = await lab.findings()
    stopped, late = at_once * rounds, lab.fired["late outcomes"]
    report(
        "SIGSTOP for three takeover times",
        lab,
        findings,
        fired=stopped,
        fault="processes stopped",
        late_outcomes=late,
    )
    assert findings.broken == {}
    assert findings.instances_lost >= stopped
    assert late > 0, "no zombie brought anything late"


@sizes(1, 10)
async def test_clock_jumps_of_an_hour(size: int, lab: Lab, tmp_path: Path) -> None:
    """The clock of one of two processes jumps ahead and back while they work: nothing is taken over, nothing waits."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    processes = [await lab.start(clock=str(clock), think_s=0.05), await lab.start(think_s=0.05)]
    jumps = 0
    for number in range(size):
        for jump_s in ("3600", "0", "-3600", "0"):
            clock.write_text(jump_s)
            jumps += 1
            await lab.put(questions_of(f"c{number}{jump_s}-", 20, subjects=10, chance=lab.chance))
            await asyncio.sleep(TAKEOVER_S / 2)
        await lab.until_done()
    for process in processes:
        assert await lab.end(process) == 0
    findings = await lab.findings()
    report("clock jumps of an hour, ahead and back", lab, findings, fired=jumps, fault="jumps")
    assert findings.broken == {}
    assert findings.instances_lost == 0


@sizes((1, 2), (10, 5))
async def test_restarts_for_a_deploy_charge_no_job_an_attempt(size: tuple[int, int], lab: Lab) -> None:
    """Processes are told to end, again and again and one after the other, in long jobs. Others take these at once."""
    rounds, turns = size
    restarts = 0
    for number in range(rounds):
        processes = [await lab.start(takeover_s=NEVER_S, drain_s=0.2, attempts=1) for _ in range(2)]
        for turn in range(turns):
            keys = [f"hangs-once-{number}-{turn}-{n}" for n in range(4)]
            await lab.put([(key, key) for key in keys])
            await lab.until_called(keys, 4)
            for _ in range(2):
                assert await lab.end(processes.pop(0)) == 0
                restarts += 1
                processes.append(await lab.start(takeover_s=NEVER_S, drain_s=0.2, attempts=1))
        for process in processes:
            assert await lab.end(process) == 0
    await finish(lab, takeover_s=NEVER_S, attempts=1)
    findings = await lab.findings(attempts_max=1)
    report("SIGTERM under load, five times", lab, findings, fired=restarts, fault="processes restarted")
    assert findings.broken == {}
    assert findings.released > 0
    assert findings.instances_lost == 0

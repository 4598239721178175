"""Writers get their turns, and what a store does not answer is settled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from tests.crash.checker import Acknowledged
from tests.crash.experiment import sizes
from tests.crash.lab import Lab, questions_of, report
from tests.crash.process import Written

WRITERS: Final = 8

#: What the slowest writer gets at least, as a share of the mean: in full, and in the short form on a busy machine.
SHARE_MIN: Final = {"full": 0.4, "short": 0.1}

#: The longest wait of any writer, in seconds: in full, and in the short form on a busy machine.
WAIT_S_MAX: Final = {"full": 1.0, "short": 10.0}


@sizes(("short", 1.0), ("full", 30.0))
async def test_eight_writers_share_one_file(size: tuple[str, float], lab: Lab) -> None:
    form, seconds = size
    told = await written(lab, seconds)
    for one in told:
        lab.acknowledged |= {key: Acknowledged(key, position, id) for key, position, id in one.receipts}
    findings = await lab.findings()
    counts = [len(one.receipts) for one in told]
    share = share_of_slowest(told)
    longest_s = max(one.longest_s for one in told)
    # Nobody works here: the questions are not to be answered.
    findings.forgotten = 0
    report(
        "eight writers on one log",
        lab,
        findings,
        fired=sum(counts),
        fault="commands, one after the other in each",
        share=round(share, 2),
        longest_wait_s=round(longest_s, 3),
    )
    assert findings.broken == {}
    assert share >= SHARE_MIN[form]
    assert longest_s < WAIT_S_MAX[form]


async def written(lab: Lab, seconds: float, *, planted: str | None = None) -> list[Written]:
    """What eight writers tell that write for so long, all at once; the bug is planted in the last one."""
    bugs = [*[None] * (WRITERS - 1), planted]
    writers = [await lab.start("write", write_s=seconds, planted=bug) for bug in bugs]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
    told = []
    for writer in writers:
        assert writer.stdout is not None
        told.append(msgspec.json.decode(await writer.stdout.readline(), type=Written))
        assert await lab.ended(writer) == 0
    return told


def share_of_slowest(told: Sequence[Written]) -> float:
    """What the slowest writer got, as a share of the mean."""
    counts = [len(one.receipts) for one in told]
    return min(counts) / (sum(counts) / len(counts))


@sizes(100, 3000)
async def test_lost_replies(size: int, lab: Lab) -> None:
    """A third of all appends in two of three processes comes back without a reply, done or not done."""
    processes = [await lab.start(lose=0.33), await lab.start(lose=0.33), await lab.start()]
    await lab.put(questions_of("l", size, subjects=30, chance=lab.chance))
    await lab.until_done(timeout_s=600)
    for process in processes:
        assert await lab.end(process) == 0
    findings = await lab.findings()
    lost = lab.fired["replies lost"]
    report("a third of all appends without a reply", lab, findings, fired=lost, fault="replies or requests lost")
    assert findings.broken == {}
    assert lost > 0

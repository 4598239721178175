"""Every access of the disk fails once, and for ever: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

import pytest

from journeyman.store import sqlite_wal
from tests.crash.experiment import sizes
from tests.crash.script import Script, lost_from, made
from tests.crash.vfs import ERRORS, Disk, Fault, faulty_disk

KEYS = [f"q{number}" for number in range(8)]

NEXT_STEPS = ("try again", "with the same idempotency key", "Let this user write to it")


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short piece of work has several."""
    monkeypatch.setattr(sqlite_wal, "CHECKPOINT_PAGES", 12)


async def work(disk: Disk, path: Path) -> Script:
    """All of the work, from opening to closing, as far as it goes."""
    script = Script()
    store = await script.open(path)
    if store is not None:
        await script.run(store, KEYS)
        await store.close()
    return script


async def accesses(folder: Path) -> dict[str, int]:
    """How often the work accesses the disk when nothing fails, by kind."""
    with faulty_disk() as disk:
        script = await work(disk, made(folder) / "log.db")
        assert list(script.told) == KEYS
        assert script.errors == []
        return {kind: disk.counts[kind] for kind in ERRORS}


async def meet(folder: Path, fault: Fault) -> bool:
    """Work on a disk with this fault, then on one without; whether the fault was met."""
    with faulty_disk(seed=fault.nth) as disk:
        disk.arm(fault)
        script = await work(disk, made(folder) / "log.db")
        fired = disk.fired
        disk.arm(None)
        left = disk.lose_power(folder / "left")
    assert await lost_from(left / "log.db", script.told) == []
    assert await lost_from(folder / "log.db", script.told) == []
    await check_going_on(folder / "log.db", script)
    for text in script.errors:
        assert_clear(text)
    return fired > 0


async def check_going_on(path: Path, before: Script) -> None:
    """Once the disk works, the same keys give the same receipts, and the rest is recorded."""
    after = Script()
    store = await after.open(path)
    assert store is not None
    await after.run(store, KEYS)
    await store.close()
    assert after.errors == []
    assert list(after.told) == KEYS
    for key, receipt in before.told.items():
        assert (after.told[key].position, after.told[key].message_id) == (receipt.position, receipt.message_id)


def assert_clear(text: str) -> None:
    """It has a next step, and nothing of the driver's insides."""
    assert any(step in text for step in NEXT_STEPS), text
    assert "Error(" not in text
    assert "()" not in text


@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("kind", ERRORS)
@sizes(short=3, full=None)
async def test_nothing_acknowledged_is_lost_whichever_access_fails(
    tmp_path: Path, size: int | None, kind: str, for_ever: bool
) -> None:
    """With `make crash` each access, until there is none left to fail; else some that chance picks."""
    found = (await accesses(tmp_path / "none"))[kind]
    assert found > 0
    # The first is there in any case. How many reads there are depends on the clock, by which the log is looked at.
    chosen = count(1) if size is None else [1, *random.sample(range(2, found + 1), min(size, found) - 1)]
    met = 0
    for nth in chosen:
        print(f"{kind} {nth} of some {found}")  # noqa: T201  # pytest shows it when the test fails
        if await meet(tmp_path / str(nth), Fault(kind=kind, nth=nth, for_ever=for_ever)):
            met += 1
        elif size is None:
            break
    assert met >= (1 if size is not None else found // 2)

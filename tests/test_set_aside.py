"""Setting a message aside is recorded in the log, needs no state, and is known to whoever reads the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from journeyman.errors import Conflict, Invalid, Outdated, Poisoned, Rejected
from journeyman.set_aside import NAME, MessageSetAside, codec, read_set_asides, set_aside
from journeyman.store import Store, open_store
from journeyman.store.base import MessageLog
from journeyman.store.memory import MemoryLog
from journeyman.testing.records import make_records
from journeyman.timing import SYSTEM_TIMING


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store("memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'log.db'}")
    yield opened
    await opened.close()


async def decide(log: MessageLog, position: int, reason: str = "it can't be read") -> int:
    return await set_aside(log, position, reason=reason, actor="ann", recorded_at_us=1, new_id=SYSTEM_TIMING.new_id)


async def test_the_decision_is_a_message_that_says_who_and_why(store: Store) -> None:
    records = make_records(3)
    await store.log.append(records, after=0)
    assert await decide(store.log, 2) == 4
    (record,) = await store.log.read(3, 10)
    assert (record.name, record.actor, record.causation_id) == (NAME, "ann", records[1].id)
    assert codec.decode(record).body == MessageSetAside(position=2, reason="it can't be read")


async def test_all_decisions_of_the_log_are_read_wherever_they_are(store: Store) -> None:
    assert await read_set_asides(store.log) == frozenset()
    await store.log.append(make_records(5), after=0)
    for position in (4, 1, 4):
        await decide(store.log, position)
    await store.log.append(make_records(1, after=8), after=8)
    await decide(store.log, 9)
    assert await read_set_asides(store.log) == {1, 4, 9}


async def test_more_decisions_than_one_read_gives_are_read_all() -> None:
    log = MemoryLog()
    bodies = [codec.encode(MessageSetAside(position=position, reason="r")) for position in range(1, 1202)]
    records = [make_records(1, after=after, name=NAME, body=body)[0] for after, body in enumerate(bodies)]
    await log.append(records[:1000], after=0)
    await log.append(records[1000:], after=1000)
    assert await read_set_asides(log) == set(range(1, 1202))


@pytest.mark.parametrize("position", [-1, 0, 3])
async def test_a_message_that_is_not_there_is_refused(store: Store, position: int) -> None:
    await store.log.append(make_records(2), after=0)
    with pytest.raises(Rejected, match=f"no message at position {position}; the log ends at 2"):
        await decide(store.log, position)
    assert await store.log.head() == 2


async def test_a_decision_itself_stays(store: Store) -> None:
    await store.log.append(make_records(1), after=0)
    await decide(store.log, 1)
    with pytest.raises(Rejected, match="itself a decision"):
        await decide(store.log, 2)


@pytest.mark.parametrize("reason", ["", "x" * 1001])
async def test_a_reason_is_asked_for_in_bounds(store: Store, reason: str) -> None:
    await store.log.append(make_records(1), after=0)
    with pytest.raises(Invalid, match="length"):
        await decide(store.log, 1, reason)
    assert await store.log.head() == 1


async def test_many_may_decide_while_others_write(store: Store) -> None:
    async def write() -> None:
        for _ in range(20):
            try:
                head = await store.log.head()
                await store.log.append(make_records(1, after=head), after=head)
            except Conflict:
                continue

    await store.log.append(make_records(5), after=0)
    decisions = [decide(store.log, position) for position in range(1, 6)]
    await asyncio.gather(write(), *decisions, write())
    assert await read_set_asides(store.log) == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("version", "body", "kind"), [(1, b"{}", Poisoned), (2, b"{}", Outdated)])
async def test_a_decision_that_can_not_be_read_is_never_passed_over(
    version: int, body: bytes, kind: type[Exception]
) -> None:
    log = MemoryLog()
    records = make_records(3, name=NAME, body=codec.encode(MessageSetAside(position=1, reason="r")))
    records[1] = msgspec.structs.replace(records[1], version=version, body=body)
    await log.append(records, after=0)
    with pytest.raises(kind, match=f"at position 2 \\({NAME}\\)"):
        await read_set_asides(log)

"""Whatever is executed in whatever order while appends fail: what was acknowledged is the log, and replay agrees."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman import App, ApplyFailed, Busy, Command, JourneymanError, NotReady, OutcomeUnknown, Receipt, Rejected
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import Fault, FaultyStore, lose_reply, lose_request, refuse, work
from tests.notes import HASTY, Break, Change, Create, List, everything, overtake, replayed_hash, running

LIMITS = msgspec.structs.replace(HASTY, stall_s=1000, settle_s=0.005, pause_s=0.001, conflict_s=1000)

note_ids = st.sampled_from("abc")
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Create, note_id=note_ids),
    st.builds(Change, note_id=note_ids, text=st.sampled_from(["x", "y"])),
    st.just(Break(at="apply")),
)
keyed = st.tuples(commands, st.none() | st.sampled_from(["k", "l"]))
groups = st.lists(st.lists(keyed, min_size=1, max_size=6), min_size=1, max_size=6)
faults = st.lists(st.sampled_from(["work", "refuse", "lose reply", "lose request", "overtake", "unknown"]), max_size=12)


@dataclass
class Told:
    """What callers were told, by the command."""

    receipts: list[tuple[Command, Receipt]] = field(default_factory=list)
    refused: list[tuple[Command, JourneymanError]] = field(default_factory=list)
    unknown: int = 0


@given(groups=groups, script=faults)
@settings(max_examples=150, deadline=None)
def test_what_was_acknowledged_is_what_the_log_has(
    groups: list[list[tuple[Command, str | None]]], script: list[str]
) -> None:
    asyncio.run(execute_all(groups, script))


async def execute_all(groups: list[list[tuple[Command, str | None]]], script: list[str]) -> None:
    store, told = FaultyStore(MemoryStore()), Told()
    async with running(store, limits=LIMITS) as app:
        for number, name in enumerate(script):
            for fault in scripted(store, name, number):
                store.faulty_log.fail_next(fault)
        for group in groups:
            await asyncio.gather(*(execute(app, command, key, told) for command, key in group))
        await check(app, store, told)


def scripted(store: FaultyStore, name: str, number: int) -> list[Fault]:
    simple = {"work": work, "refuse": refuse, "lose reply": lose_reply, "lose request": lose_request}
    if name == "overtake":
        return [overtake(store.faulty_log, f"elsewhere {number}")]
    if name == "unknown":
        return [lose_reply, *[lose_request] * 3]
    return [simple[name]]


async def execute(app: App, command: Command, key: str | None, told: Told) -> None:
    try:
        told.receipts.append((command, await app.execute(command, idempotency_key=key)))
    except (Rejected, ApplyFailed) as error:
        told.refused.append((command, error))
    except (NotReady, Busy):
        return
    except OutcomeUnknown:
        told.unknown += 1


async def check(app: App, store: FaultyStore, told: Told) -> None:
    records = await everything(store)
    first = [receipt for _, receipt in told.receipts if not receipt.repeated]
    acknowledged = {receipt.message_id: receipt.position for receipt in first}
    assert len(acknowledged) == len(first), "no message is acknowledged as new twice"
    here = {record.id: record.position for record in records if not (record.subject or "").startswith("elsewhere")}
    assert acknowledged.items() <= here.items()
    assert len(here) - len(acknowledged) <= told.unknown, "what is not acknowledged was told as unknown"
    for command, receipt in told.receipts:
        record = records[receipt.position - 1]
        assert (record.id, record.body) == (receipt.message_id, app.catalog.codec.encode(command))
    for command, error in told.refused:
        assert isinstance(error, ApplyFailed) or refusal_is_right(command, error, [r.body for r in records], app)
    assert await settled_hash(app, len(records)) == await replayed_hash(store)


def refusal_is_right(command: Command, error: JourneymanError, bodies: list[bytes], app: App) -> bool:
    """Judged against the log up to the position that the refusal carries, it is the right answer."""
    assert isinstance(error, Rejected)
    assert error.position is not None
    if "idempotency key" in error.reason:
        return True
    creations = [app.catalog.codec.encode(Create(note_id=name)) for name in "abc"]
    there = {name for name, body in zip("abc", creations, strict=True) if body in bodies[: error.position]}
    match command:
        case Create(note_id=note_id):
            return note_id in there
        case Change(note_id=note_id):
            return note_id not in there
    return False


async def settled_hash(app: App, position: int) -> str:
    await app.query(List(), at_least=position)
    return await app.state_hash()

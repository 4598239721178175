"""What is counted at once is what would have been counted one by one; each outcome of a command is counted once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from journeyman import App, Command, Feature, Message, Rejected, State
from journeyman.errors import ApplyFailed, Busy, Invalid, NotReady, OutcomeUnknown, UnknownName
from journeyman.executor import Limits
from journeyman.meter import BATCH_SIZES, SECONDS, Distribution
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held, refuse


def one_by_one(starts: list[float], now: float) -> Distribution:
    found = Distribution(SECONDS)
    for start in starts:
        found.add(now - start)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_many_durations_are_counted_like_each_of_them(seed: int) -> None:
    chance = random.Random(seed)
    now = chance.uniform(0, 1e6)
    starts = sorted(now - chance.choice([0.0, chance.expovariate(100), chance.expovariate(0.1)]) for _ in range(300))
    at_once = Distribution(SECONDS)
    at_once.add_since(starts, now)
    each = one_by_one(starts, now)

    assert at_once.counts == each.counts
    assert at_once.sum == pytest.approx(each.sum, rel=1e-6)
    assert sum(at_once.counts) == 300


def test_a_value_at_a_bound_is_not_above_it() -> None:
    single, at_once = Distribution((0.25, 0.5, 1.0)), Distribution((0.25, 0.5, 1.0))
    single.add(0.5)
    at_once.add_since([0.0], 0.5)
    assert single.counts == at_once.counts == [0, 1, 0, 0]


def make_app(limits: Limits = Limits()) -> tuple[App, Callable[..., Command]]:
    desk = Feature("desk", state=State)

    @desk.command("note")
    class Note(Command):
        text: str = ""

        def validate(self, state: State, message: Message[Note]) -> None:
            if self.text == "no":
                raise Rejected("No.")

        def apply(self, state: State, message: Message[Note]) -> None:
            if self.text == "break":
                raise RuntimeError("broken")

    return App(features=[desk], limits=limits), Note


async def test_each_outcome_is_counted_once() -> None:
    app, note = make_app()
    store = FaultyStore(MemoryStore())
    async with app.running(store):
        await asyncio.gather(*(app.execute(note(text=str(number))) for number in range(50)))
        for _ in range(2):
            await app.execute(note(text="k"), idempotency_key="k")
        for text, kind in (("no", Rejected), ("break", ApplyFailed)):
            with pytest.raises(kind):
                await app.execute(note(text=text))
        with pytest.raises(Invalid):
            await app.execute(note(text=7))
        store.faulty_log.fail_next(refuse)
        with pytest.raises(NotReady):
            await app.execute(note(text="x"))
        with pytest.raises(UnknownName):
            await app.execute(make_app()[1]())

    assert {(name, outcome): count for (name, outcome), count in app.meter.commands.items() if count} == {
        ("desk/note", "recorded"): 51,
        ("desk/note", "repeated"): 1,
        ("desk/note", "rejected"): 1,
        ("desk/note", "broken"): 1,
        ("desk/note", "invalid"): 1,
        ("desk/note", "not recorded"): 1,
        ("unknown", "invalid"): 1,
    }
    assert sum(app.meter.command_s.counts) == 51 + 3, "those whose outcome is of the store's making are not timed"
    assert app.meter.append_messages.sum == 51
    assert sum(app.meter.append_messages.counts) == sum(app.meter.append_s.counts) <= len(BATCH_SIZES) * 51


async def test_a_stalled_store_is_counted_as_busy_and_unknown() -> None:
    app, note = make_app(Limits(stall_s=0.01, append_s=0.1, settle_s=0.1))
    store = FaultyStore(MemoryStore())
    async with app.running(store):
        held = store.faulty_log.fail_next(Held())
        first = asyncio.create_task(app.execute(note()))
        await held.arrived.wait()
        while app.stalled_s is None:  # noqa: ASYNC110  # what stalls sets no event
            await asyncio.sleep(0.001)
        with pytest.raises(Busy):
            await app.execute(note())
        store.faulty_log.fail_others(refuse)
        with pytest.raises(OutcomeUnknown):
            await first
        held.release()
        await held.ended.wait()

    assert app.meter.commands["desk/note", "busy"] == 1
    assert app.meter.commands["desk/note", "unknown"] == 1
    assert app.meter.commands["desk/note", "recorded"] == 0

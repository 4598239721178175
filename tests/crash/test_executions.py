"""Executions that broke earlier drafts, where no other test has them. The table of all of them is in README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from journeyman import App, Command, Feature, Poisoned, State
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore
from tests.notes import Create, everything, notes, overtake, subjects

CONFLICTS = 45


async def test_45_conflicts_in_a_row_are_normal() -> None:
    """Retrying is bounded by time and not by count, so that a writer among many is not told Busy. In default limits."""
    store = FaultyStore(MemoryStore())
    for number in range(CONFLICTS):
        store.faulty_log.fail_next(overtake(store.faulty_log, str(number)))
    async with App(features=[notes]).running(store) as app:
        receipt = await app.execute(Create(note_id="mine"))
    assert receipt.position == CONFLICTS + 1
    assert subjects(await everything(store)) == [*map(str, range(CONFLICTS)), "mine"]


def shop(order: type[Command], *, version: int = 1) -> Feature[State]:
    feature = Feature("shop", state=State)
    feature.command("order", version=version)(order)
    if version == 2:
        feature.upcast("order", to=2)(lambda body: {"text": body["text"][:10]})
    return feature


class Order(Command):
    text: Annotated[str, Meta(max_length=100)]


class ShortOrder(Command):
    text: Annotated[str, Meta(max_length=10)]


async def test_a_lowered_max_length_stops_the_start_at_the_first_message_that_is_too_long(tmp_path: Path) -> None:
    """Until it is a new version with an upcaster, as the schema check asks for before."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    async with App(features=[shop(Order)]).running(url) as app:
        for text in ("short", "x" * 50):
            await app.execute(Order(text=text))
    with pytest.raises(Poisoned, match=r"position 2 \(shop/order\).*log set-aside 2 --reason"):
        await App(features=[shop(ShortOrder)]).start(url)
    async with App(features=[shop(ShortOrder, version=2)]).running(url) as app:
        assert app.position == 2

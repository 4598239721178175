"""Time travel gives what a fresh replay gives, says what changed, is bounded, and leaves the live state alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from journeyman import App, Busy, NotFound, Record
from journeyman.doors.console import past as past_module
from journeyman.doors.console.changes import TOLD_MAX, TableChanges, changes_between
from journeyman.doors.console.past import KEPT_MAX, Moment, Past, Travel
from journeyman.replica import Replica
from journeyman.store.memory import MemoryStore
from journeyman.tables import AppState
from journeyman.todo.ledger import JobLedger
from tests.doors.console.histories import live, opened, submit, whole_log
from tests.todo.desk import Note


async def arrived(past: Past, position: int, since: int | None = None) -> Travel:
    travel = await past.arrive(Moment(position, since), timeout_s=30)
    assert travel.standing == "done", travel.error
    return travel


def replayed(app: App, records: list[Record]) -> AppState:
    replica = Replica(MemoryStore().log, app.catalog, [JobLedger(app.todo_workers)])
    replica.replay(records)
    return replica.state


def all_rows(state: AppState) -> dict[tuple[str, str], dict[Any, Any]]:
    return {
        (feature, name): dict(table.items())
        for feature, one in state.features.items()
        for name, table in one.tables().items()
    }


@pytest.mark.parametrize("with_snapshot", [False, True])
async def test_a_past_state_is_what_a_fresh_replay_to_there_gives(tmp_path: Path, *, with_snapshot: bool) -> None:
    async with opened(f"sqlite:///{tmp_path}/desk.db") as app:
        await live(app, 4, steps=150)
        if with_snapshot:
            await app.take_snapshot()
        snapshot_at = app.position
        await live(app, 5, steps=150)
        records, before, past = await whole_log(app), await app.state_hash(), Past(app)
        for position in (0, 1, 17, snapshot_at, snapshot_at + 20, len(records)):
            travel = await arrived(past, position)
            assert travel.state is not None
            assert travel.state.hash() == replayed(app, records[:position]).hash()
            assert travel.began_at == (snapshot_at if with_snapshot and position >= snapshot_at else 0)
        assert await app.state_hash() == before
        assert app.position == len(records)
        await past.stop()


async def test_what_changed_is_what_a_look_at_every_row_finds() -> None:
    async with opened() as app:
        await live(app, 6, steps=300)
        records, past, chance = await whole_log(app), Past(app), random.Random(6)
        for _ in range(6):
            since, until = sorted(chance.sample(range(len(records) + 1), 2))
            travel = await arrived(past, until, since)
            before, after = (all_rows(replayed(app, records[:position])) for position in (since, until))
            for told in travel.changes:
                _check(told, before[told.feature, told.table], after[told.feature, told.table])
        await past.stop()


def _check(told: TableChanges, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> None:
    expected = {key: (before.get(key), after.get(key)) for key in before.keys() | after.keys()}
    different = {key for key, (then, now) in expected.items() if then != now}
    assert {change.key for change in told.rows} == different
    assert (told.added, told.removed) == (len(after.keys() - before.keys()), len(before.keys() - after.keys()))
    assert told.total == len(different)
    for change in told.rows:
        then, now = expected[change.key]
        for field in change.fields:
            assert (field.before, field.after) == (getattr(then, field.field, None), getattr(now, field.field, None))
        if change.what == "changed":
            assert all(field.before != field.after for field in change.fields)


def test_of_many_changed_rows_the_first_are_told_and_all_are_counted() -> None:
    told = changes_between("shop", "orders", {}, {number: Note(text="x") for number in range(TOLD_MAX + 50)})

    assert (told.added, len(told.rows)) == (TOLD_MAX + 50, TOLD_MAX)
    assert [change.key for change in told.rows] == list(range(TOLD_MAX))


async def test_one_is_computed_at_a_time_and_few_are_kept() -> None:
    async with opened() as app:
        await live(app, 1, steps=100)
        past = Past(app)
        past.travel(Moment(10))
        with pytest.raises(Busy):
            past.travel(Moment(11))
        for position in range(10, 20):
            await arrived(past, position)
        kept = [position for position in range(10, 20) if past.find(Moment(position)) is not None]
        await past.stop()

    assert kept == list(range(20 - KEPT_MAX, 20))


async def test_it_can_be_cancelled_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "STEP", 1)
    async with opened() as app:
        await live(app, 1, steps=200)
        past, moment = Past(app), Moment(app.position)
        travel = past.travel(moment)
        async with asyncio.timeout(30):
            while travel.reached == 0:  # noqa: ASYNC110  # a thread moves it
                await asyncio.sleep(0)
        assert 0 < travel.share < 1
        past.cancel(moment)
        await past.stop()

    assert (travel.standing, travel.state) == ("cancelled", None)


async def test_too_many_rows_are_refused_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past_module, "ROWS_MAX", 3)
    async with opened() as app:
        await live(app, 1, steps=200)
        past, moment = Past(app), Moment(app.position)
        travel = await past.arrive(moment, timeout_s=30)
        assert travel.standing == "failed"
        assert "at most 3" in (travel.error or "")
        assert past.travel(moment) is travel
        assert past.travel(moment) is not travel  # The next one tries again.
        await past.stop()


async def test_positions_that_the_log_does_not_have_are_refused() -> None:
    async with opened() as app:
        await submit(app, Note(text="x"))
        past = Past(app)
        for moment in (Moment(2), Moment(0, 1), Moment(1, -1)):
            with pytest.raises(NotFound, match="positions 0 to 1"):
                past.travel(moment)

"""A start from a snapshot gives what the log gives, and whatever is in doubt is not taken."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from journeyman import App, Command, Feature, Message, Record, State, Store, Table
from journeyman.errors import DefinitionError
from journeyman.fingerprint import fingerprint
from journeyman.replica import Replica
from journeyman.running import Running
from journeyman.set_aside import set_aside
from journeyman.snapshots import KEPT
from journeyman.store.memory import MemoryStore
from journeyman.timing import SYSTEM_TIMING
from tests.notes import Change, Create, List, notes
from tests.todo.desk import Ask, Desk, answered, desk, idle, until


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def notes_app(**options: Any) -> App:
    return App(features=[notes], **options)


async def fill(store: Store, count: int, *, first: int = 0) -> None:
    async with notes_app(snapshot_every=None).running(store) as app:
        await asyncio.gather(*(app.execute(Create(note_id=str(first + n), text="x")) for n in range(count)))


async def kept(store: Store) -> list[int]:
    """The positions of the snapshots that are there."""
    return [int(name.split("-")[1]) for name in await store.blobs.sizes()]


async def until_kept(store: Store, positions: list[int]) -> None:
    while await kept(store) != positions:  # noqa: ASYNC110  # a file that appears sets no event
        await asyncio.sleep(0.01)


async def hash_without_snapshot(store: Store) -> str:
    async with notes_app(snapshot_every=None).running(store) as app:
        return await app.state_hash()


async def applied_at_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions that a start applies."""
    applied: list[int] = []
    real = Replica.replay

    def spy(self: Replica, records: Sequence[Record]) -> None:
        applied.extend(record.position for record in records if record.position not in self._set_asides)
        real(self, records)

    with monkeypatch.context() as patch:
        patch.setattr(Replica, "replay", spy)
        async with notes_app().running(store) as app:
            assert await app.state_hash() == await hash_without_snapshot_of(store, patch, real)
    return applied


async def hash_without_snapshot_of(store: Store, patch: pytest.MonkeyPatch, real: Any) -> str:
    patch.setattr(Replica, "replay", real)
    return await hash_without_snapshot(store)


async def test_a_start_applies_only_what_is_behind_the_snapshot(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 50)
    async with notes_app().running(store) as app:
        info = await app.take_snapshot()
        assert info.position == 50
        await app.execute(Change(note_id="1", text="y"))
        await app.execute(Create(note_id="new"))
    assert await applied_at_start(store, monkeypatch) == [51, 52]


async def test_jobs_and_keys_are_part_of_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'desk.db'}"
    async with App(features=[desk], workers=[Desk()]).running(url, workers=False) as app:
        first = await app.execute(Ask(key="a"), idempotency_key="k")
        await app.execute(Ask(key="b", subject="s"))
        await app.execute(Ask(key="c", subject="s"))
        before = await app.state_hash()
        await app.take_snapshot()
    async with App(features=[desk], workers=[Desk()]).running(url) as app:
        assert (await app.execute(Ask(key="a"), idempotency_key="k")).message_id == first.message_id
        await until(app, answered("a", "b", "c"))
        await until(app, idle)
    assert before


async def test_one_is_taken_by_itself_after_so_many_messages(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journeyman.running.SNAPSHOT_LOOK_S", 0.01)
    await fill(store, 30)
    async with notes_app(snapshot_every=20).running(store) as app, asyncio.timeout(20):
        await until_kept(store, [30])
        await asyncio.gather(*(app.execute(Create(note_id=f"more {n}")) for n in range(19)))
        await asyncio.sleep(0.1)
        assert await kept(store) == [30]
        await app.execute(Create(note_id="one more"))
        await until_kept(store, [30, 50])


async def test_only_the_newest_are_kept(store: MemoryStore) -> None:
    await fill(store, 1)
    async with notes_app().running(store) as app:
        for number in range(KEPT + 2):
            await app.execute(Create(note_id=f"new {number}"))
            await app.take_snapshot()
        assert await kept(store) == list(range(4, KEPT + 4))


@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "empty", "another layout"])
async def test_a_damaged_one_is_deleted_and_the_log_is_applied(
    damage: str, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await fill(store, 10)
    async with notes_app().running(store) as app:
        info = await app.take_snapshot()
    data = bytearray(await store.blobs.load(info.name) or b"")
    match damage:
        case "a flipped bit":
            data[len(data) // 2] ^= 1
        case "cut short":
            del data[-100:]
        case "empty":
            data.clear()
        case _:
            data = data.replace(b'"layout":1', b'"layout":9')
    await store.blobs.save(info.name, [bytes(data)])
    with caplog.at_level(logging.WARNING):
        assert await applied_at_start(store, monkeypatch) == list(range(1, 11))
    assert "is not used, and deleted" in caplog.text
    assert await kept(store) == []


async def test_one_of_another_log_is_not_taken(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, 10)
    async with notes_app().running(store) as app:
        info = await app.take_snapshot()
    other = MemoryStore()
    await fill(other, 10, first=5)
    await other.blobs.save(info.name, [await store.blobs.load(info.name) or b""])
    assert await applied_at_start(other, monkeypatch) == list(range(1, 11))


async def test_one_beyond_the_end_of_a_restored_log_is_not_taken(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 10)
    async with notes_app().running(store) as app:
        info = await app.take_snapshot()
    restored = MemoryStore()
    await restored.log.append(await store.log.read(0, 5), after=0)
    await restored.blobs.save(info.name, [await store.blobs.load(info.name) or b""])
    assert await applied_at_start(restored, monkeypatch) == [1, 2, 3, 4, 5]


async def test_one_from_before_a_message_was_set_aside_is_not_taken(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, 10)
    async with notes_app().running(store) as app:
        await app.take_snapshot()
    await set_aside(store.log, 3, reason="wrong", actor=None, recorded_at_us=1, new_id=SYSTEM_TIMING.new_id)
    assert 3 not in await applied_at_start(store, monkeypatch)
    async with notes_app().running(store) as app:
        assert await app.state(lambda state: len(notes.of(state.features["notes"]).notes)) == 9
        await app.take_snapshot()
    assert await applied_at_start(store, monkeypatch) == []


async def test_one_of_other_code_is_left_to_it(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(store, 10)
    async with notes_app(code_version="2").running(store) as app:
        await app.take_snapshot()
    assert await applied_at_start(store, monkeypatch) == list(range(1, 11))
    assert await kept(store) == [10]


async def test_snapshots_that_can_not_be_read_cost_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path / 'notes.db'}"
    async with notes_app().running(url) as app:
        await app.execute(Create(note_id="a"))
        info = await app.take_snapshot()
    [path] = tmp_path.glob("*blob*")  # noqa: ASYNC240
    path.unlink()
    path.mkdir()
    async with notes_app().running(url) as app:
        assert await app.query(List()) == ("a",)
    assert "applied from its beginning" in caplog.text
    assert info.current


class Odd(msgspec.Struct, frozen=True):
    number: int


class OddState(State):
    odds: Table[int, Odd] = Table(Odd, key="number")


odd = Feature("odd", state=OddState)


@odd.command("put")
class PutOdd(Command):
    def apply(self, state: OddState, message: Message[Any]) -> None:
        state.odds.put(Odd("one"))  # type: ignore[arg-type]  # a Struct that is made in Python is not checked


async def test_rows_that_would_not_come_back_are_never_kept(store: MemoryStore) -> None:
    async with App(features=[odd]).running(store) as app:
        await app.execute(PutOdd())
        with pytest.raises(TypeError, match="odds has a row that does not fit Odd"):
            await app.take_snapshot()
        assert await kept(store) == []


async def test_commands_go_on_while_one_is_taken(store: MemoryStore) -> None:
    await fill(store, 1000)
    async with notes_app().running(store) as app:
        taking = asyncio.create_task(app.take_snapshot())
        receipts = [await app.execute(Create(note_id=f"meanwhile {n}")) for n in range(20)]
        info = await taking
        assert info.position <= receipts[0].position
        assert receipts[-1].position == 1020


# Whose code it is.


def test_the_fingerprint_is_the_same_in_every_process_of_one_code() -> None:
    first, second = (fingerprint(notes_app().catalog, [Desk]) for _ in range(2))
    assert first == second is not None


def test_the_fingerprint_tells_other_workers_features_and_versions() -> None:
    catalog = notes_app().catalog
    found = {
        fingerprint(catalog, []),
        fingerprint(catalog, [Desk]),
        fingerprint(catalog, [], code_version="2"),
        fingerprint(App(features=[notes, desk]).catalog, []),
    }
    assert len(found) == 4


@pytest.mark.parametrize("packaged", [True, False])
def test_the_fingerprint_tells_a_change_of_any_source_beside(
    packaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop_under_test" if packaged else tmp_path
    folder.mkdir(exist_ok=True)
    name = "shop_under_test.rows" if packaged else "rows_under_test"
    (folder / "__init__.py").touch()
    (folder / "helper.py").write_text("RATE = 1\n")
    (folder / ("rows.py" if packaged else "rows_under_test.py")).write_text(
        "from journeyman import Feature, State\n\nclass S(State):\n    pass\n\nshop = Feature('shop', state=S)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(name, fromlist=["shop"])
    catalog = App(features=[module.shop]).catalog
    before = fingerprint(catalog, [])
    (folder / "helper.py").write_text("RATE = 2\n")
    assert before != fingerprint(catalog, []) is not None


def test_without_source_there_is_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typed_in", ModuleType("typed_in"))
    typed_in = type("TypedIn", (State,), {"__module__": "typed_in"})
    assert fingerprint(App(features=[Feature("shop", state=typed_in)]).catalog, []) is None


async def test_an_application_without_source_says_why_it_takes_none(store: MemoryStore) -> None:
    async with notes_app().running(store) as app:
        running: Running = app._now_running()
        running.snapshots = None
        with pytest.raises(DefinitionError, match="source is not to be found"):
            await app.take_snapshot()

"""A copy is the log, message for message; what is stopped goes on; nothing is written into another log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from journeyman.errors import NotReady, WrongLog
from journeyman.message import BODY_BYTES_MAX, Record
from journeyman.store import Store, open_store
from journeyman.store.base import BATCH_BYTES_MAX
from journeyman.store.copying import Stage, copy_log
from journeyman.store.memory import MemoryStore
from journeyman.testing.contract import everything, fill
from journeyman.testing.faults import Append, Fault, FaultyStore, lose_reply, lose_request, refuse, work
from journeyman.testing.records import make_records


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(f"sqlite:///{tmp_path / 'copy.db'}")
    yield store
    await store.close()


async def source_of(count: int) -> MemoryStore:
    store = MemoryStore()
    for after in range(0, count, 500):
        await fill(store, min(500, count - after), after=after)
    return store


def script(store: FaultyStore, *faults: Fault) -> None:
    for fault in faults:
        store.faulty_log.fail_next(fault)


async def test_a_copy_has_every_field_of_every_message(target: Store) -> None:
    source = await source_of(2_500)
    full = Record(
        2_501, "id", "posts/set", 3, "p", b"\x00{}", 7, "correlation", "causation", "ann", "key", 12, b'{"error":"x"}'
    )
    await source.log.append([full], after=2_500)
    copied = await copy_log(source, target)
    assert (copied.messages, copied.copied) == (2_501, 2_501)
    assert await everything(target) == await everything(source)


async def test_what_is_copied_already_is_not_copied_again_and_what_came_since_is(target: Store) -> None:
    source = await source_of(700)
    first = await copy_log(source, target)
    again = await copy_log(source, target)
    assert (again.copied, again.digest) == (0, first.digest)
    await fill(source, 5, after=700)
    after = await copy_log(source, target)
    assert (after.copied, after.messages) == (5, 705)
    assert after.digest != first.digest
    assert await everything(target) == await everything(source)


async def test_a_copy_that_was_stopped_goes_on_where_it_was(target: Store) -> None:
    source, faulty = await source_of(2_500), FaultyStore(target)
    script(faulty, work, refuse)
    with pytest.raises(NotReady):
        await copy_log(source, faulty)
    assert await target.log.head() == 1_000
    assert (await copy_log(source, target)).copied == 1_500
    assert await everything(target) == await everything(source)


async def test_appends_without_an_answer_are_settled(target: Store) -> None:
    source, faulty = await source_of(2_500), FaultyStore(target)
    script(faulty, lose_reply, lose_request, work, lose_request, lose_reply)
    assert (await copy_log(source, faulty)).copied == 2_500
    assert await everything(target) == await everything(source)


async def test_a_batch_is_cut_where_its_bodies_are_large(target: Store) -> None:
    source = MemoryStore()
    for after in range(2 * BATCH_BYTES_MAX // BODY_BYTES_MAX + 1):
        await source.log.append(make_records(1, after=after, body=b"x" * BODY_BYTES_MAX), after=after)
    copied = await copy_log(source, target)
    assert copied.copied == await source.log.head()


@pytest.mark.parametrize("differs_at", [1, 1_200])
async def test_nothing_is_written_into_a_log_that_is_no_copy(differs_at: int, target: Store) -> None:
    source = await source_of(2_000)
    records = (await everything(source))[:1_500]
    records[differs_at - 1] = msgspec.structs.replace(records[differs_at - 1], actor="somebody")
    for after in range(0, 1_500, 500):
        await target.log.append(records[after : after + 500], after=after)
    with pytest.raises(WrongLog, match=f"another message at position {differs_at} than memory:"):
        await copy_log(source, target)
    assert await target.log.head() == 1_500


async def test_a_longer_log_is_no_copy(target: Store) -> None:
    source = await source_of(10)
    await copy_log(source, target)
    await fill(target, 1, after=10)
    with pytest.raises(WrongLog, match=r"has 11 messages, memory: only 10.*the other way round"):
        await copy_log(source, target)


async def test_somebody_else_who_appends_meanwhile_is_told_of(target: Store) -> None:
    source, faulty = await source_of(1_500), FaultyStore(target)

    async def overtake(append: Append) -> None:
        await fill(target, 1, after=1_000)
        await append()

    script(faulty, work, overtake)
    with pytest.raises(WrongLog, match="Somebody else appends"):
        await copy_log(source, faulty)


async def test_what_the_target_gives_back_is_compared(target: Store) -> None:
    """A store that changes a byte is found out, whatever it said when it was given the message."""

    source, faulty = await source_of(10), FaultyStore(target)
    read = target.log.read

    async def changed(after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return [msgspec.structs.replace(record, recorded_at_us=0) for record in await read(after, limit, name=name)]

    faulty.faulty_log.read = changed  # type: ignore[method-assign]
    with pytest.raises(WrongLog, match="gives back other messages"):
        await copy_log(source, faulty)


async def test_progress_goes_through_the_stages_to_their_ends(target: Store) -> None:
    source = await source_of(2_500)
    told: list[tuple[Stage, int, int]] = []
    await copy_log(source, target, progress=lambda *what: told.append(what))
    assert [stage for stage, _, _ in told] == ["copying"] * 3 + ["verifying"] * 3
    assert told[2] == ("copying", 2_500, 2_500)
    told.clear()
    await copy_log(source, target, progress=lambda *what: told.append(what))
    assert {stage for stage, _, _ in told} == {"comparing", "verifying"}

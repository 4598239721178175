"""The index says what a plain reading of the log says, and is made again when there is any doubt that it does."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import apsw
import msgspec
import pytest

from journeyman import App, Record
from journeyman.doors.console.index.file import Place, connect_to_read, connect_to_write
from journeyman.doors.console.index.follower import Index
from journeyman.doors.console.index.job_effects import ATTEMPT_ENDS, OVER, JobEffects
from journeyman.doors.console.index.reader import Filter, IndexReader, JobEvent
from journeyman.doors.console.index.writer import LAYOUT, MINUTE_US, BuiltFor, IndexWriter
from journeyman.errors import NotAStore
from journeyman.set_aside import set_aside
from tests.doors.console.histories import (
    KEYS,
    WORKER,
    live,
    make_app,
    open_jobs_by_position,
    opened,
    start,
    submit,
    whole_log,
)
from tests.todo.desk import Answer, Ask, Note

T = TypeVar("T")

SEEDS = range(5)


def written(app: App, records: list[Record], *, seed: int = 0) -> tuple[IndexReader, IndexWriter]:
    """An index in memory of these records, added in batches of any size."""
    place = Place(f"file:/test-{uuid.uuid4()}?vfs=memdb", in_memory=True)
    writer = IndexWriter(connect_to_write(place), JobEffects(app.catalog, app.todo_workers))
    writer.begin_anew(BuiltFor(None, ()))
    chance, rest = random.Random(seed), list(records)
    while rest:
        size = chance.randint(1, 60)
        writer.add(rest[:size])
        rest = rest[size:]
    return IndexReader(connect_to_read(place)), writer


def history(reader: IndexReader) -> list[JobEvent]:
    events = [event for key in KEYS for event in reader.history(WORKER, key, limit=10_000)]
    return sorted(events, key=lambda event: event.position)


@pytest.mark.parametrize("seed", SEEDS)
async def test_jobs_open_and_end_where_the_ledger_opens_and_ends_them(seed: int) -> None:
    async with opened() as app:
        await live(app, seed, steps=600)
        records = await whole_log(app)
        reader, _ = written(app, records, seed=seed)

    expected = open_jobs_by_position(app, records)
    events = history(reader)
    is_open: dict[str, int | None] = {}
    told: list[dict[str, int | None]] = [{}]
    for record in records:
        for event in (event for event in events if event.position == record.position):
            assert (event.job in is_open) is (event.event != "opened")
            if event.event in OVER:
                del is_open[event.job]
            elif event.event == "started":
                is_open[event.job] = record.position
            elif event.event != "retried":
                is_open[event.job] = None
        told.append(dict(is_open))
    assert told == expected
    assert {event.event for event in events} >= {"opened", "started", "failed", "released", "lost", *OVER}


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_ends_an_attempt_names_where_it_began(seed: int) -> None:
    async with opened() as app:
        await live(app, seed, steps=300)
        reader, _ = written(app, await whole_log(app), seed=seed)

    running: dict[str, int] = {}
    for event in history(reader):
        if event.event in ATTEMPT_ENDS:
            assert event.fence == running.pop(event.job, None)
        elif event.event == "started":
            assert event.fence == event.position
            running[event.job] = event.position


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_filter_finds_what_a_look_at_every_message_finds(seed: int) -> None:
    async with opened() as app:
        await live(app, seed, steps=300)
        records = await whole_log(app)
        reader, _ = written(app, records, seed=seed)

    chance = random.Random(seed)
    for _ in range(150):
        wanted = _some_filter(chance, records)
        before = chance.choice([None, chance.randint(1, len(records) + 1)])
        found = reader.find(wanted, before=before, limit=20)
        fits = [record for record in records if _fits(wanted, record) and record.position < (before or 10**9)]
        assert [entry.position for entry in found] == [record.position for record in fits[::-1][:20]], wanted
        after = chance.randint(0, len(records))
        found = reader.find(wanted, after=after, limit=20)
        assert [entry.position for entry in found] == [
            one.position for one in records if _fits(wanted, one) and one.position > after
        ][:20], wanted


def _some_filter(chance: random.Random, records: list[Record]) -> Filter:
    one, other = chance.choice(records), chance.choice(records)
    since, until = sorted((one.recorded_at_us, other.recorded_at_us))
    has = chance.random
    return Filter(
        feature=chance.choice(["desk", "journeyman", "nothing"]) if has() < 0.3 else None,
        name=chance.choice([one.name, other.name, "desk/nothing"]) if has() < 0.3 else None,
        subject=chance.choice([one.subject, other.subject, "nothing"]) if has() < 0.3 else None,
        correlation_id=chance.choice([one.correlation_id, "nothing"]) if has() < 0.2 else None,
        since_us=since if has() < 0.3 else None,
        until_us=until if has() < 0.3 else None,
    )


def _fits(wanted: Filter, record: Record) -> bool:
    return (
        wanted.feature in (None, record.name.partition("/")[0])
        and wanted.name in (None, record.name)
        and wanted.subject in (None, record.subject)
        and wanted.correlation_id in (None, record.correlation_id)
        and (wanted.since_us or 0) <= record.recorded_at_us <= (wanted.until_us or 2**62)
    )


async def test_causes_and_effects_are_found_by_id() -> None:
    async with opened() as app:
        await live(app, 7, steps=300)
        records = await whole_log(app)
        reader, _ = written(app, records)

    position = {record.id: record.position for record in records}
    for record in records:
        assert reader.position_of(record.id) == record.position
        caused = [one.position for one in records if one.causation_id == record.id]
        assert [entry.position for entry in reader.effects(record.id, limit=1000)] == caused
        chain = [one for one in records if one.correlation_id == record.correlation_id]
        links = reader.chain(record.correlation_id, limit=1000)
        assert [(link.entry.position, link.cause) for link in links] == [
            (one.position, position.get(one.causation_id or "")) for one in chain
        ]
    assert reader.position_of("00000000-0000-7000-8000-000000000000") is None


async def test_ids_that_are_no_uuids_are_found_too() -> None:
    async with opened() as app:
        await submit(app, Note(text="x"))
        [record] = await whole_log(app)
    odd = msgspec.structs.replace(record, id="order 7", correlation_id="order 6", causation_id="abc")
    reader, _ = written(app, [odd])

    assert reader.position_of("order 7") == 1
    assert [entry.position for entry in reader.find(Filter(correlation_id="order 6"), limit=5)] == [1]
    assert [entry.position for entry in reader.effects("abc", limit=5)] == [1]


async def test_minutes_count_what_was_recorded_in_them_whatever_the_clocks_do() -> None:
    async with opened() as app:
        await live(app, 3, steps=300)
        records = await whole_log(app)
    chance, base = random.Random(3), 30_000_000 * MINUTE_US
    records = [msgspec.structs.replace(one, recorded_at_us=base + chance.randrange(10 * MINUTE_US)) for one in records]
    reader, _ = written(app, records)

    buckets = reader.buckets(until_us=base + 10 * MINUTE_US - 1, minutes=1, count=10)
    counted = Counter(record.recorded_at_us // MINUTE_US for record in records)
    assert [bucket.messages for bucket in buckets] == [counted[base // MINUTE_US + number] for number in range(10)]
    events = Counter(event.event for event in history(reader))
    assert sum(bucket.attempts for bucket in buckets) == events["started"]
    assert sum(bucket.answers for bucket in buckets) == events["answered"] + events["ended"]
    assert sum(bucket.failures for bucket in buckets) == events["failed"] + events["lost"]
    [wide] = reader.buckets(until_us=base + 10 * MINUTE_US - 1, minutes=10, count=1)
    assert wide.messages == len(records)
    late = Filter(since_us=base + 5 * MINUTE_US)
    assert len(reader.find(late, limit=1000)) == sum(one.recorded_at_us >= base + 5 * MINUTE_US for one in records)


async def test_a_batch_that_fails_leaves_nothing_behind() -> None:
    async with opened() as app:
        await live(app, 1, steps=200)
        records = await whole_log(app)
        half = len(records) // 2
        reader, writer = written(app, records[:half])
        writer._connection.set_commit_hook(lambda: True)  # As if the disk were full: the commit fails.
        with pytest.raises(apsw.ConstraintError):
            writer.add(records[half:])
        writer._connection.set_commit_hook(None)
        assert reader.position == half
        writer.add(records[half:])
        expected, _ = written(app, records)

    assert history(reader) == history(expected)
    assert reader.find(Filter(), limit=1000) == expected.find(Filter(), limit=1000)


# Kept up beside an application.


async def reached(index: Index, app: App) -> None:
    assert await index.until(app.position, timeout_s=30), await index.progress()


async def asked(index: Index, app: App, question: Callable[[IndexReader], T]) -> T:
    await reached(index, app)
    return await index.ask(question)


def url(folder: Path) -> str:
    return f"sqlite:///{folder}/desk.db"


async def test_it_follows_the_log_on_a_file_and_in_memory(tmp_path: Path) -> None:
    for store in (url(tmp_path), "memory:"):
        async with opened(store) as app:
            index = Index(app)
            await live(app, 2, steps=100)
            before = len(await asked(index, app, lambda reader: reader.find(Filter(), limit=1000)))
            await submit(app, Note(text="later"))
            after = await asked(index, app, lambda reader: reader.find(Filter(), limit=1000))
            await index.stop()
        assert (len(after), after[0].subject) == (before + 1, "later")
    assert (tmp_path / "desk.db-index").exists()


async def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as app:
        await live(app, 2, steps=100)
        index = Index(app)
        await reached(index, app)
        await index.stop()
        # Nothing of the log says so: only an index that is gone on with still has it.
        with apsw.Connection(f"{tmp_path}/desk.db-index") as connection:
            connection.execute("UPDATE messages SET actor = 'planted' WHERE position = 1")
        await submit(app, Note(text="later"))
        index = Index(app)
        found = await asked(index, app, lambda reader: reader.find(Filter(), after=0, limit=1))
        await index.stop()

    assert found[0].actor == "planted"


SPOILED = {
    "another last message": "UPDATE progress SET last_id = '00000000-0000-7000-8000-000000000000'",
    "another first message": "UPDATE progress SET first_id = '00000000-0000-7000-8000-000000000000'",
    "behind the head": "UPDATE progress SET position = position + 1000",
    "other code": "UPDATE progress SET built_for = '{}'",
    "another layout": f"PRAGMA user_version = {LAYOUT + 1}",
    "without a table": "DROP TABLE progress",
}


@pytest.mark.parametrize("how", SPOILED)
async def test_one_in_doubt_is_made_again(tmp_path: Path, how: str) -> None:
    async with opened(url(tmp_path)) as app:
        await live(app, 2, steps=100)
        index = Index(app)
        expected = await asked(index, app, lambda reader: (reader.find(Filter(), limit=1000), history(reader)))
        await index.stop()
        with apsw.Connection(f"{tmp_path}/desk.db-index") as connection:
            connection.execute("DELETE FROM messages WHERE position = 3")
            connection.execute(SPOILED[how])
        index = Index(app)
        found = await asked(index, app, lambda reader: (reader.find(Filter(), limit=1000), history(reader)))
        await index.stop()

    assert found == expected


async def test_a_damaged_file_is_replaced_and_an_absent_one_made(tmp_path: Path) -> None:
    file = tmp_path / "desk.db-index"
    async with opened(url(tmp_path)) as app:
        await live(app, 2, steps=50)
        for damage in (lambda: file.write_bytes(b"no database at all " * 500), file.unlink):
            index = Index(app)
            await reached(index, app)
            await index.stop()
            damage()
        index = Index(app)
        found = await asked(index, app, lambda reader: len(reader.find(Filter(), limit=1000)))
        await index.stop()

    assert found == app_position(file)


def app_position(file: Path) -> int:
    with apsw.Connection(str(file)) as connection:
        position = connection.execute("SELECT position FROM progress").get
    assert isinstance(position, int)
    return position


async def test_another_applications_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "else.db-index"
    with apsw.Connection(str(file)) as connection:
        connection.execute("PRAGMA application_id = 7; CREATE TABLE precious (x)")

    with pytest.raises(NotAStore, match="move it away"):
        connect_to_write(Place(str(file)))


async def test_a_decision_to_set_aside_takes_its_effects_back(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as app:
        asked_at = await submit(app, Ask(key="job-1"))
        await submit(app, Note(text="between"))
        index = Index(app)
        assert [event.event for event in await asked(index, app, history)] == ["opened"]
        log = app.store.log
        ids = iter(str(uuid.uuid4()) for _ in range(9))
        await set_aside(log, asked_at, reason="test", actor=None, recorded_at_us=1, new_id=lambda: next(ids))
        async with asyncio.timeout(30):
            while await index.ask(history) or (await index.ask(lambda reader: reader.position)) < 3:  # noqa: ASYNC110  # a thread
                await asyncio.sleep(0.02)
        found = await index.ask(lambda reader: reader.find(Filter(), limit=9))
        await index.stop()

    assert [entry.position for entry in found] == [3, 2, 1]


async def test_of_two_processes_one_writes_and_both_read(tmp_path: Path) -> None:
    """Each has a handle of its own on the store, and a lock of its own on the index, as two processes have."""
    async with opened(url(tmp_path)) as one, opened(url(tmp_path)) as other:
        await live(one, 2, steps=50)
        first, second = Index(one), Index(other)
        await reached(first, one)
        await reached(second, one)
        assert (first._writing is not None, second._writing is not None) == (True, True)
        writers = [index._writing is not None and index._writing._writer is not None for index in (first, second)]
        assert writers == [True, False]
        await first.stop()  # The other one goes on.
        await submit(one, Note(text="later"))
        found = await asked(second, one, lambda reader: reader.find(Filter(), limit=1))
        await second.stop()

    assert found[0].subject == "later"


async def test_it_ends_with_the_application_and_begins_again_on_whatever_store_that_is_on(tmp_path: Path) -> None:
    app = make_app()
    index = Index(app)
    for name in ("one", "other"):
        async with app.running(f"sqlite:///{tmp_path}/{name}.db", workers=False):
            await submit(app, Note(text=name))
            found = await asked(index, app, lambda reader: reader.find(Filter(), limit=9))
            assert [entry.subject for entry in found] == [name]
            following = index._task
            app.not_at_stop(index.stop)  # Else the stop would end it, and it could not show that it ends by itself.
        assert following is not None
        await asyncio.wait_for(following, 30)
    assert (tmp_path / "other.db-index").exists()


@pytest.mark.parametrize("notes", [0, 1])
async def test_it_ends_with_an_application_in_memory_whose_log_can_still_be_read(notes: int) -> None:
    app = make_app()
    index = Index(app)
    async with app.running("memory:", workers=False):
        index.begin()
        for number in range(notes):
            await submit(app, Note(text=f"note {number}"))
            await reached(index, app)
        app.not_at_stop(index.stop)
    assert index._task is not None
    async with asyncio.timeout(10):
        await index._task


async def test_what_has_ended_by_itself_is_not_ended_by_the_application() -> None:
    app = make_app()
    index = Index(app)
    index.begin()
    assert list(app._beside) == [index.stop]
    assert index._task is not None
    await index._task  # The application does not run.
    assert list(app._beside) == []


async def test_an_answer_ends_the_job_for_good() -> None:
    async with opened() as app:
        await submit(app, Ask(key="job-1"))
        fence = await start(app, "job-1")
        await submit(app, Answer(key="job-1", text="yes"), fence=fence)
        await submit(app, Answer(key="job-1", text="again"))
        reader, _ = written(app, await whole_log(app))

    events = reader.history(WORKER, "job-1", limit=10)
    assert [(event.event, event.fence) for event in events] == [("opened", None), ("started", 2), ("answered", 2)]
    assert [event.job for event in reader.over(WORKER, before=99, limit=5)] == ["job-1"]
    assert [event.event for event in reader.jobs_of(3, limit=5)] == ["answered"]


async def test_nothing_is_left_of_an_index_in_memory() -> None:
    before = set(os.listdir())
    async with opened() as app:
        await submit(app, Note(text="x"))
        index = Index(app)
        await reached(index, app)
        await index.stop()
        await index.stop()  # Harmless when repeated.

    assert set(os.listdir()) == before

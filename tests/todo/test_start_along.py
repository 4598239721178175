"""A job that is opened while a slot is free starts in the very append that opens it."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any, ClassVar

import pytest

from journeyman import Attempt, Command, NotReady, OutcomeUnknown, PauseWorker, Record, ResumeWorker, pending
from journeyman.pending import Envelope
from journeyman.store.base import BATCH_RECORDS_MAX
from journeyman.store.memory import MemoryStore
from journeyman.timing import SYSTEM_TIMING, Timing
from tests.todo.desk import WAIT_S, Answer, Ask, Desk, Note, answer, answered, log_of, names, running, until
from tests.todo.troubled import Troubled

OPENED_AND_STARTED = ["desk/ask", "journeyman/job-started"]

variable: ContextVar[str] = ContextVar("variable", default="nothing")


class Two(Desk):
    """Does two jobs at a time."""

    concurrency = 2


class Limited(Desk):
    requests_per_minute: ClassVar[int | None] = 600


class Setting(Desk):
    """Sets a variable at its start, as instrumentation does."""

    async def start(self) -> None:
        variable.set("set at the start")


async def test_a_job_starts_in_the_append_that_opens_it(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    async with running(Desk(), store=store) as app:
        receipt = await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        [started] = await log_of(app, "journeyman/job-started")
        [asked] = await log_of(app, "desk/ask")
    assert log.appends[:2] == [OPENED_AND_STARTED, ["desk/answer"]]
    assert (started.position, started.causation_id) == (receipt.position + 1, asked.id)


async def test_only_as_many_as_slots_are_free_and_the_oldest_first(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    full, go = asyncio.Event(), asyncio.Event()

    async def wait(attempt: Attempt[Ask]) -> Command:
        if len(worker.tried) == worker.concurrency:
            full.set()
        await go.wait()
        return await answer(attempt)

    worker = Two(wait)
    async with running(worker, store=store) as app:
        await asyncio.gather(*(app.execute(Ask(key=key)) for key in "abcd"))
        await full.wait()
        await app.execute(Ask(key="e"))
        started_before = [names(await log_of(app, "journeyman/job-started")), list(worker.tried)]
        go.set()
        await until(app, answered(*"abcde"))
    assert log.appends[:2] == [["desk/ask"] * 4 + ["journeyman/job-started"] * 2, ["desk/ask"]]
    assert started_before == [["job-started"] * 2, ["a", "b"]]
    assert [one.message.body.key for one in worker.performed] == ["a", "b", "c", "d", "e"]


async def test_a_job_that_is_about_to_be_started_is_not_started_along() -> None:
    """The message of another one that starts with it is read from the store meanwhile."""
    store = MemoryStore()
    async with running(Two(), store=store, workers_run=False) as app:
        for command in (Note(text="before"), Ask(key="old", due_in_s=0.2), Note(text="behind")):
            await app.execute(command)
        await app.take_snapshot()  # With it, nobody needs to read them at the start.
    log = Troubled(store.log)
    anything: Any = log
    store.log = anything
    reached, go = asyncio.Event(), asyncio.Event()
    log.hold_read[1, 1] = (reached, go)

    async def take_a_while(attempt: Attempt[Ask]) -> Command:
        await asyncio.sleep(0.2)
        return await answer(attempt)

    worker = Two(take_a_while)
    async with asyncio.timeout(WAIT_S), running(worker, store=store) as app:
        await app.execute(PauseWorker(worker=Desk.name))
        await app.execute(Ask(key="new"))
        await asyncio.sleep(0.3)
        await app.execute(ResumeWorker(worker=Desk.name))
        await reached.wait()
        await app.execute(Ask(key="newest"))
        go.set()
        await until(app, answered("old", "new", "newest"))
        facts = await log_of(app, "journeyman/job-started", "journeyman/job-released")
    assert sorted(worker.tried) == ["new", "newest", "old"]
    assert names(facts) == ["job-started"] * 3


async def test_an_append_carries_no_more_than_it_may(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    async with running(Desk(), store=store) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"{n}")) for n in range(BATCH_RECORDS_MAX)))
    assert log.appends[0] == ["desk/ask"] * BATCH_RECORDS_MAX
    assert log.appends[1][:4] == ["journeyman/job-started"] * 4


async def test_only_one_of_a_subject(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    worker = Desk()
    async with running(worker, store=store) as app:
        await asyncio.gather(*(app.execute(Ask(key=key, subject="s")) for key in "ab"))
        await until(app, answered("a", "b"))
    assert log.appends[0] == ["desk/ask", "desk/ask", "journeyman/job-started"]
    assert worker.tried == ["a", "b"]


async def test_not_while_the_worker_is_paused(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    worker = Desk()
    async with running(worker, store=store) as app:
        await app.execute(PauseWorker(worker=Desk.name))
        await app.execute(Ask(key="a"))
        await app.execute(Note(text="later"))
    assert log.appends[-2:] == [["desk/ask"], ["desk/note"]]
    assert worker.tried == []


async def test_not_while_the_worker_stops(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    begun, go = asyncio.Event(), asyncio.Event()

    async def wait(attempt: Attempt[Ask]) -> Command:
        begun.set()
        await go.wait()
        return await answer(attempt)

    async with asyncio.timeout(WAIT_S):
        async with running(Desk(wait), store=store) as app:
            await app.execute(Ask(key="a"))
            await begun.wait()
            stopping = asyncio.create_task(app.stop())
            await asyncio.sleep(0.05)
            await app.execute(Ask(key="b"))
            go.set()
            await stopping
    assert log.appends == [OPENED_AND_STARTED, ["desk/ask"], ["desk/answer"]]


async def test_not_without_leave_where_all_processes_share_a_limit(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    async with running(Limited(), store=store) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
    assert log.appends[:2] == [["desk/ask"], ["journeyman/job-started"]]


async def test_a_command_that_was_judged_twice_starts_its_job_once_with_the_message_that_was_recorded(
    troubled: tuple[MemoryStore, Troubled],
) -> None:
    """Another process is first, so that the job opens at another position than its start was made for."""
    store, log = troubled
    log.foreign["desk/ask"] = Record(1, "theirs", "desk/note", 1, "x", b'{"text":"x"}', 0, "theirs")
    worker = Desk()
    async with running(worker, store=store) as app:
        receipt = await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        assert names(await log_of(app, "journeyman/job-started")) == ["job-started"]
    assert receipt.position == 2
    assert [(one.number, one.message.position) for one in worker.performed] == [(1, 2)]


@pytest.mark.parametrize("error", [NotReady("down"), OutcomeUnknown("gone")], ids=["not done", "perhaps done"])
async def test_nothing_runs_before_the_append_is_done(troubled: tuple[MemoryStore, Troubled], error: Exception) -> None:
    store, log = troubled
    log.failures["desk/ask"] = [error]
    worker = Desk()
    async with asyncio.timeout(WAIT_S), running(worker, store=store) as app:
        if isinstance(error, NotReady):
            with pytest.raises(NotReady):
                await app.execute(Ask(key="a"))
            assert worker.tried == []
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        assert len(await log_of(app, "desk/answer")) == 1
    assert worker.tried == ["a"]


async def test_an_append_that_stalls_holds_the_job_until_it_is_done(troubled: tuple[MemoryStore, Troubled]) -> None:
    """Queries see the state as it was before meanwhile, and the worker looks around in it."""
    store, log = troubled
    reached, go = asyncio.Event(), asyncio.Event()
    log.hold["desk/ask"] = (reached, go)
    worker = Desk()
    async with asyncio.timeout(WAIT_S), running(worker, store=store) as app:
        asking = asyncio.create_task(app.execute(Ask(key="a")))
        await reached.wait()
        await asyncio.sleep(0.3)
        assert app.stalled_s is not None
        app._now_running()._wake_workers()
        await asyncio.sleep(0.05)
        assert worker.tried == []
        go.set()
        await asking
        await until(app, answered("a"))
        assert names(await log_of(app, "journeyman/job-started")) == ["job-started"]
    assert log.appends[0] == OPENED_AND_STARTED
    assert worker.tried == ["a"]


async def test_a_start_that_finds_no_room_along_is_made_again_without_a_word(
    troubled: tuple[MemoryStore, Troubled], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, log = troubled

    async def answer_with_room(attempt: Attempt[Ask]) -> Command:
        monkeypatch.setattr(pending, "WAITING_MAX", 100)
        return await answer(attempt)

    worker = Desk(answer_with_room)
    async with running(worker, store=store) as app:
        asking = [app._now_running().executor.submit(Ask(key=key), Envelope(actor=None)) for key in "ab"]
        monkeypatch.setattr(pending, "WAITING_MAX", 1)
        await asyncio.gather(*asking)
        await until(app, answered("a", "b"))
        assert names(await log_of(app, "journeyman/job-started")) == ["job-started"] * 2
    assert log.appends[0] == ["desk/ask", "desk/ask", "journeyman/job-started"], "the second found no room"
    assert sorted(worker.tried) == ["a", "b"]
    assert [record.message for record in caplog.records if record.levelno > logging.DEBUG] == []


async def test_a_defect_at_a_start_along_is_told_and_the_job_is_done_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = list[str]()

    def new_id() -> str:
        made.append(SYSTEM_TIMING.new_id())
        if len(made) == breaks_at:
            raise ZeroDivisionError("no id")
        return made[-1]

    breaks_at = 0
    worker = Desk()
    async with running(worker, timing=Timing(new_id=new_id)) as app:
        breaks_at = len(made) + 2  # The command takes one, and the start along the next.
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
    [told] = [record for record in caplog.records if record.exc_info]
    assert "jobs are not started at once" in told.message
    assert worker.tried == ["a"]


async def test_it_finds_the_variables_that_the_start_has_set() -> None:
    async def tell(attempt: Attempt[Ask]) -> Command:
        return Answer(key=attempt.id, text=variable.get())

    async with running(Setting(tell)) as app:
        await app.execute(Ask(key="at once"))
        await app.execute(Ask(key="later", due_in_s=0.01))
        await until(app, answered("at once", "later"))
        told = [record.body.decode() for record in await log_of(app, "desk/answer")]
    assert all("set at the start" in body for body in told), told

"""A to-do worker at work: one recorded answer for each job, whatever fails."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from journeyman import (
    App,
    Attempt,
    Command,
    DiscardJob,
    GiveUp,
    NotReady,
    PauseWorker,
    RateLimited,
    Rejected,
    ResumeWorker,
    Retry,
    RetryJob,
    ServiceError,
    Store,
    Unauthorized,
    WorkerFailed,
)
from journeyman.message import BODY_BYTES_MAX
from journeyman.pending import Envelope
from journeyman.store.memory import MemoryStore
from journeyman.todo import lane as lanes
from journeyman.todo.attempts import Running
from journeyman.todo.jobs import JobStarted
from journeyman.todo.ledger import jobs_state
from journeyman.todo.runner import TodoRunner
from tests.todo.desk import (
    WAIT_S,
    Answer,
    Ask,
    Close,
    Desk,
    Fail,
    Note,
    Parking,
    answered,
    answers,
    counts,
    idle,
    job_of,
    log_of,
    make,
    names,
    running,
    standing,
    until,
)
from tests.todo.troubled import Troubled

JOB_FACTS = ("journeyman/job-started", "journeyman/job-failed", "journeyman/job-released", "journeyman/job-ended")


async def bounded(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(WAIT_S):
        return await awaitable


async def looks_around_seldom(app: App) -> None:
    """Fails when the worker goes round and round though nothing happens."""
    supervisor = app._now_running()._supervisors[Desk.name]
    before = supervisor.rounds
    for _ in range(500):
        await asyncio.sleep(0)
    assert supervisor.rounds - before <= 3


class Held:
    """A `perform` that says when it has begun, and answers when it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, attempt: Attempt[Ask]) -> Command:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")


async def test_each_job_is_started_performed_and_answered_once(store: str | Store) -> None:
    worker = Desk()
    async with running(worker, store=store) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"k{number}")) for number in range(50)))
        await until(app, idle)
        found = await log_of(app)
        assert await app.state(answers) == {f"k{number}": "answer: attempt 1" for number in range(50)}
    assert sorted(worker.tried) == sorted(f"k{number}" for number in range(50))
    started = {record.position: record for record in found if record.name == "journeyman/job-started"}
    for record in (record for record in found if record.name == "desk/answer"):
        assert record.fence in started
        assert record.actor == "worker:desk/answers"
        asked = next(other for other in found if other.id == record.causation_id)
        assert (asked.name, asked.subject) == ("desk/ask", record.subject)
        assert record.correlation_id == asked.correlation_id


async def test_a_worker_with_nothing_to_do_looks_around_seldom() -> None:
    async with running(Desk()) as app:
        await app.execute(Ask(key="a"))
        await until(app, idle)
        await looks_around_seldom(app)


async def test_an_attempt_knows_its_job_its_number_and_a_key_that_stays() -> None:
    async def fail_once(attempt: Attempt[Ask]) -> Command:
        if attempt.number == 1:
            raise ValueError("first")
        return Answer(key=attempt.id, text="")

    worker = Desk(fail_once)
    async with running(worker) as app:
        await app.execute(Ask(key="a", subject="s"))
        await until(app, answered("a"))
    first, second = worker.performed
    assert (first.id, first.subject, first.number, second.number) == ("a", "s", 1, 2)
    assert first.key == second.key
    assert first.fence < second.fence
    assert first.message.body == Ask(key="a", subject="s")


async def test_a_worker_queries_and_dispatches_from_perform() -> None:
    async def look(attempt: Attempt[Ask]) -> Command:
        await worker.app.execute(Note(text="from perform"), cause=attempt.message)
        return Answer(key=attempt.id, text="")

    worker = Desk(look)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        assert len(await log_of(app, "desk/note")) == 1


# Failing, retrying, giving up.


async def test_a_failure_is_recorded_as_a_duration_with_jitter_and_retried(store: str | Store) -> None:
    async def fail(attempt: Attempt[Ask]) -> Command:
        raise ValueError(f"failure {attempt.number}")

    worker = make(fail, retry=Retry(attempts=4, first_s=0.004, factor=2, max_s=0.01))
    async with running(worker, store=store) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        failed = await log_of(app, "journeyman/job-failed")
        pauses = [app.catalog.codec.decode(record).body.retry_after_s for record in failed]
        [final] = await log_of(app, "desk/fail")
        assert await app.state(counts()) is not None
    assert [attempt.number for attempt in worker.performed] == [1, 2, 3, 4]
    assert len(pauses) == 3
    for pause, most in zip(pauses, (0.004, 0.008, 0.01), strict=True):
        assert most / 2 <= pause <= most
    assert b"failure 4" in final.body
    assert final.meta is not None
    assert b"ValueError: failure 4" in final.meta


async def test_a_job_that_nobody_gives_up_is_parked_and_waits_for_a_person(store: str | Store) -> None:
    broken = True

    async def fail(attempt: Attempt[Ask]) -> Command:
        if broken:
            raise ValueError("boom")
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")

    async with running(make(fail, Parking), store=store) as app:
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "parked"))
        assert (row.attempts, row.error) == (3, "ValueError: boom")
    broken = False
    worker = make(fail, Parking)
    async with running(worker, store=store) as app:
        assert (await app.workers())[0].parked == 1
        await app.execute(RetryJob(worker=Desk.name, job="a"), actor="ann")
        assert (await until(app, answered("a")))["a"] == "answer: attempt 1"


async def test_give_up_ends_a_job_at_once_whatever_attempts_are_left() -> None:
    async def stop(attempt: Attempt[Ask]) -> Command:
        raise GiveUp("it was deleted")

    worker = Desk(stop)
    async with running(worker) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"k{number}")) for number in range(10)))
        await until(app, idle)
        assert set((await app.state(answers)).values()) == {"fail: it was deleted"}
        assert (await app.workers())[0].status == "running"
    assert len(worker.tried) == 10


class OddError(BaseException):
    """No Exception, as some test frameworks' and libraries' are."""


class Untellable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError("something inner was cancelled"),
        SystemExit(1),
        OddError("odd"),
        StopIteration(),
        Untellable(),
        ValueError("\ud800 no text"),
        ValueError("x" * 100_000),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("blocking", [False, True])
async def test_whatever_perform_raises_is_charged_and_given_up_and_ends_nothing_else(
    error: BaseException, blocking: bool
) -> None:
    async def fail(attempt: Attempt[Ask]) -> Command:
        if attempt.id == "good":
            return Answer(key="good", text="")
        raise error

    def fail_in_thread(self: Desk, attempt: Attempt[Ask]) -> Command:
        self.performed.append(attempt)
        if attempt.id == "good":
            return Answer(key="good", text="")
        raise error

    worker = make(fail, Parking, **({"perform": fail_in_thread} if blocking else {}))
    async with running(worker) as app:
        await app.execute(Ask(key="bad"))
        row = await until(app, standing("bad", "parked"))
        await app.execute(Ask(key="good"))
        await until(app, answered("good"))
    assert row.attempts == 3
    assert row.error
    assert worker.tried.count("bad") == 3


@pytest.mark.parametrize("error", [ValueError("give_up broke"), SystemExit(1), "not a command"])
async def test_a_give_up_that_breaks_parks_the_job_and_nothing_is_performed_again(error: Any) -> None:
    class Broken(Desk):
        def give_up(self, attempt: Attempt[Ask], _: BaseException) -> Command | None:
            if isinstance(error, BaseException):
                raise error
            return error  # type: ignore[no-any-return]  # what it is not allowed to be

    async def fail(attempt: Attempt[Ask]) -> Command:
        raise GiveUp("no use")

    worker = Broken(fail)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "parked"))
        assert "give_up failed" in (row.error or "")
        assert "no use" in (row.error or "")
    assert worker.tried == ["a"]


# Answers that can't be taken.


@pytest.mark.parametrize("garbage", ["text", 7, Answer])
async def test_what_is_no_command_parks_the_job_and_is_not_asked_for_again(garbage: Any) -> None:
    async def odd(attempt: Attempt[Ask]) -> Command:
        return garbage  # type: ignore[no-any-return]  # what it is not allowed to be

    worker = Desk(odd)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "parked"))
        assert "no command" in (row.error or "")
    assert worker.tried == ["a"]


async def test_no_answer_ends_the_job() -> None:
    async def nothing(attempt: Attempt[Ask]) -> Command | None:
        return None

    async with running(Desk(nothing)) as app:
        await app.execute(Ask(key="a"))
        await until(app, lambda state: counts()(state).ended == 1)
        assert await app.state(idle)


async def test_an_answer_that_the_state_refuses_ends_the_job_for_good(store: str | Store) -> None:
    held = Held()
    worker = Desk(held)
    async with running(worker, store=store) as app:
        await app.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        await app.execute(Close(key="a"))
        held.go.set()
        await until(app, idle)
        [ended] = await log_of(app, "journeyman/job-ended")
        assert b"answer refused: Rejected: a is closed." in ended.body
        assert (await app.state(counts())).ended == 1
    assert worker.tried == ["a"]


async def test_a_give_up_that_the_state_refuses_ends_the_job_too() -> None:
    async def close(attempt: Attempt[Ask]) -> Command:
        await worker.app.execute(Close(key="a"))
        raise GiveUp("no")

    worker = Desk(close)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await until(app, lambda state: counts()(state).ended == 1)
    assert worker.tried == ["a"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("x" * (BODY_BYTES_MAX + 1), "has 5"), ("x" * 0 + "\ud800", "surrogate"), (7, "Expected `str`")],
    ids=["too large", "not text", "another type"],
)
async def test_an_answer_that_can_not_be_recorded_is_given_up_without_performing_again(text: Any, why: str) -> None:
    async def odd(attempt: Attempt[Ask]) -> Command:
        return Answer(key=attempt.id, text=text)

    worker = Desk(odd)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        found = await until(app, answered("a"))
        assert found["a"].startswith("fail: ")
        assert why in found["a"]
    assert worker.tried == ["a"]


async def test_a_give_up_that_can_not_be_recorded_either_parks_the_job() -> None:
    class Odd(Desk):
        def give_up(self, attempt: Attempt[Ask], error: BaseException) -> Command | None:
            return Fail(key=attempt.id, text="x" * (BODY_BYTES_MAX + 1))

    async def fail(attempt: Attempt[Ask]) -> Command:
        raise GiveUp("no")

    async with running(Odd(fail)) as app:
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "parked"))
        assert "GiveUp: no; give_up's answer: TooLarge" in (row.error or "")


async def test_an_answer_whose_apply_breaks_parks_the_job_and_is_not_performed_again() -> None:
    class Strange(Command):
        key: str

    async def unknown(attempt: Attempt[Ask]) -> Command:
        return Strange(key=attempt.id)

    worker = Desk(unknown)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "parked"))
        assert "could not be recorded: UnknownName" in (row.error or "")
    assert worker.tried == ["a"]


# Others who answer, and orders that come meanwhile.


async def test_a_persons_answer_cancels_the_attempt_and_frees_its_slot() -> None:
    held = Held()
    async with running(make(held, concurrency=1)) as app:
        await app.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        await app.execute(Answer(key="a", text="by hand"), actor="ann")
        await bounded(held.cancelled.wait())
        held.go.set()
        await app.execute(Ask(key="b"))
        found = await until(app, answered("b"))
        assert found["a"] == "answer: by hand"
        assert names(await log_of(app, *JOB_FACTS)) == ["job-started"] * 2


async def test_an_answer_that_comes_after_a_persons_is_dropped() -> None:
    async def slow(attempt: Attempt[Ask]) -> Command:
        await worker.app.execute(Answer(key=attempt.id, text="by hand"))
        return Answer(key=attempt.id, text="late")

    worker = Desk(slow)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        await app.execute(Ask(key="b"))
        await until(app, answered("b"))
        assert [record.fence for record in await log_of(app, "desk/answer")] == [None, None]


async def test_a_discarded_job_is_cancelled_and_answers_nothing() -> None:
    held = Held()
    async with running(Desk(held)) as app:
        await app.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        await app.execute(DiscardJob(worker=Desk.name, job="a", reason="not wanted"), actor="ann")
        await bounded(held.cancelled.wait())
        assert (await app.state(counts())).discarded == 1
        [record] = await log_of(app, "journeyman/discard-job")
        assert record.actor == "ann"
    assert held.begun.is_set()


async def test_a_paused_worker_starts_nothing_and_lets_running_attempts_answer() -> None:
    held = Held()
    worker = make(held, concurrency=1)
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        await app.execute(PauseWorker(worker=Desk.name), actor="ann")
        await app.execute(Ask(key="b"))
        held.go.set()
        await until(app, answered("a"))
        assert (await app.workers())[0].status == "paused"
        assert (await app.state(job_of("b"))).standing == "waiting"  # type: ignore[union-attr]  # it is there
        with pytest.raises(Rejected, match="paused already"):
            await app.execute(PauseWorker(worker=Desk.name))
        assert worker.tried == ["a"]
        await looks_around_seldom(app)
        await app.execute(ResumeWorker(worker=Desk.name), actor="ann")
        await until(app, answered("b"))


async def test_a_pause_outlives_the_process(store: str | Store) -> None:
    async with running(Desk(), store=store, workers_run=False) as app:
        await app.execute(PauseWorker(worker=Desk.name))
        await app.execute(Ask(key="a"))
    async with running(Desk(), store=store) as app:
        assert (await app.workers())[0].status == "paused"
        await app.execute(ResumeWorker(worker=Desk.name))
        await until(app, answered("a"))


# Order, bounds, due times.


async def test_the_jobs_of_a_subject_are_performed_one_at_a_time_in_order_over_retries() -> None:
    active: set[str] = set()
    most: list[int] = []

    async def fail_once(attempt: Attempt[Ask]) -> Command:
        active.add(attempt.id)
        most.append(len([key for key in active if key.startswith("s")]))
        await asyncio.sleep(0)
        active.discard(attempt.id)
        if attempt.number < 3 and attempt.id == "s0":
            raise ValueError("again")
        return Answer(key=attempt.id, text="")

    worker = make(fail_once, concurrency=8)
    async with running(worker) as app:
        asks = [Ask(key=f"s{number}", subject="s") for number in range(6)] + [Ask(key=f"o{n}") for n in range(6)]
        await asyncio.gather(*map(app.execute, asks))
        await until(app, idle)
    of_subject = [key for key in worker.tried if key.startswith("s")]
    assert of_subject == ["s0", "s0", "s0", "s1", "s2", "s3", "s4", "s5"]
    assert max(most) == 1


async def test_no_more_attempts_run_at_once_than_the_bound() -> None:
    now = most = 0
    full, go = asyncio.Event(), asyncio.Event()

    async def count(attempt: Attempt[Ask]) -> Command:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            full.set()
        await go.wait()
        now -= 1
        return Answer(key=attempt.id, text="")

    async with running(make(count, concurrency=3)) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"k{number}")) for number in range(20)))
        await bounded(full.wait())
        await app.execute(Note(text="another round"))
        assert (await app.workers())[0].running == 3
        await looks_around_seldom(app)
        go.set()
        await until(app, idle)
    assert most == 3


async def test_a_job_is_not_tried_before_it_is_due_and_then_without_the_log_growing() -> None:
    loop = asyncio.get_running_loop()
    tried: dict[str, float] = {}

    async def when(attempt: Attempt[Ask]) -> Command:
        tried[attempt.id] = loop.time()
        return Answer(key=attempt.id, text="")

    async with running(Desk(when)) as app:
        asked_s = loop.time()
        await asyncio.gather(*map(app.execute, [Ask(key="later", due_in_s=0.15), Ask(key="now")]))
        assert (await app.state(job_of("later"))).standing == "delayed"  # type: ignore[union-attr]  # it is there
        await until(app, answered("later", "now"))
    assert tried["later"] - asked_s >= 0.15
    assert tried["now"] < tried["later"]


async def test_an_attempt_that_takes_too_long_is_cut_off_and_charged_if_others_succeed_meanwhile() -> None:
    hung = asyncio.Event()

    async def hang(attempt: Attempt[Ask]) -> Command:
        if attempt.id == "slow" and not hung.is_set():
            hung.set()
            await asyncio.Event().wait()
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")

    async with running(make(hang, timeout_s=0.5)) as app:
        await app.execute(Ask(key="slow"))
        await bounded(hung.wait())
        await app.execute(Ask(key="quick"))
        assert (await until(app, answered("quick", "slow")))["slow"] == "answer: attempt 2"
        [failed] = await log_of(app, "journeyman/job-failed")
        assert b"did not end within 0.5 s" in failed.body
        assert await log_of(app, "journeyman/job-released") == []


async def test_a_lone_attempt_that_takes_too_long_is_cut_off_and_tried_again_uncharged() -> None:
    hung = asyncio.Event()

    async def hang(attempt: Attempt[Ask]) -> Command:
        if not hung.is_set():
            hung.set()
            await asyncio.Event().wait()
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")

    async with running(make(hang, timeout_s=0.02)) as app:
        await app.execute(Ask(key="a"))
        assert (await until(app, answered("a")))["a"] == "answer: attempt 1"
        [released] = await log_of(app, "journeyman/job-released")
        assert b"did not end within 0.02 s" in released.body


@pytest.mark.parametrize("how", ["timeout", "drain"])
async def test_what_must_not_be_repeated_is_parked_when_it_is_cut_off(how: str) -> None:
    held = Held()
    store = MemoryStore()
    timeout_s = 0.02 if how == "timeout" else 60.0
    async with running(make(held, after_crash="park", timeout_s=timeout_s), store=store, drain_s=0.1) as app:
        await app.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        if how == "timeout":
            await until(app, standing("a", "parked"))
    async with running(Desk(), store=store) as app:
        row = await until(app, standing("a", "parked"))
        assert "outcome unknown" in (row.error or "")


# Threads.


class Threaded(Desk):
    """Performs in a thread, which ends when the test says so."""

    concurrency = 1

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.now = self.most = 0

    def perform(self, attempt: Attempt[Ask]) -> Command:  # type: ignore[override]  # `def` where Desk has `async def`
        self.performed.append(attempt)
        self.now += 1
        self.most = max(self.most, self.now)
        self.loop.call_soon_threadsafe(self.begun.set)
        self.go.wait(WAIT_S)
        self.now -= 1
        self.app.blocking.execute(Note(text="from a thread"))
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")


async def test_a_thread_that_outlives_its_timeout_holds_its_slot_and_its_late_answer_is_taken() -> None:
    worker = type("Quick", (Threaded,), {"timeout_s": 0.01})()
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await bounded(worker.begun.wait())
        await app.execute(Ask(key="b"))
        await until(app, standing("a", "running"))
        assert worker.tried == ["a"]
        worker.go.set()
        found = await until(app, answered("a", "b"))
        assert set(found.values()) == {"answer: attempt 1"}
        assert len(await log_of(app, "desk/note")) == 2
    assert worker.most == 1


async def test_a_thread_whose_job_is_answered_by_a_person_holds_its_slot_until_it_returns() -> None:
    worker = Threaded()
    async with running(worker) as app:
        await app.execute(Ask(key="a"))
        await bounded(worker.begun.wait())
        await app.execute(Answer(key="a", text="by hand"))
        await app.execute(Ask(key="b"))
        for number in range(5):
            await app.execute(Note(text=f"round {number}"))
        assert worker.tried == ["a"]
        worker.go.set()
        found = await until(app, answered("b"))
        assert found["a"] == "answer: by hand"
    assert worker.most == 1


async def test_a_thread_is_left_behind_at_the_deadline_and_its_job_released(store: str | Store) -> None:
    worker = Threaded()
    async with asyncio.timeout(WAIT_S):
        async with running(worker, store=store, drain_s=0.3) as app:
            await app.execute(Ask(key="a"))
            await worker.begun.wait()
    async with running(Desk(), store=store) as app:
        await until(app, answered("a"))
        [released] = await log_of(app, "journeyman/job-released")
        assert b"its process was stopping" in released.body
    worker.go.set()


# Stopping.


async def test_a_drain_lets_attempts_end_and_starts_nothing_more(store: str | Store) -> None:
    held = Held()
    worker = make(held, concurrency=1)
    async with running(worker, store=store, drain_s=WAIT_S) as app:
        await asyncio.gather(app.execute(Ask(key="a")), app.execute(Ask(key="b")))
        await bounded(held.begun.wait())
        asyncio.get_running_loop().call_later(0.02, held.go.set)
    async with running(make(concurrency=1), store=store, workers_run=False) as app:
        assert await app.state(answers) == {"a": "answer: attempt 1"}
        assert (await app.state(job_of("b"))).standing == "waiting"  # type: ignore[union-attr]  # it is there


async def test_a_drain_releases_what_does_not_end_without_charging_it(store: str | Store) -> None:
    held = Held()
    async with asyncio.timeout(WAIT_S):
        async with running(Desk(held), store=store, drain_s=0.2) as app:
            await app.execute(Ask(key="a"))
            await held.begun.wait()
    assert held.cancelled.is_set()
    async with running(Desk(), store=store, workers_run=False) as app:
        row = await app.state(job_of("a"))
        assert row is not None
        assert (row.standing, row.attempts, row.suspect) == ("retrying", 0, False)
        assert names(await log_of(app, *JOB_FACTS)) == ["job-started", "job-released"]


# A store in trouble.


async def test_an_answer_is_dispatched_until_the_log_takes_it_and_not_performed_again(
    troubled: tuple[MemoryStore, Troubled],
) -> None:
    store, log = troubled
    log.failures["desk/answer"] = [NotReady("down")] * 4
    worker = Desk()
    async with running(worker, store=store) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
    assert log.failures["desk/answer"] == []
    assert worker.tried == ["a"]


async def test_a_start_whose_outcome_is_not_known_is_found_out_before_anything_is_performed(
    troubled: tuple[MemoryStore, Troubled],
) -> None:
    store, log = troubled
    log.lost["journeyman/job-started"] = 2
    log.lost["desk/answer"] = 2
    worker = Desk()
    async with running(worker, store=store) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        assert len(await log_of(app, "desk/answer")) == 1
    assert worker.tried == ["a"]


async def test_a_task_that_could_not_be_made_for_want_of_memory_keeps_no_slot() -> None:
    """The job is started in the next round, as if nothing had been."""
    refused: list[Any] = []

    def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if not refused and coroutine.__qualname__ == "Performer.run":
            refused.append(coroutine)
            coroutine.close()
            raise MemoryError
        return asyncio.Task(coroutine, loop=loop, **options)

    async with running(Desk()) as app:
        asyncio.get_running_loop().set_task_factory(make_task)
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        asyncio.get_running_loop().set_task_factory(None)
    assert refused


async def test_an_end_that_the_loop_does_not_tell_for_want_of_memory_keeps_no_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job's next attempt is made all the same."""
    ended, lost = TodoRunner._ended, list[Attempt[Ask]]()

    async def fail_once(attempt: Attempt[Ask]) -> Command:
        if attempt.number == 1:
            lost.append(attempt)
            raise ValueError("once")
        return Answer(key=attempt.id, text="at last")

    def lose_first(runner: TodoRunner, attempt: Running, task: asyncio.Task[None]) -> None:
        if lost:
            lost.clear()
        else:
            ended(runner, attempt, task)

    monkeypatch.setattr(TodoRunner, "_ended", lose_first)
    async with running(Desk(fail_once)) as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))


async def test_an_open_attempt_of_mine_that_i_do_not_run_is_released_by_me() -> None:
    """As when the process was told that the outcome of a start is unknown, and it was recorded after all."""
    worker = Desk()
    async with running(worker) as app:
        await app.execute(PauseWorker(worker=Desk.name))
        await app.execute(Ask(key="a"))
        row = await app.state(job_of("a"))
        assert row is not None
        started = JobStarted(worker=Desk.name, job="a", opened_at=row.opened_at, attempt=1, instance=app.instance)
        submit = app._now_running().executor.submit
        await asyncio.gather(submit(ResumeWorker(worker=Desk.name), Envelope()), submit(started, Envelope()))
        await until(app, answered("a"))
        [released] = await log_of(app, "journeyman/job-released")
        assert b"its process does not run it" in released.body
        assert (await app.state(counts())).attempts == 2
    assert [attempt.number for attempt in worker.performed] == [1]


async def test_a_store_in_trouble_is_not_asked_all_the_time_to_start(troubled: tuple[MemoryStore, Troubled]) -> None:
    """While an append is stalled, each start is refused at once: without a pause that would be a loop."""
    store, log = troubled

    async def fail_once(attempt: Attempt[Ask]) -> Command:
        if attempt.number == 1:
            raise ValueError("first")
        return Answer(key=attempt.id, text="")

    async with running(make(fail_once, retry=Retry(attempts=2, first_s=0.2, max_s=0.2)), store=store) as app:
        await app.execute(Ask(key="a"))
        await until(app, standing("a", "retrying"))
        reached, go = asyncio.Event(), asyncio.Event()
        log.hold["desk/note"] = (reached, go)
        noting = asyncio.create_task(app.execute(Note(text="held")))
        await bounded(reached.wait())
        runner = app._now_running()._runners[Desk.name]
        async with asyncio.timeout(WAIT_S):
            while runner._trouble.waits_s == 0:
                await app.store.log.wait(app.position, 0.01)
        await looks_around_seldom(app)
        go.set()
        await noting
        await until(app, answered("a"))


async def test_an_attempt_cancelled_while_its_start_is_recorded_is_released(
    troubled: tuple[MemoryStore, Troubled],
) -> None:
    store, log = troubled
    reached, go = asyncio.Event(), asyncio.Event()
    log.hold["journeyman/job-started"] = (reached, go)
    worker = Desk()
    async with running(worker, store=store) as app:
        await app.execute(Ask(key="a"))
        await bounded(reached.wait())
        task = app._now_running()._runners[Desk.name]._running["a"].task
        assert task is not None
        task.cancel()
        go.set()
        await until(app, answered("a"))
        [released] = await log_of(app, "journeyman/job-released")
        assert b"its process was stopping" in released.body
    assert [attempt.number for attempt in worker.performed] == [1]


@pytest.mark.parametrize("due_in_s", [0.0, 0.05], ids=["in the append that opens it", "in its own append"])
async def test_a_drain_while_the_start_is_recorded_releases_it(
    troubled: tuple[MemoryStore, Troubled], due_in_s: float
) -> None:
    store, log = troubled
    reached, go = asyncio.Event(), asyncio.Event()
    log.hold["journeyman/job-started"] = (reached, go)
    worker = Desk()
    async with asyncio.timeout(WAIT_S):
        async with running(worker, store=store, drain_s=0.5) as app:
            asking = asyncio.create_task(app.execute(Ask(key="a", due_in_s=due_in_s)))
            await reached.wait()
            asyncio.get_running_loop().call_later(0.05, go.set)
        await asking
    assert worker.tried == []
    async with running(Desk(), store=store, workers_run=False) as app:
        row = await app.state(job_of("a"))
        assert row is not None
        assert (row.standing, row.attempts) == ("retrying", 0)


async def test_a_drain_while_the_answer_is_recorded_keeps_it(troubled: tuple[MemoryStore, Troubled]) -> None:
    store, log = troubled
    reached, go = asyncio.Event(), asyncio.Event()
    log.hold["desk/answer"] = (reached, go)
    worker = Desk()
    async with asyncio.timeout(WAIT_S):
        async with running(worker, store=store, drain_s=2.0) as app:
            await app.execute(Ask(key="a"))
            await reached.wait()
            asyncio.get_running_loop().call_later(0.05, go.set)
    async with running(Desk(), store=store, workers_run=False) as app:
        assert await app.state(answers) == {"a": "answer: attempt 1"}
    assert worker.tried == ["a"]


# The lane.


@pytest.fixture
def quick_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROBE_FIRST_S", "PAUSE_DEFAULT_S", "PAUSE_LEAST_FIRST_S"):
        monkeypatch.setattr(lanes, name, 0.005)
    monkeypatch.setattr(lanes, "PROBE_MAX_S", 0.01)


async def test_a_429_pauses_everybody_at_once_and_is_charged_to_nobody() -> None:
    limited = True

    async def limit(attempt: Attempt[Ask]) -> Command:
        nonlocal limited
        if limited:
            limited = False
            raise RateLimited("slow down", retry_after_s=0.1)
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")

    worker = make(limit, concurrency=1, retry=Retry(attempts=1))
    async with running(worker) as app:
        began_s = asyncio.get_running_loop().time()
        await asyncio.gather(*(app.execute(Ask(key=f"k{number}")) for number in range(5)))
        await until(app, idle)
        assert asyncio.get_running_loop().time() - began_s >= 0.1
        assert set((await app.state(answers)).values()) == {"answer: attempt 1"}
    assert len(worker.tried) == 6


@pytest.mark.usefixtures("quick_lane")
async def test_an_outage_fails_no_job_and_is_probed_by_one_job_at_a_time_another_each_time() -> None:
    down = True
    now = 0
    overlaps: list[int] = []

    async def service(attempt: Attempt[Ask]) -> Command:
        nonlocal now
        now += 1
        overlaps.append(now)
        await asyncio.sleep(0)
        now -= 1
        if down:
            raise ServiceError("503")
        return Answer(key=attempt.id, text="")

    worker = make(service, concurrency=4, retry=Retry(attempts=2, first_s=0, max_s=0))
    async with running(worker) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"k{number}")) for number in range(8)))
        async with asyncio.timeout(WAIT_S):
            while len(worker.tried) < 24:
                await app.store.log.wait(app.position, 0.05)
                await asyncio.sleep(0)
        assert (await app.workers())[0].status.startswith("lane ")
        probes, at_once = worker.tried[-16:], set(overlaps[-16:])
        down = False
        await until(app, idle)
        assert all(text.startswith("answer") for text in (await app.state(answers)).values())
    assert at_once == {1}
    assert all(one != other for one, other in itertools.pairwise(probes))
    assert len(set(probes)) == 8


async def test_a_document_that_always_gives_500_is_given_up_while_the_others_succeed() -> None:
    async def service(attempt: Attempt[Ask]) -> Command:
        if attempt.id == "bad":
            raise ServiceError("500")
        return Answer(key=attempt.id, text="")

    async with running(make(service, concurrency=2)) as app:
        await app.execute(Ask(key="bad"))
        others = 0
        while "bad" not in await app.state(answers):
            await app.execute(Ask(key=str(others)))
            await until(app, answered(str(others)))
            others += 1
        found = await app.state(answers)
        assert found.pop("bad") == "fail: 500"
        assert set(found.values()) == {"answer: "}
        # Of its first failure nobody could know whether it was the service's.
        assert len(await log_of(app, "journeyman/job-released")) == 1
        assert len(await log_of(app, "journeyman/job-failed")) == 2


async def test_a_wrong_key_stops_the_lane_until_a_person_resumes_it_and_keeps_the_jobs() -> None:
    wrong = True

    async def service(attempt: Attempt[Ask]) -> Command:
        if wrong:
            raise Unauthorized("401")
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")

    worker = make(service, concurrency=1)
    async with running(worker) as app:
        await asyncio.gather(*(app.execute(Ask(key=key)) for key in "abc"))
        await until(app, lambda state: counts()(state).attempts == 1 and standing("a", "retrying")(state))
        status = (await app.workers())[0]
        assert (status.status, status.last_error) == ("lane stopped", "Unauthorized: 401")
        await looks_around_seldom(app)
        assert await app.state(lambda state: len(jobs_state(state).jobs)) == 3
        wrong = False
        await app.execute(ResumeWorker(worker=Desk.name), actor="ann")
        await until(app, idle)
        assert set((await app.state(answers)).values()) == {"answer: attempt 1"}


async def test_a_resume_from_another_process_opens_a_stopped_lane() -> None:
    wrong = True

    async def service(attempt: Attempt[Ask]) -> Command:
        if wrong:
            raise Unauthorized("401")
        return Answer(key=attempt.id, text="")

    store = MemoryStore()
    async with running(Desk(service), store=store) as app, running(Desk(), store=store, workers_run=False) as other:
        await app.execute(Ask(key="a"))
        await until(app, standing("a", "retrying"))
        wrong = False
        await other.execute(ResumeWorker(worker=Desk.name))
        await until(app, answered("a"))


# Where workers run.


async def test_every_process_shows_the_list_also_one_that_runs_no_workers() -> None:
    store = MemoryStore()
    held = Held()
    async with running(Desk(held), store=store) as app, running(Desk(), store=store, workers_run=False) as other:
        receipt = await other.execute(Ask(key="a"))
        await bounded(held.begun.wait())
        [status] = await other.workers()
        assert (status.status, status.processes) == ("running", 1)
        await until(other, standing("a", "running"))
        assert await other.state_hash() == await app.state_hash()
        held.go.set()
        await until(other, answered("a"))
        assert receipt.position == 1


async def test_a_worker_that_can_not_start_fails_the_start_and_closes_what_was_open() -> None:
    closed: list[str] = []

    class Broken(Desk):
        async def start(self) -> None:
            raise OSError("no key")

    class Other(Desk):
        name = "desk/other"

        async def stop(self) -> None:
            closed.append(self.name)

    with pytest.raises(WorkerFailed, match="desk/answers could not start: OSError: no key"):
        async with running(Other(), Broken()):
            pass
    assert closed == ["desk/other"]

"""The protocol of jobs as a pure function of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman import Command, DefinitionError, DiscardJob, Job, Message, PauseWorker, ResumeWorker, RetryJob, opens
from journeyman.errors import ApplyFailed, Fenced, Rejected
from journeyman.feature import Catalog
from journeyman.message import Record
from journeyman.pending import Envelope, prepare
from journeyman.receipts import receipts
from journeyman.replica import Replica
from journeyman.set_aside import set_asides
from journeyman.store.memory import MemoryLog
from journeyman.todo.jobs import (
    HOLDING,
    UNDER_WAY,
    InstanceLost,
    JobEnded,
    JobFailed,
    JobParked,
    JobReleased,
    JobRow,
    JobsState,
    JobStarted,
    Standing,
    jobs,
)
from journeyman.todo.ledger import OUTCOME_UNKNOWN, JobLedger, jobs_state
from journeyman.todo.worker import TodoWorker
from tests.todo.desk import Answer, Ask, Desk, Fail, answer, desk, make

DESK = Desk.name
SECOND_US = 1_000_000


class Book:
    """A replica and the records that it took: what a process has, without the process."""

    def __init__(self, *workers: TodoWorker) -> None:
        self.workers = workers or (Desk(),)
        self.catalog = Catalog([receipts, set_asides, jobs, desk])
        self.replica = self._replica()
        self.records: list[Record] = []
        self.now_us = SECOND_US

    def _replica(self) -> Replica:
        return Replica(MemoryLog(), self.catalog, [JobLedger(self.workers)])

    async def do(self, command: Command, *, fence: int | None = None) -> int:
        """Record the command, and give its position."""
        position = self.replica.position + 1
        id = f"00000000-0000-7000-8000-{position:012}"
        pending = prepare(self.catalog, command, Envelope(fence=fence), asyncio.get_running_loop(), id=id)
        message = pending.propose(position=position, recorded_at_us=self.now_us)
        pending.future.cancel()
        self.replica.propose(message)
        self.replica.settle()
        self.records.append(message.record)
        return position

    async def start(self, key: str, *, instance: str = "i", **fields: Any) -> int:
        row = self[key]
        place = {"opened_at": row.opened_at, "attempt": row.attempts + 1} | fields
        return await self.do(JobStarted(worker=DESK, job=key, instance=instance, **place))

    @property
    def state(self) -> JobsState:
        return jobs_state(self.replica.state)

    def __getitem__(self, key: str) -> JobRow:
        return self.state.jobs[DESK, key]

    def __contains__(self, key: str) -> bool:
        return (DESK, key) in self.state.jobs

    def replayed_hash(self) -> str:
        other = self._replica()
        other.replay(self.records)
        return other.state.hash()


@pytest.fixture
def book() -> Book:
    return Book()


async def test_a_job_is_open_from_its_message_to_its_answer(book: Book) -> None:
    await book.do(Ask(key="a"))
    assert (book["a"].standing, book["a"].opened_at) == ("waiting", 1)
    fence = await book.start("a")
    assert (book["a"].standing, book["a"].fence, book["a"].attempts) == ("running", fence, 1)
    await book.do(Answer(key="a", text=""), fence=fence)
    assert "a" not in book
    row = book.state.workers[DESK]
    assert (row.opened, row.attempts, row.answered) == (1, 1, 1)


async def test_a_start_is_refused_while_the_job_runs_or_is_another_one_by_now(book: Book) -> None:
    await book.do(Ask(key="a"))
    with pytest.raises(Rejected, match="opened again"):
        await book.start("a", opened_at=7)
    with pytest.raises(Rejected, match="new attempts"):
        await book.start("a", attempt=2)
    await book.start("a")
    with pytest.raises(Rejected, match="is running"):
        await book.start("a")
    with pytest.raises(Rejected, match="no open job"):
        await book.do(JobStarted(worker=DESK, job="b", opened_at=1, attempt=1, instance="i"))


async def test_a_start_is_refused_while_the_worker_is_paused(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.do(PauseWorker(worker=DESK))
    with pytest.raises(Rejected, match="is paused"):
        await book.start("a")
    with pytest.raises(Rejected, match="paused already"):
        await book.do(PauseWorker(worker=DESK))
    await book.do(ResumeWorker(worker=DESK))
    assert book.state.workers[DESK].resumed_at == 3
    await book.start("a")


async def test_an_answer_whose_fence_is_not_the_running_attempts_is_fenced(book: Book) -> None:
    await book.do(Ask(key="a"))
    first = await book.start("a")
    await book.do(JobReleased(fence=first, reason="drained"))
    second = await book.start("a")
    for command in (Answer(key="a", text="late"), Fail(key="a", text="late")):
        with pytest.raises(Fenced):
            await book.do(command, fence=first)
    for fact in (JobFailed(fence=first, error="", retry_after_s=0), JobEnded(fence=first, reason="")):
        with pytest.raises(Fenced):
            await book.do(fact)
    await book.do(Answer(key="a", text="right"), fence=second)
    with pytest.raises(Fenced):
        await book.do(Answer(key="a", text="twice"), fence=second)


async def test_a_persons_unfenced_answer_ends_the_job_and_fences_its_attempt(book: Book) -> None:
    await book.do(Ask(key="a"))
    fence = await book.start("a")
    await book.do(Answer(key="a", text="by hand"))
    assert "a" not in book
    with pytest.raises(Fenced):
        await book.do(Answer(key="a", text="late"), fence=fence)


async def test_any_command_with_the_fence_answers_and_no_other_job_of_a_causation(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.do(Ask(key="b"))
    fence = await book.start("a")
    await book.do(Ask(key="c"), fence=fence)
    assert "a" not in book
    assert "b" in book
    assert "c" in book


async def test_opening_an_open_job_again_does_nothing(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.do(Ask(key="a"))
    assert book["a"].opened_at == 1
    assert book.state.workers[DESK].opened == 1


async def test_the_jobs_of_a_subject_run_one_at_a_time_and_in_order_over_retries(book: Book) -> None:
    for key in "abc":
        await book.do(Ask(key=key, subject="s"))
    assert [book[key].standing for key in "abc"] == ["waiting", "behind", "behind"]
    with pytest.raises(Rejected, match="is behind"):
        await book.start("b")
    await book.do(JobFailed(fence=await book.start("a"), error="x", retry_after_s=60.0))
    with pytest.raises(Rejected, match="is behind"):
        await book.start("b")
    await book.do(Answer(key="a", text=""), fence=await book.start("a"))
    assert [book[key].standing for key in "bc"] == ["waiting", "behind"]


async def test_a_parked_job_frees_its_subject_and_returns_behind_the_others(book: Book) -> None:
    for key in "abc":
        await book.do(Ask(key=key, subject="s"))
    await book.do(JobFailed(fence=await book.start("a"), error="x", retry_after_s=None))
    assert [book[key].standing for key in "abc"] == ["parked", "waiting", "behind"]
    await book.do(RetryJob(worker=DESK, job="a"))
    assert (book["a"].standing, book["a"].attempts) == ("behind", 0)
    await book.do(Answer(key="b", text=""))
    assert [book[key].standing for key in "ac"] == ["waiting", "behind"]


async def test_a_delayed_job_keeps_nobody_back_and_is_kept_back_by_a_job_under_way(book: Book) -> None:
    await book.do(Ask(key="later", subject="s", due_in_s=5))
    await book.do(Ask(key="a", subject="s"))
    assert (book["later"].standing, book["a"].standing) == ("delayed", "waiting")
    assert book["later"].due_at_us == 6 * SECOND_US
    fence = await book.start("a")
    with pytest.raises(Rejected, match="under way"):
        await book.start("later")
    await book.do(JobFailed(fence=fence, error="x", retry_after_s=1))
    with pytest.raises(Rejected, match="under way"):
        await book.start("later")
    await book.do(Answer(key="a", text=""), fence=await book.start("a"))
    await book.start("later")


async def test_a_failure_is_charged_and_due_after_a_duration_by_the_messages_own_time(book: Book) -> None:
    await book.do(Ask(key="a"))
    fence = await book.start("a")
    book.now_us = 10 * SECOND_US
    await book.do(JobFailed(fence=fence, error="boom", retry_after_s=2.5))
    row = book["a"]
    assert (row.standing, row.attempts, row.due_at_us, row.error) == ("retrying", 1, 12_500_000, "boom")


async def test_a_release_is_not_charged(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.do(JobReleased(fence=await book.start("a"), reason="drained"))
    assert (book["a"].standing, book["a"].attempts, book["a"].fence) == ("retrying", 0, None)


async def test_a_death_makes_suspects_uncharged_and_charges_the_suspect_of_the_next(book: Book) -> None:
    for key in "ab":
        await book.do(Ask(key=key))
        await book.start(key, instance="first")
    await book.do(InstanceLost(instance="first"))
    assert {(book[key].suspect, book[key].attempts, book[key].standing) for key in "ab"} == {(True, 0, "retrying")}
    await book.start("a", instance="second")
    await book.do(Ask(key="c"))
    await book.start("c", instance="second")
    await book.do(InstanceLost(instance="second"))
    assert [book[key].attempts for key in "abc"] == [1, 0, 0]
    assert book["c"].suspect


async def test_a_suspect_is_not_started_beside_another_one(book: Book) -> None:
    """Whoever saw the job before it became one may still ask for it, as the same attempt at the same job."""
    for key in "abc":
        await book.do(Ask(key=key))
    for key in "ab":
        await book.start(key, instance="first")
    await book.do(InstanceLost(instance="first"))
    await book.start("a", instance="second")
    await book.start("c", instance="second")
    with pytest.raises(Rejected, match="runs another such job"):
        await book.start("b", instance="second")
    await book.start("b", instance="third")


async def test_an_attempt_that_ends_clears_the_suspicion(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.start("a", instance="first")
    await book.do(InstanceLost(instance="first"))
    await book.do(JobFailed(fence=await book.start("a"), error="x", retry_after_s=0))
    assert not book["a"].suspect


async def test_what_must_not_be_repeated_is_parked_by_a_death(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.start("a", instance="first", park_after_crash=True)
    await book.do(InstanceLost(instance="first"))
    assert (book["a"].standing, book["a"].error) == ("parked", OUTCOME_UNKNOWN)


async def test_a_lost_instance_can_record_nothing_any_more(book: Book) -> None:
    await book.do(Ask(key="a"))
    fence = await book.start("a", instance="first")
    await book.do(InstanceLost(instance="first"))
    with pytest.raises(Fenced):
        await book.do(Answer(key="a", text=""), fence=fence)


async def test_a_person_retries_and_discards_what_is_open_and_not_running(book: Book) -> None:
    await book.do(Ask(key="a"))
    fence = await book.start("a")
    with pytest.raises(Rejected, match="being tried right now"):
        await book.do(RetryJob(worker=DESK, job="a"))
    await book.do(JobFailed(fence=fence, error="x", retry_after_s=3600))
    book.now_us = 2 * SECOND_US
    await book.do(RetryJob(worker=DESK, job="a"))
    assert (book["a"].due_at_us, book["a"].attempts) == (2 * SECOND_US, 0)
    fence = await book.start("a")
    await book.do(DiscardJob(worker=DESK, job="a", reason="not wanted"))
    with pytest.raises(Fenced):
        await book.do(Answer(key="a", text=""), fence=fence)
    assert book.state.workers[DESK].discarded == 1
    for command in (RetryJob(worker=DESK, job="a"), DiscardJob(worker=DESK, job="a", reason="again")):
        with pytest.raises(Rejected, match="no open job"):
            await book.do(command)
    with pytest.raises(Rejected, match="There is no to-do worker nobody"):
        await book.do(PauseWorker(worker="nobody"))


@pytest.mark.parametrize(
    "garbage",
    ["a string", 7, object(), [Job("x"), "y"], {"key": "x"}, (Job("x") for _ in range(1))],
)
async def test_what_opens_no_job_refuses_the_message_alone(garbage: object) -> None:
    book = Book(make(asked=opens(Ask)(lambda self, message: garbage)))
    with pytest.raises(ApplyFailed, match="it returns a Job"):
        await book.do(Ask(key="a"))
    assert book.replica.position == 0


@pytest.mark.parametrize("garbage", [7, ["a", 7], Job("a"), {"a": 1}, b"a"])
async def test_what_names_no_job_refuses_the_message_alone(garbage: object) -> None:
    class Odd(Desk):
        def answered(self, message: Message[Answer | Fail]) -> Any:
            return garbage

        answered.__journeyman__ = Desk.answered.__journeyman__  # type: ignore[attr-defined]

    book = Book(Odd())
    await book.do(Ask(key="a"))
    with pytest.raises(ApplyFailed, match="it returns a str"):
        await book.do(Answer(key="a", text=""))
    assert "a" in book


@pytest.mark.parametrize("due_in_s", [-1.0, float("nan"), float("inf")])
def test_a_job_is_checked_when_it_is_made(due_in_s: float) -> None:
    with pytest.raises(ValueError, match="due_in_s is from 0"):
        Job("a", due_in_s=due_in_s)
    with pytest.raises(TypeError, match="key is a string"):
        Job(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="subject a string or None"):
        Job("a", subject=7)  # type: ignore[arg-type]


async def test_several_jobs_and_none_can_be_opened_and_ended_by_one_message() -> None:
    def several(self: Desk, message: Message[Ask]) -> Any:
        return [Job(f"{message.body.key}{number}") for number in range(3)] if message.body.key != "none" else None

    book = Book(make(asked=opens(Ask)(several)))
    await book.do(Ask(key="none"))
    await book.do(Ask(key="a"))
    assert [row.job for row in book.state.jobs] == ["a0", "a1", "a2"]


async def test_a_renamed_worker_keeps_its_list() -> None:
    book = Book()
    await book.do(Ask(key="a"))
    await book.do(JobFailed(fence=await book.start("a"), error="x", retry_after_s=0))
    await book.do(PauseWorker(worker=DESK))
    renamed = Book(make(name="desk/new-name", former_names=(DESK,)))
    renamed.replica.replay(book.records)
    row = renamed.state.jobs["desk/new-name", "a"]
    assert (row.attempts, row.error) == (1, "x")
    assert renamed.state.workers["desk/new-name"].paused
    with pytest.raises(DefinitionError, match="a name belongs to one worker for ever"):
        JobLedger([make(name="desk/new-name", former_names=(DESK,)), Desk()])


@pytest.mark.parametrize("method", ["asked", "answered", "give_up"])
def test_what_is_needed_at_once_can_not_be_async(method: str) -> None:
    async def slow(self: Desk, *arguments: Any) -> None: ...

    slow.__journeyman__ = getattr(getattr(Desk, method), "__journeyman__", ())  # type: ignore[attr-defined]
    with pytest.raises(DefinitionError, match="make it `def`"):
        JobLedger([make(answer, Desk, **{method: slow})])


# Whatever comes in whatever order.

KEYS = ["a", "b", "c", "d", "e"]
_key = st.sampled_from(KEYS)
_steps = st.one_of(
    st.tuples(st.just("ask"), _key, st.sampled_from([None, "s", "t"]), st.sampled_from([0.0, 0.0, 5.0])),
    st.tuples(st.just("start"), _key, st.sampled_from(["i", "j"])),
    st.tuples(st.sampled_from(["answer", "retry", "discard", "park", "by hand", "stale"]), _key),
    st.tuples(st.just("fail"), _key, st.sampled_from([None, 0.0, 3.0])),
    st.tuples(st.sampled_from(["release", "end"]), _key),
    st.tuples(st.just("lose"), st.sampled_from(["i", "j"])),
    st.tuples(st.sampled_from(["pause", "resume"])),
)


def _command(book: Book, step: tuple[Any, ...], stale: set[int]) -> tuple[Command, int | None] | None:
    """What the step records, and under which fence; None when it makes no sense now."""
    verb, *rest = step
    key = rest[0] if rest else ""
    row = book.state.jobs.get((DESK, key))
    fence = row.fence if row is not None and row.fence is not None else max(stale, default=1)
    if verb == "start":
        if row is None:
            return None
        started = JobStarted(worker=DESK, job=key, opened_at=row.opened_at, attempt=row.attempts + 1, instance=rest[1])
        return started, None
    makers: dict[str, Callable[[], Command]] = {
        "ask": lambda: Ask(key=key, subject=rest[1], due_in_s=rest[2]),
        "answer": lambda: Answer(key=key, text=""),
        "by hand": lambda: Answer(key=key, text=""),
        "stale": lambda: JobEnded(fence=min(stale, default=1), reason=""),
        "fail": lambda: JobFailed(fence=fence, error="", retry_after_s=rest[1]),
        "release": lambda: JobReleased(fence=fence, reason=""),
        "end": lambda: JobEnded(fence=fence, reason=""),
        "retry": lambda: RetryJob(worker=DESK, job=key),
        "discard": lambda: DiscardJob(worker=DESK, job=key, reason=""),
        "park": lambda: JobParked(worker=DESK, job=key, reason=""),
        "lose": lambda: InstanceLost(instance=key),
        "pause": lambda: PauseWorker(worker=DESK),
        "resume": lambda: ResumeWorker(worker=DESK),
    }
    return makers[verb](), fence if verb == "answer" else None


def _check(book: Book) -> None:
    rows = list(book.state.jobs)
    for subject in ("s", "t"):
        of_subject = [row for row in rows if row.subject == subject]
        assert sum(row.standing in UNDER_WAY for row in of_subject) <= 1
        assert sum(row.standing == "waiting" for row in of_subject) <= 1
        held = any(row.standing in HOLDING for row in of_subject)
        assert held or not any(row.standing == "behind" for row in of_subject)
    for row in rows:
        assert (row.fence is not None) == (row.instance is not None) == (row.standing == "running")
        assert row.attempts >= (row.standing == "running")
        assert row.standing != "behind" or row.subject is not None
    fences = [row.fence for row in rows if row.fence is not None]
    assert len(fences) == len(set(fences))
    worker = book.state.workers.get(DESK)
    if worker is not None:
        assert worker.opened == len(rows) + worker.answered + worker.ended + worker.discarded


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, max_size=40))
async def test_whatever_is_recorded_the_lists_stay_sound_and_replay_to_the_same(steps: list[tuple[Any, ...]]) -> None:
    book = Book()
    stale: set[int] = set()
    for step in steps:
        book.now_us += SECOND_US
        before = book.replica.state.hash()
        wanted = _command(book, step, stale)
        if wanted is None:
            continue
        try:
            position = await book.do(wanted[0], fence=wanted[1])
            if step[0] == "start":
                stale.add(position)
        except Rejected:
            assert book.replica.state.hash() == before
        _check(book)
    assert book.replayed_hash() == book.replica.state.hash()


def test_the_standings_that_hold_others_back_are_the_last_in_the_alphabet() -> None:
    """The ledger looks at the last job of a subject only."""
    assert set(sorted(get_args(Standing))[-len(HOLDING) :]) == set(HOLDING)

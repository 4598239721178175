"""The contract of a worker: start, then work again and again, at last stop. Sentence by sentence."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from journeyman import App, Context, DefinitionError, Message, Query, Record, Schedule, WorkerFailed
from journeyman.follower import Follower
from journeyman.retry import describe
from journeyman.store.base import MessageLog
from journeyman.store.memory import MemoryStore
from journeyman.testing.records import make_records
from journeyman.timing import Timing
from journeyman.worker import Supervisor
from tests.todo.desk import WAIT_S, DeskState, Note, desk

#: Called only when woken, unless a test says otherwise.
SELDOM = Schedule(every_s=60, jitter_s=0, backoff_first_s=0.001, backoff_max_s=0.001)
#: Called all the time.
OFTEN = Schedule(every_s=0.001, jitter_s=0.001, backoff_first_s=0.001, backoff_max_s=0.002)


@desk.query("count")
class CountAnswers(Query[int]):
    def run(self, state: DeskState) -> int:
        return len(state.answers)


class Recording:
    """A worker that records what is done with it, and does what a test says."""

    def __init__(self, name: str = "recording", do: Callable[[Recording], Any] | None = None) -> None:
        self.name = name
        self.calls: list[str] = []
        self.tasks: list[object] = []
        self.seen: list[Message[Any]] = []
        self.do = do
        self.changed = asyncio.Event()

    async def start(self, context: Context) -> None:
        self.context = context
        self.follower = context.follow()
        self.seen += await self.follower.read()
        self.note("start")

    async def work(self) -> None:
        self.note("work")
        self.seen += await self.follower.read()
        self.changed.set()
        if self.do is not None:
            await self.do(self)
            self.changed.set()

    async def stop(self, context: Context) -> None:
        self.note("stop")

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.tasks.append(asyncio.current_task())
        self.changed.set()

    async def until(self, look: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not look():
                self.changed.clear()
                await self.changed.wait()


def app_with(*workers: Any, schedule: Schedule = SELDOM, **options: Any) -> App:
    app = App(features=[desk], **options)
    for worker in workers:
        app.register(worker, schedule=schedule)
    return app


# Registered with the app; the app starts all workers, one task each; start first; stop for every worker.


async def test_the_app_starts_every_registered_worker_in_a_task_of_its_own_and_stops_every_one() -> None:
    workers = [Recording("one"), Recording("two")]
    app = App(features=[desk], workers=[workers[0]])
    app.register(workers[1], schedule=SELDOM)
    async with app.running("memory:"):
        for worker in workers:
            await worker.until(lambda: "work" in worker.calls)  # noqa: B023  # it is awaited within the loop
    for worker in workers:
        assert worker.calls[0] == "start"
        assert set(worker.calls[1:-1]) == {"work"}
        assert worker.calls[-1] == "stop"
        assert len(set(worker.tasks)) == 1
    assert workers[0].tasks[0] is not workers[1].tasks[0]
    assert asyncio.current_task() not in workers[0].tasks


async def test_start_loads_state_by_reading_the_log_before_the_app_is_started() -> None:
    store = MemoryStore()
    async with App(features=[desk]).running(store) as app:
        await app.execute(Note(text="old"))
    worker = Recording()
    async with app_with(worker).running(store):
        assert [message.body.text for message in worker.seen] == ["old"]


@pytest.mark.parametrize("error", [RuntimeError("no key"), SystemExit(1), asyncio.CancelledError()])
async def test_a_worker_that_cannot_start_is_a_failed_start_and_the_others_are_stopped(error: BaseException) -> None:
    class Broken(Recording):
        async def start(self, context: Context) -> None:
            raise error

    first, broken = Recording("first"), Broken("broken")
    app = app_with(first, broken)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(WorkerFailed, match="The worker broken could not start") as caught:
            await app.start("memory:")
    assert type(caught.value.__cause__) is type(error)
    assert first.calls[-1] == "stop"
    assert "stop" not in broken.calls


def test_what_is_no_worker_and_a_second_one_of_a_name_are_refused() -> None:
    app = App(features=[desk])
    with pytest.raises(DefinitionError, match="is no worker"):
        app.register(object())  # type: ignore[arg-type]


async def test_two_workers_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="Two workers are named one"):
        app_with(Recording("one"), Recording("one"))


# By default work runs when the log has grown, at once, and else once a second plus up to a second of jitter.


async def test_work_is_called_at_once_when_the_log_grows() -> None:
    worker = Recording()
    async with app_with(worker).running("memory:") as app:
        await worker.until(lambda: "work" in worker.calls)
        for number in range(5):
            receipt = await app.execute(Note(text=str(number)))
            await worker.until(lambda: worker.follower.position >= receipt.position)  # noqa: B023
    assert [message.body.text for message in worker.seen] == list("01234")


async def test_nothing_that_comes_during_work_is_missed() -> None:
    async def add_one_more(worker: Recording) -> None:
        if len(worker.seen) < 50:
            await worker.context.app.execute(Note(text=str(len(worker.seen))))

    worker = Recording(do=add_one_more)
    async with app_with(worker).running("memory:"):
        await worker.until(lambda: len(worker.seen) >= 50)


def test_the_default_schedule_is_a_second_and_up_to_a_second_of_jitter() -> None:
    assert (Schedule().every_s, Schedule().jitter_s) == (1.0, 1.0)


async def test_without_growth_work_is_called_again_after_a_pause_with_jitter() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    worker = Recording()
    schedule = Schedule(every_s=0.002, jitter_s=0.003)
    app = app_with(worker, schedule=schedule, timing=Timing(uniform=uniform))
    async with app.running("memory:"):
        started_s = asyncio.get_running_loop().time()
        await worker.until(lambda: worker.calls.count("work") >= 10)
        elapsed_s = asyncio.get_running_loop().time() - started_s
    assert asked.count((0, 0.003)) >= 9
    assert elapsed_s >= 8 * 0.005


async def test_a_worker_that_wakes_itself_all_the_time_does_not_hold_the_loop() -> None:
    class Eager(Recording):
        async def work(self) -> None:
            self.note("work")
            self.context.wake()

    worker = Eager()
    async with asyncio.timeout(WAIT_S), app_with(worker).running("memory:") as app:
        await app.execute(Note(text="comes through"))
        await worker.until(lambda: worker.calls.count("work") >= 10)


# It keeps its own position, and asks only for newer messages.


class Asked:
    """A log that records from which positions it is read."""

    def __init__(self, log: MessageLog) -> None:
        self.log = log
        self.afters: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def read(self, after: int, limit: int, *, name: str | None = None) -> Sequence[Record]:
        self.afters.append(after)
        return await self.log.read(after, limit, name=name)


async def test_a_worker_with_its_own_log_follows_that_and_asks_only_for_newer_messages() -> None:
    own = MemoryStore()
    body, name = b'{"text":"own"}', "desk/note"
    records = [_note(record, name, body) for record in make_records(6)]
    await own.log.append(records[:3], after=0)
    asked = Asked(own.log)
    log: Any = asked
    worker = Recording()
    app = App(features=[desk])
    app.register(worker, log=log, schedule=SELDOM)
    async with app.running("memory:") as running:
        await running.execute(Note(text="the application's"))
        for position in (3, 4, 5):
            await own.log.append([records[position]], after=position)
            await worker.until(lambda: worker.follower.position > position)  # noqa: B023
        assert worker.context.log is log
    assert [message.body.text for message in worker.seen] == ["own"] * 6
    assert asked.afters == sorted(asked.afters)
    assert asked.afters[0] == 0
    assert asked.afters.count(0) == 1


async def test_what_cannot_be_read_in_an_own_log_is_told_by_position_and_name() -> None:
    own = MemoryStore()
    record = make_records(1)[0]
    await own.log.append([_note(record, "desk/note", b"broken")], after=0)
    worker = Recording()
    app = App(features=[desk])
    app.register(worker, log=own.log, schedule=SELDOM)
    with pytest.raises(WorkerFailed, match=r"The message at position 1 \(desk/note\) can't be applied"):
        await app.start("memory:")


def _note(record: Record, name: str, body: bytes) -> Record:
    return Record(
        position=record.position,
        id=record.id,
        name=name,
        version=1,
        subject=None,
        body=body,
        recorded_at_us=0,
        correlation_id=record.id,
    )


async def test_a_worker_keeps_its_own_position() -> None:
    worker = Recording()
    async with app_with(worker).running("memory:") as app:
        await app.execute(Note(text="a"))
        await worker.until(lambda: len(worker.seen) == 1)
        follower: Follower = worker.context.follow(after=1)
        assert await follower.read() == []
        await app.execute(Note(text="b"))
        assert [message.body.text for message in await follower.read()] == ["b"]


# Queries and commands from within.


async def test_a_worker_asks_queries_and_dispatches_commands() -> None:
    async def count(worker: Recording) -> None:
        if worker.seen and worker.seen[-1].body.text == "how many?":
            found = await worker.context.app.query(CountAnswers())
            await worker.context.app.execute(Note(text=f"{found}"), actor=worker.name, cause=worker.seen[-1])

    worker = Recording(do=count)
    async with app_with(worker).running("memory:") as app:
        await app.execute(Note(text="how many?"))
        await worker.until(lambda: len(worker.seen) == 2)
    assert worker.seen[1].body.text == "0"
    assert (worker.seen[1].actor, worker.seen[1].causation_id) == (worker.name, worker.seen[0].id)


class Blocking:
    """A worker of plain functions."""

    name = "blocking"

    def __init__(self, loop: asyncio.AbstractEventLoop, *, notes: int = 3) -> None:
        self.loop = loop
        self.notes = notes
        self.threads: dict[str, set[int]] = {"start": set(), "work": set(), "stop": set()}
        self.texts: list[str] = []
        self.done = asyncio.Event()
        self.left_s: float | None = -1.0

    def start(self, context: Context) -> None:
        self.threads["start"].add(threading.get_ident())
        self.context = context
        self.follower = context.follow()

    def work(self) -> None:
        self.threads["work"].add(threading.get_ident())
        self.texts += [message.body.text for message in self.context.wait_for(self.follower.read())]
        if len(self.texts) < self.notes:
            count = self.context.app.blocking.query(CountAnswers())
            self.context.app.blocking.execute(Note(text=f"{len(self.texts)} {count}"))
            self.context.wake()
        else:
            self.loop.call_soon_threadsafe(self.done.set)

    def stop(self, context: Context) -> None:
        self.threads["stop"].add(threading.get_ident())
        self.left_s = context.remaining_s()


async def test_a_blocking_worker_runs_in_threads_where_it_reads_asks_and_dispatches() -> None:
    worker = Blocking(asyncio.get_running_loop())
    async with app_with(worker).running("memory:", drain_s=5.0):
        async with asyncio.timeout(WAIT_S):
            await worker.done.wait()
    assert worker.texts == ["0 0", "1 0", "2 0"]
    assert all(threading.get_ident() not in idents and idents for idents in worker.threads.values())
    assert worker.left_s is not None
    assert 0 < worker.left_s <= 5.0


async def test_a_blocking_work_stalls_neither_the_app_nor_another_worker() -> None:
    go = threading.Event()

    class Stuck(Blocking):
        def work(self) -> None:
            go.wait(WAIT_S)

    other = Recording()
    async with app_with(Stuck(asyncio.get_running_loop()), other).running("memory:") as app:
        await app.execute(Note(text="on"))
        await other.until(lambda: len(other.seen) == 1)
        go.set()


async def test_a_def_around_an_async_def_is_awaited() -> None:
    class Decorated(Recording):
        def work(self) -> Any:
            return functools.partial(super().work)()

    worker = Decorated()
    async with app_with(worker).running("memory:") as app:
        await app.execute(Note(text="a"))
        await worker.until(lambda: len(worker.seen) == 1)


# An error in work is recorded, shown and retried with backoff; it never ends the app or another worker.


@pytest.mark.parametrize(
    "error", [ValueError("broken"), SystemExit(2), asyncio.CancelledError("inner"), StopIteration()]
)
async def test_an_error_in_work_is_shown_and_retried_and_ends_nothing_else(error: BaseException) -> None:
    broken = True

    async def fail(worker: Recording) -> None:
        if broken:
            raise error

    failing, other = Recording("failing", do=fail), Recording("other")
    async with app_with(failing, other, schedule=OFTEN).running("memory:") as app:
        await failing.until(lambda: failing.calls.count("work") >= 3)
        [shown, healthy] = await app.workers()
        assert shown.status == "failing"
        assert shown.last_error is not None
        assert type(error).__name__ in shown.last_error
        assert healthy.status == "running"
        await app.execute(Note(text="on"))
        await other.until(lambda: len(other.seen) == 1)
        broken = False
        after = failing.calls.count("work")
        await failing.until(lambda: failing.calls.count("work") >= after + 2)
        assert (await app.workers())[0].status == "running"
    assert failing.calls[-1] == "stop"


async def test_after_an_error_growth_does_not_cut_the_backoff_short() -> None:
    async def fail(worker: Recording) -> None:
        raise ValueError("broken")

    failing, other = Recording("failing", do=fail), Recording("other")
    schedule = Schedule(every_s=0, jitter_s=0, backoff_first_s=60, backoff_max_s=60)
    async with app_with(failing, schedule=schedule).running("memory:") as app:
        await failing.until(lambda: "work" in failing.calls)
        app_position = 0
        for number in range(50):
            app_position = (await app.execute(Note(text=str(number)))).position
    assert app_position == 50
    assert failing.calls == ["start", "work", "stop"]
    assert other.calls == []


async def test_the_backoff_grows_with_failures_and_starts_anew_after_a_success() -> None:
    pauses: list[float] = []

    def uniform(low: float, high: float) -> float:
        pauses.append(high)
        return 0.0

    async def fail(worker: Recording) -> None:
        if worker.calls.count("work") != 4:
            raise ValueError("broken")

    schedule = Schedule(every_s=0.0, jitter_s=0.0, backoff_first_s=1.0, backoff_max_s=6.0)
    worker = Recording(do=fail)
    async with app_with(worker, schedule=schedule, timing=Timing(uniform=uniform)).running("memory:"):
        await worker.until(lambda: worker.calls.count("work") >= 9)
    assert pauses[:8] == [1.0, 2.0, 4.0, 0.0, 1.0, 2.0, 4.0, 6.0]


# At shutdown every worker's stop, with a deadline.


async def test_a_work_that_does_not_end_is_cut_off_and_stop_still_has_its_time() -> None:
    async def for_ever(worker: Recording) -> None:
        await asyncio.Event().wait()

    left: list[float | None] = []

    class Slow(Recording):
        async def stop(self, context: Context) -> None:
            left.append(context.remaining_s())
            await super().stop(context)

    worker = Slow(do=for_ever)
    async with asyncio.timeout(WAIT_S), app_with(worker).running("memory:", drain_s=0.2):
        await worker.until(lambda: "work" in worker.calls)
    assert worker.calls[-1] == "stop"
    assert left[0] is not None
    assert 0 < left[0] <= 0.2


async def test_work_is_told_of_the_stop_and_may_end_by_itself() -> None:
    ended: list[bool] = []

    async def until_stopping(worker: Recording) -> None:
        await worker.context.stopping.wait()
        ended.append(True)

    worker = Recording(do=until_stopping)
    async with app_with(worker).running("memory:", drain_s=30):
        await worker.until(lambda: "work" in worker.calls)
    assert ended == [True]


async def test_a_stop_that_hangs_or_fails_does_not_hold_the_app() -> None:
    class Hanging(Recording):
        async def stop(self, context: Context) -> None:
            await super().stop(context)
            await asyncio.Event().wait()

    class Failing(Recording):
        async def stop(self, context: Context) -> None:
            await super().stop(context)
            raise SystemExit(1)

    workers = [Hanging("hanging"), Failing("failing")]
    async with asyncio.timeout(WAIT_S), app_with(*workers).running("memory:", drain_s=0.1):
        for worker in workers:
            await worker.until(lambda: "work" in worker.calls)  # noqa: B023
    assert all(worker.calls[-1] == "stop" for worker in workers)


async def test_a_worker_that_ignores_being_cancelled_is_left_behind() -> None:
    release = asyncio.Event()

    class Stubborn(Recording):
        async def work(self) -> None:
            self.note("work")
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

    worker = Stubborn()
    context = Context(None, None, wake=lambda: None)  # type: ignore[arg-type]  # this worker uses neither
    context.follow = lambda **_: _NoMessages()  # type: ignore[method-assign,assignment]
    supervisor = Supervisor(worker, context, asyncio.Event(), timing=Timing(), schedule=SELDOM)
    await supervisor.start()
    await worker.until(lambda: "work" in worker.calls)
    async with asyncio.timeout(WAIT_S):
        await supervisor.stop(0.05)
    assert supervisor.last_error is not None
    assert "left behind" in supervisor.last_error
    release.set()


class _NoMessages:
    async def read(self) -> list[Message[Any]]:
        return []


def test_an_error_is_told_in_one_line_that_can_be_recorded_whatever_it_is() -> None:
    class Untellable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert describe(Untellable()).startswith("Untellable, whose text can't be made")
    assert describe(ValueError("a\ud800b\nc")) == "ValueError: a?b c"
    assert len(describe(ValueError("x" * 10_000))) <= 500

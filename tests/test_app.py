"""An application starts whole or not at all, stops in order, and says why when it can't go on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journeyman import (
    App,
    Context,
    DefinitionError,
    Feature,
    NotReady,
    NotRunning,
    Outdated,
    Poisoned,
    State,
    UnknownName,
    WorkerFailed,
    open_store,
)
from journeyman.app import STORE_DEFAULT
from journeyman.store.base import MessageLog
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held
from journeyman.testing.records import make_records
from tests.notes import PATIENCE_S, Create, Get, List, Weigh, create_elsewhere, everything, notes, running, submit


class Recorder:
    """A worker that tells what became of it; `start` raises what it is given."""

    def __init__(self, name: str = "recorder", *, error: Exception | None = None) -> None:
        self.name = name
        self.calls: list[str] = []
        self.stopped = asyncio.Event()
        self.worked = asyncio.Event()
        self._error = error

    async def start(self, context: Context) -> None:
        self.calls.append("start")
        if self._error is not None:
            raise self._error

    async def work(self) -> None:
        self.worked.set()

    async def stop(self, context: Context) -> None:
        self.calls.append("stop")
        self.stopped.set()


def blog(*workers: Any, store: str | None = None) -> App:
    return App(features=[notes], workers=workers, store=store)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


async def append(log: MessageLog, name: str, body: bytes = b"{}") -> None:
    head = await log.head()
    await log.append(make_records(1, after=head, name=name, body=body), after=head)


# Where it lives.


def test_the_store_is_the_one_given_else_the_environments_else_the_applications(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("JOURNEYMAN_STORE", raising=False)
    assert blog().store_url() == STORE_DEFAULT
    assert blog(store="sqlite:///own.db").store_url() == "sqlite:///own.db"
    monkeypatch.setenv("JOURNEYMAN_STORE", "sqlite:///environment.db")
    assert blog(store="sqlite:///own.db").store_url() == "sqlite:///environment.db"
    assert blog(store="sqlite:///own.db").store_url("memory:") == "memory:"
    monkeypatch.setenv("JOURNEYMAN_STORE", "")
    assert blog(store="sqlite:///own.db").store_url() == "sqlite:///own.db"


async def test_it_opens_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNEYMAN_STORE", f"sqlite:///{tmp_path}/environment.db")
    async with blog(store="memory:").running() as app:
        await app.execute(Create(note_id="a"))
    assert (tmp_path / "environment.db").exists()


async def test_a_store_that_was_given_open_stays_open(store: FaultyStore) -> None:
    async with blog().running(store):
        pass
    assert store.closed == 0


# Starting.


async def test_before_the_start_and_after_the_end_nothing_can_be_asked_or_executed(store: FaultyStore) -> None:
    app = blog()
    for _ in range(2):
        with pytest.raises(NotRunning):
            await app.execute(Create(note_id="a"))
        with pytest.raises(NotRunning):
            await app.query(List())
        async with app.running(store):
            assert await app.query(List()) == ()
    await app.stop()


async def test_while_it_still_reads_the_log_nothing_can_be_asked_or_executed(store: FaultyStore) -> None:
    """A query would see half a state; a command would wait for ever if the start failed."""
    for number in range(3):
        await create_elsewhere(store.log, str(number))
    app = blog()
    store.faulty_log.hold_reads()
    starting = asyncio.create_task(app.start(store))
    await store.faulty_log.read_arrived.wait()
    with pytest.raises(NotRunning):
        await app.query(List())
    with pytest.raises(NotRunning):
        await app.execute(Create(note_id="a"))
    with pytest.raises(DefinitionError, match="started already"):
        await app.start(store)
    store.faulty_log.release_reads()
    await starting
    assert await app.query(List()) == ("0", "1", "2")
    with pytest.raises(DefinitionError, match="started already"):
        await app.start(store)
    with pytest.raises(DefinitionError, match="before the application is started"):
        app.register(Recorder())
    await app.stop()


async def test_a_worker_that_can_not_start_fails_the_start_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, broken = Recorder("first"), Recorder("broken", error=ZeroDivisionError("no key"))
    app = blog(first, broken)
    opened = FaultyStore(await open_store(f"sqlite:///{tmp_path}/a.db"))

    async def open_counted(url: str) -> FaultyStore:
        return opened

    monkeypatch.setattr("journeyman.app.open_store", open_counted)
    with pytest.raises(WorkerFailed, match=r"broken.*no key") as failed:
        await app.start("sqlite:///a.db")
    assert isinstance(failed.value.__cause__, ZeroDivisionError)
    assert first.calls == ["start", "stop"]
    assert opened.closed == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with pytest.raises(NotRunning):
        await app.query(List())


async def test_a_state_that_can_not_be_made_fails_the_start_and_leaves_no_store_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(State):
        def __init__(self, *arguments: Any) -> None:
            raise ZeroDivisionError("a mistake in the application")

    app = App(features=[Feature("broken", state=Broken)])
    opened, given = FaultyStore(MemoryStore()), FaultyStore(MemoryStore())

    async def open_counted(url: str) -> FaultyStore:
        return opened

    monkeypatch.setattr("journeyman.app.open_store", open_counted)
    with pytest.raises(ZeroDivisionError):
        await app.start("memory:")
    with pytest.raises(ZeroDivisionError):
        await app.start(given)
    assert (opened.closed, given.closed) == (1, 0)


async def test_a_start_that_is_cancelled_leaves_nothing_behind(store: FaultyStore) -> None:
    app = blog()
    await create_elsewhere(store.log, "a")
    store.faulty_log.hold_reads()
    starting = asyncio.create_task(app.start(store))
    await store.faulty_log.read_arrived.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    store.faulty_log.release_reads()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    async with app.running(store):
        assert await app.query(List()) == ("a",)


async def test_a_store_that_can_not_be_opened_fails_the_start(tmp_path: Path) -> None:
    app = blog()
    with pytest.raises(NotReady, match="no folder"):
        await app.start(f"sqlite:///{tmp_path}/none/a.db")
    with pytest.raises(UnknownName):
        await app.start("carrier-pigeon:")
    async with app.running("memory:"):
        pass


@pytest.mark.parametrize(
    ("name", "body"),
    [("notes/unheard-of", b"{}"), ("notes/create", b"[]"), ("notes/weigh", b'{"grams": "7"}')],
)
async def test_a_message_that_can_not_be_applied_stops_the_start_with_the_next_step(
    store: FaultyStore, name: str, body: bytes
) -> None:
    await create_elsewhere(store.log, "a")
    await append(store.log, name, body)
    with pytest.raises(Poisoned, match="log set-aside 2") as poisoned:
        await blog().start(store)
    assert (poisoned.value.position, poisoned.value.name) == (2, name)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("workers", "why"),
    [
        ([Recorder("one"), Recorder("one")], "Two workers"),
        ([object()], "no worker"),
    ],
)
def test_workers_that_can_not_be_told_apart_are_refused(workers: list[Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        blog(*workers)


# Going on, and not.


@pytest.mark.parametrize(("body", "error"), [(b"[]", Poisoned), (None, Outdated)])
async def test_a_running_process_that_meets_what_it_can_not_apply_stops_and_says_so(
    store: FaultyStore, body: bytes | None, error: type[Exception]
) -> None:
    worker = Recorder()
    app = blog(worker)
    async with asyncio.timeout(PATIENCE_S), app.running(store, drain_s=1.0):
        await app.execute(Create(note_id="a"))
        waiting = asyncio.create_task(app.query(List(), at_least=99, timeout_s=1000))
        await append(store.log, "notes/create" if body else "notes/of-tomorrow", body or b"{}")
        with pytest.raises(error):
            await app.wait()
        for call in (app.execute(Create(note_id="b")), app.query(List()), app.query(List(), at_least=2), waiting):
            with pytest.raises(error) as told:
                await call
            assert told.value.position == 2  # type: ignore[attr-defined]  # both have it
        await worker.stopped.wait()
    assert worker.calls == ["start", "stop"]
    assert len(await everything(store)) == 2, "nothing was recorded behind it"


async def test_wait_ends_when_the_application_stops(store: FaultyStore) -> None:
    app = blog()
    await app.start(store)
    waiting = asyncio.create_task(app.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await app.stop()
    await waiting


async def test_cancelling_who_waits_stops_nothing(store: FaultyStore) -> None:
    async with running(store) as app:
        waiting = asyncio.create_task(app.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        await app.execute(Create(note_id="a"))


async def test_workers_are_stopped_before_the_executor_and_the_store_last(tmp_path: Path) -> None:
    class Last(Recorder):
        async def stop(self, context: Context) -> None:
            await context.app.execute(Create(note_id="last words"))
            await super().stop(context)

    url = f"sqlite:///{tmp_path}/a.db"
    async with blog(Last()).running(url) as app:
        opened = app.store
    with pytest.raises(NotReady, match="closed"):
        await opened.log.head()
    async with blog().running(url) as app:
        assert await app.query(List()) == ("last words",)


async def test_what_goes_on_beside_is_ended_once_at_each_stop_until_it_has_ended_by_itself() -> None:
    app, ended = App(features=[notes]), list[str]()

    async def end() -> None:
        ended.append("end")

    async def leave() -> None:
        ended.append("leave")
        app.not_at_stop(leave)
        app.not_at_stop(leave)  # Harmless when repeated.

    app.at_stop(leave)
    app.at_stop(end)
    app.at_stop(end)
    for told in (["leave", "end"], ["leave", "end", "end"]):
        async with app.running("memory:"):
            pass
        assert ended == told
    app.not_at_stop(end)
    async with app.running("memory:"):
        pass
    assert ended == ["leave", "end", "end"]


async def test_a_store_that_does_not_answer_can_not_keep_it_from_stopping(store: FaultyStore) -> None:
    app = blog()
    await app.start(store)
    held = store.faulty_log.fail_next(Held())
    callers = submit(app, Create(note_id="a"))
    await held.arrived.wait()
    async with asyncio.timeout(PATIENCE_S):
        await app.stop(drain_s=0.0)
    await asyncio.wait(callers)
    assert callers[0].exception() is not None
    held.release()
    await held.ended.wait()


async def test_stopping_that_is_cancelled_still_closes_everything(tmp_path: Path) -> None:
    class Slow(Recorder):
        async def stop(self, context: Context) -> None:
            self.stopped.set()
            await asyncio.Event().wait()

    worker = Slow()
    app = blog(worker)
    await app.start(f"sqlite:///{tmp_path}/a.db")
    opened = app.store
    stopping = asyncio.create_task(app.stop(drain_s=0.5))
    await worker.stopped.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    with pytest.raises(NotReady, match="closed"):
        await opened.log.head()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_at_a_signal_with_everything_stopped(tmp_path: Path, number: signal.Signals) -> None:
    class Killing(Recorder):
        async def work(self) -> None:
            os.kill(os.getpid(), number)

    worker = Killing()
    blog(worker).run(f"sqlite:///{tmp_path}/a.db", drain_s=1.0)
    assert worker.calls == ["start", "stop"]


def test_run_raises_why_the_application_can_not_go_on(tmp_path: Path) -> None:
    class Poisoning(Recorder):
        async def start(self, context: Context) -> None:
            await append(context.log, "notes/create", b"[]")

    with pytest.raises(Poisoned):
        blog(Poisoning()).run(f"sqlite:///{tmp_path}/a.db", drain_s=1.0)


# Looking.


async def test_code_in_a_thread_executes_and_asks(store: FaultyStore) -> None:
    async with running(store) as app:
        blocking = app.blocking

        def work() -> str:
            blocking.execute(Create(note_id="a", text="from a thread"))
            return blocking.query(Get(note_id="a"))

        assert await asyncio.to_thread(work) == "from a thread"


async def test_a_cause_is_recorded_as_causation_and_correlation(store: FaultyStore) -> None:
    async with running(store) as app:
        await app.execute(Create(note_id="a"))
        first = await app.messages.get(1)
        assert first is not None
        await app.execute(Create(note_id="b"), cause=first)
        second = await app.messages.get(2)
        assert second is not None
        await app.execute(Create(note_id="c"), cause=second)
        third = await app.messages.get(3)
        assert third is not None
        assert (second.causation_id, third.causation_id) == (first.id, second.id)
        assert {first.correlation_id, second.correlation_id, third.correlation_id} == {first.id}


async def test_a_query_or_command_of_no_feature_is_unknown(store: FaultyStore) -> None:
    async with asyncio.timeout(PATIENCE_S), App(features=[]).running(store) as app:
        with pytest.raises(UnknownName):
            await app.query(List())
        with pytest.raises(UnknownName):
            await app.execute(Weigh(grams=1))


async def test_a_process_tells_which_workers_it_runs(store: FaultyStore) -> None:
    app = blog(Recorder())
    async with app.running(store):
        assert [(status.name, status.status) for status in await app.workers()] == [("recorder", "running")]
    async with app.running(store, workers=False):
        (status,) = await app.workers()
        assert msgspec.structs.asdict(status)["status"] == "not running"

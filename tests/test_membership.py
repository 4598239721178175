"""Several processes run the workers: what one leaves is taken over, and one that was taken for gone goes on rightly."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from journeyman import App, Attempt, Command, Context, Message, Rejected, reacts
from journeyman.errors import NotReady
from journeyman.heartbeat import Note as InstanceNote
from journeyman.heartbeat import Silence, decode_note, is_dead
from journeyman.pending import Envelope
from journeyman.store.base import Entry, KeyValue
from journeyman.store.memory import MemoryKeys, MemoryStore
from journeyman.testing.faults import FaultyStore
from journeyman.todo.jobs import InstanceLost, JobStarted
from journeyman.todo.ledger import jobs_state
from tests.todo.desk import (
    WAIT_S,
    Answer,
    Ask,
    Desk,
    Note,
    answer,
    answered,
    desk,
    idle,
    job_of,
    log_of,
    names,
    running,
    standing,
    until,
)

#: Short enough not to be waited for, long enough for a loaded machine to beat in time.
TAKEOVER_S = 1.0

#: So long that nothing is taken over because of silence.
FOREVER_S = 1000.0


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class Held(Desk):
    """Performs when it is told to."""

    concurrency = 8

    def __init__(self) -> None:
        super().__init__(self.wait)
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def wait(self, attempt: Attempt[Ask]) -> Command:
        self.begun.set()
        await self.go.wait()
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")


class Other:
    """Another process, as far as others can see it: its role, its notes, and the attempts that it has begun."""

    def __init__(self, store: MemoryStore, instance: str) -> None:
        self.store, self.instance = store, instance

    async def beat(self, *, left: bool = False) -> None:
        note = InstanceNote(pid=1, host="other", started_at_us=0, at_us=0, left=left)
        await self.store.keys.put(f"instances/{self.instance}", msgspec.json.encode(note))

    async def die(self) -> None:
        await self.store.close()

    async def key(self) -> Entry | None:
        return await self.store.keys.get(f"instances/{self.instance}")


@asynccontextmanager
async def another(store: MemoryStore, *keys: str, instance: str = "other") -> AsyncIterator[Other]:
    """Another process that lives, with an attempt open at a job for each key."""
    other = Other(await store.open_again(), instance)
    assert await other.store.claim(f"instance/{instance}")
    await other.beat()
    async with running(Held(), store=store, workers_run=False) as app:
        for key in keys:
            receipt = await app.execute(Ask(key=key))
            started = JobStarted(worker=Desk.name, job=key, opened_at=receipt.position, attempt=1, instance=instance)
            await app._now_running().executor.submit(started, Envelope())
    yield other
    await other.die()


@pytest.mark.parametrize("where", ["memory", "sqlite"])
async def test_processes_share_the_jobs_and_each_job_gets_one_answer(where: str, tmp_path: Path) -> None:
    store = MemoryStore() if where == "memory" else f"sqlite:///{tmp_path / 'desk.db'}"

    async def take_a_while(attempt: Attempt[Ask]) -> Command:
        # Else one process may be done with all of them before the other has its turn.
        await asyncio.sleep(0.02)
        return await answer(attempt)

    one, two = Desk(take_a_while), Desk(take_a_while)
    async with running(one, store=store) as app, running(two, store=store) as other:
        await asyncio.gather(*((app, other)[n % 2].execute(Ask(key=str(n))) for n in range(100)))
        await until(app, answered(*map(str, range(100))))
        await until(other, answered(*map(str, range(100))))
        assert await app.state_hash() == await other.state_hash()
        tried = Counter(one.tried + two.tried)
        assert tried.keys() == set(map(str, range(100)))
        assert set(tried.values()) == {1}
        assert one.tried
        assert two.tried
        assert Counter(names(await log_of(app)))["answer"] == 100


async def test_processes_that_start_together_agree_on_a_new_reaction(tmp_path: Path) -> None:
    class Reacting(Desk):
        @reacts(Note, name="ask", since=0)
        def ask(self, message: Message[Note]) -> Ask:
            return Ask(key=message.body.text)

    async with AsyncExitStack() as stack:
        url = f"sqlite:///{tmp_path / 'desk.db'}"
        apps = [App(features=[desk], workers=[Reacting()]) for _ in range(4)]
        await asyncio.gather(*(stack.enter_async_context(app.running(url)) for app in apps))
        await asyncio.gather(*(app.execute(Note(text=str(n))) for n, app in enumerate(apps)))
        await until(apps[0], answered(*map(str, range(4))))
        assert len(await log_of(apps[0], "journeyman/reaction-added")) == 1
        assert len(await log_of(apps[0], "desk/ask")) == 4


async def test_a_dead_process_is_taken_over_at_once(store: MemoryStore) -> None:
    async with another(store, "a", "b") as other, running(Desk(), store=store, takeover_s=FOREVER_S) as app:
        await until(app, job_of("a"))
        assert not await log_of(app, "journeyman/instance-lost")
        await other.die()
        await until(app, answered("a", "b"))
        [lost] = await log_of(app, "journeyman/instance-lost")
        assert app.catalog.codec.decode(lost).body == InstanceLost(instance="other")
        # By another thread, so that the jobs may be done before.
        async with asyncio.timeout(WAIT_S):
            while await other.key() is not None:  # noqa: ASYNC110  # what is deleted sets no event
                await asyncio.sleep(0.01)


async def test_what_a_dead_process_left_is_taken_over_before_any_worker_starts(store: MemoryStore) -> None:
    async with another(store, "a") as other:
        await other.die()
    seen: list[int] = []

    class Looking(Desk):
        async def start(self) -> None:
            seen.append(len(await store.log.read(0, 100, name="journeyman/instance-lost")))

    async with running(Looking(), store=store, takeover_s=FOREVER_S):
        assert seen == [1]


async def test_a_silent_process_is_taken_over_once_whoever_sees_it_first(store: MemoryStore) -> None:
    async with another(store, "a") as other, running(Desk(), store=store, takeover_s=TAKEOVER_S) as app:
        async with running(Desk(), store=store, takeover_s=TAKEOVER_S) as third:
            await until(app, answered("a"))
            await until(third, idle)
        assert len(await log_of(app, "journeyman/instance-lost")) == 1
        assert not await is_dead(store, other.instance)


async def test_a_process_that_beats_is_not_taken_over(store: MemoryStore) -> None:
    async with another(store, "a") as other, running(Desk(), store=store, takeover_s=TAKEOVER_S) as app:
        deadline = time.monotonic() + 2 * TAKEOVER_S
        while time.monotonic() < deadline:
            await other.beat()
            await asyncio.sleep(TAKEOVER_S / 20)
        assert not await log_of(app, "journeyman/instance-lost")
        # Had it been silent, it would have been taken over: it is.
        await until(app, answered("a"))


async def test_who_can_not_beat_takes_nobody_for_silent() -> None:
    store = BrokenStore()
    async with another(store, "a"), running(Desk(), store=store, takeover_s=TAKEOVER_S) as app:
        store.broken.fails = True
        await asyncio.sleep(2 * TAKEOVER_S)
        assert not await log_of(app, "journeyman/instance-lost")
        store.broken.fails = False
        await until(app, answered("a"))


class BrokenKeys(MemoryKeys):
    fails = False

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        if self.fails:
            raise NotReady("The disk fails on purpose.")
        return await super().put(key, value, expect=expect)


class BrokenStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.broken = BrokenKeys()
        self.keys: KeyValue = self.broken


@pytest.mark.blocks_loop("a loop that is kept busy is what this is about")
async def test_a_process_whose_loop_is_kept_busy_goes_on_beating(store: MemoryStore) -> None:
    held = Held()
    async with running(held, store=store, takeover_s=TAKEOVER_S) as app:
        await app.execute(Ask(key="a"))
        await held.begun.wait()
        before = await store.keys.get(f"instances/{app.instance}")
        time.sleep(TAKEOVER_S)  # noqa: ASYNC251
        after = await store.keys.get(f"instances/{app.instance}")
        assert before is not None
        assert after is not None
        assert after.revision > before.revision
        held.go.set()
        await until(app, answered("a"))


# The own loss.


async def test_who_reads_its_own_loss_cancels_and_goes_on_under_another_id(store: MemoryStore) -> None:
    held = Held()
    async with running(held, store=store, takeover_s=FOREVER_S) as app:
        await app.execute(Ask(key="a"))
        await held.begun.wait()
        old = app.instance
        held.begun.clear()
        await app._now_running().executor.submit(InstanceLost(instance=old), Envelope())
        await held.begun.wait()
        assert app.instance != old
        assert await store.keys.get(f"instances/{old}") is None
        assert await is_dead(store, old)
        assert not await is_dead(store, app.instance)
        held.go.set()
        await until(app, answered("a"))
        started = [app.catalog.codec.decode(record).body for record in await log_of(app, "journeyman/job-started")]
        assert [one.instance for one in started] == [old, app.instance]
        assert len(await log_of(app, "desk/answer")) == 1
        assert held.tried == ["a", "a"]


async def test_the_late_answer_of_one_that_was_taken_over_is_fenced(store: MemoryStore) -> None:
    faulty = FaultyStore(store)
    held = Held()
    async with running(held, store=faulty, takeover_s=FOREVER_S) as app:
        await app.execute(Ask(key="a"))
        await held.begun.wait()
        async with running(Desk(), store=store, workers_run=False) as other:
            # Just when it has its answer, and before it could read of its loss.
            faulty.faulty_log.fail_waits(NotReady("It hears of nothing, on purpose."))
            await other._now_running().executor.submit(InstanceLost(instance=app.instance), Envelope())
            held.go.set()
            await until(other, answered("a"))
            [answer] = await log_of(other, "desk/answer")
            starts = await log_of(other, "journeyman/job-started")
            assert answer.fence == starts[-1].position
            assert len(starts) == 2


async def begin(app: App, key: str, instance: str) -> JobStarted:
    """Record an attempt in the name of another process."""
    receipt = await app.execute(Ask(key=key))
    started = JobStarted(worker=Desk.name, job=key, opened_at=receipt.position, attempt=1, instance=instance)
    await app._now_running().executor.submit(started, Envelope())
    return started


async def test_a_lost_instance_starts_nothing_and_is_lost_once(store: MemoryStore) -> None:
    async with running(Desk(), store=store, workers_run=False) as app:
        executor = app._now_running().executor
        started = await begin(app, "a", "x")
        await executor.submit(InstanceLost(instance="x"), Envelope())
        with pytest.raises(Rejected, match="recorded already"):
            await executor.submit(InstanceLost(instance="x"), Envelope())
        with pytest.raises(Rejected, match="was declared gone"):
            await executor.submit(started, Envelope())


async def test_who_has_nothing_under_way_is_not_lost(store: MemoryStore) -> None:
    async with running(Desk(), store=store, workers_run=False) as app:
        with pytest.raises(Rejected, match="no attempt under way"):
            await app._now_running().executor.submit(InstanceLost(instance="x"), Envelope())


async def test_of_the_lost_only_the_last_are_remembered(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.todo.ledger.LOST_MAX", 3)
    async with running(Desk(), store=store, workers_run=False) as app:
        for number in map(str, range(5)):
            await begin(app, number, number)
            await app._now_running().executor.submit(InstanceLost(instance=number), Envelope())
        assert await app.state(lambda state: [row.instance for row in jobs_state(state).lost]) == ["2", "3", "4"]


# Leaving.


async def test_who_stops_leaves_no_trace(tmp_path: Path) -> None:
    async with running(Desk(), store=f"sqlite:///{tmp_path / 'desk.db'}") as app:
        await app.execute(Ask(key="a"))
        await until(app, answered("a"))
        assert len(list(tmp_path.glob("*-claim-*"))) == 1  # noqa: ASYNC240
    async with running(Desk(), store=f"sqlite:///{tmp_path / 'desk.db'}", workers_run=False) as app:
        assert await app.store.keys.keys("instances/") == []
        assert not list(tmp_path.glob("*-claim-*"))  # noqa: ASYNC240


async def test_attempts_that_could_not_be_ended_are_nobodys_fault() -> None:
    """The store fails until the process has stopped: its jobs are not charged, and are no suspects."""
    store = MemoryStore()
    faulty = FaultyStore(store)
    held = Held()
    async with running(held, store=faulty, drain_s=0.5) as app:
        await app.execute(Ask(key="a"))
        await held.begun.wait()
        faulty.faulty_log.fail_others(_refuse)
    async with running(Held(), store=store, takeover_s=FOREVER_S) as app:
        row = await until(app, standing("a", "running"))
        assert (row.attempts, row.suspect) == (1, False)
        [lost] = await log_of(app, "journeyman/instance-lost")
        assert app.catalog.codec.decode(lost).body.left


async def _refuse(append: Any) -> None:
    raise NotReady("The store is gone, on purpose.")


# Plain workers.


class Plain:
    name = "plain"

    def __init__(self, *, error: Exception | None = None) -> None:
        self.tried, self.started, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.error = error

    async def start(self, context: Context) -> None:
        self.tried.set()
        if self.error is not None:
            raise self.error
        self.started.set()

    async def work(self) -> None:
        pass

    async def stop(self, context: Context) -> None:
        self.stopped.set()


async def test_a_plain_worker_runs_in_one_process_and_another_takes_over_when_that_ends(store: MemoryStore) -> None:
    one, two = Plain(), Plain()
    async with running(one, store=store) as app:
        async with asyncio.timeout(20):
            await one.started.wait()
        async with running(two, store=store) as other:
            for each in (app, other):
                [status] = await each.workers()
                assert (status.status, status.processes) == ("running", 1)
            assert not two.started.is_set()
            await app.stop(drain_s=1.0)
            async with asyncio.timeout(20):
                await two.started.wait()
            assert one.stopped.is_set()
    assert two.stopped.is_set()


async def test_a_plain_worker_whose_role_was_lost_with_a_connection_stops_and_stands_by(store: MemoryStore) -> None:
    """As a store on a server loses it: then another process runs the worker, and never two for long."""
    one = Plain()
    async with running(one, store=store) as app:
        async with asyncio.timeout(20):
            await one.started.wait()
            another = await store.open_again()
            store._holders["worker/plain"] = another
            await one.stopped.wait()
            while (await app.workers())[0].status != "not running":  # noqa: ASYNC110  # a status sets no event
                await asyncio.sleep(0.01)
            one.started.clear()
            await another.release("worker/plain")
            await one.started.wait()
        [status] = await app.workers()
        assert status.status == "running"


async def test_a_plain_worker_that_is_wanted_everywhere_runs_everywhere(store: MemoryStore) -> None:
    workers = [Plain(), Plain()]
    apps = [App(features=[desk]), App(features=[desk])]
    for app, worker in zip(apps, workers, strict=True):
        app.register(worker, everywhere=True)
    async with apps[0].running(store), apps[1].running(store):
        [status] = await apps[0].workers()
        assert (status.status, status.processes) == ("running", 2)


async def test_a_plain_worker_that_fails_to_start_after_standing_by_leaves_its_role_to_others(
    store: MemoryStore,
) -> None:
    one, two = Plain(), Plain(error=OSError("no key"))
    async with running(one, store=store) as app, running(two, store=store) as other:
        await app.stop(drain_s=1.0)
        async with asyncio.timeout(20):
            await two.tried.wait()
        third = Plain()
        async with running(third, store=store):
            async with asyncio.timeout(20):
                await third.started.wait()
            [status] = await other.workers()
            assert (status.status, status.processes) == ("failed", 2)
            assert "no key" in (status.last_error or "")


# What the observers count.


def test_silence_counts_looks_at_one_revision_in_a_row() -> None:
    silence = Silence()
    for revision, expected in ((1, 0), (1, 1), (1, 2), (2, 0), (2, 1)):
        silence.see({"a": revision})
        assert silence.of("a") == expected


def test_who_is_not_there_any_more_is_forgotten() -> None:
    silence = Silence()
    silence.see({"a": 1})
    silence.see({"a": 1})
    silence.see({})
    silence.see({"a": 1})
    assert silence.of("a") == 0


def test_a_note_that_can_not_be_read_says_nothing() -> None:
    assert decode_note(b"{}") == decode_note(b"not JSON") == InstanceNote(pid=0, host="", started_at_us=0, at_us=0)

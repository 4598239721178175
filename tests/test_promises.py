"""The promises of the design that need no jobs, one test each. Each is proved in more detail beside its module."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from journeyman import App, Busy, Context, NotReady, Poisoned, Rejected, TooLarge, open_store
from journeyman.message import BODY_BYTES_MAX
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held, refuse
from journeyman.testing.records import make_records
from tests.notes import (
    HASTY,
    PATIENCE_S,
    PATIENT,
    Change,
    Create,
    List,
    Weigh,
    everything,
    notes,
    overtake,
    replayed_hash,
    running,
    subjects,
    submit,
)


@asynccontextmanager
async def two_applications(tmp_path: Path) -> AsyncIterator[tuple[App, App]]:
    """On one SQLite file, as two processes have it."""
    url = f"sqlite:///{tmp_path}/notes.db"
    async with running(url) as one, running(url) as other:
        yield one, other


async def test_promise_1_order(tmp_path: Path) -> None:
    """All readers see the same messages in the same order; nobody ever sees position n+1 before n."""
    async with two_applications(tmp_path) as apps:
        total, seen = 2 * 40, {app: list[tuple[int, str]]() for app in apps}

        async def follow(app: App) -> None:
            while len(seen[app]) < total:
                await app.store.log.wait(len(seen[app]), 1.0)
                messages, _ = await app.messages.read(len(seen[app]), 1000)
                seen[app] += [(message.position, message.id) for message in messages]

        async def write(app: App) -> None:
            for number in range(40):
                await app.execute(Weigh(grams=number))

        await asyncio.gather(*map(follow, apps), *map(write, apps))
        one, other = seen.values()
        assert one == other
        assert [position for position, _ in one] == list(range(1, total + 1))


async def test_promise_2_durable_before_told(tmp_path: Path) -> None:
    """`execute` returns only when the message is on stable storage: a process that ends at once has recorded it."""
    url = f"sqlite:///{tmp_path}/notes.db"
    code = f"""
import asyncio, os
from tests.notes import Create, running
async def main():
    async with running({url!r}) as app:
        receipt = await app.execute(Create(note_id="told"))
        os.write(1, receipt.message_id.encode())
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE
    )
    told, _ = await process.communicate()
    store = await open_store(url)
    try:
        assert [record.id for record in await everything(store)] == [told.decode()]
        assert store.durability == "SQLite WAL, synchronous=FULL"
    finally:
        await store.close()


async def test_promise_3_no_dirty_reads() -> None:
    """No query result and no refusal ever rests on a command that is not durable."""
    store = FaultyStore(MemoryStore())
    async with running(store) as app:
        held = store.faulty_log.fail_next(Held())
        callers = submit(app, Create(note_id="a"), Create(note_id="a"))
        await held.arrived.wait()
        query = asyncio.create_task(app.query(List()))
        held.fail(NotReady("on purpose"))
        assert await query == ()
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        assert not any(isinstance(outcome, Rejected) for outcome in outcomes)


async def test_promise_4_read_your_writes(tmp_path: Path) -> None:
    """After `execute` returns position p, a query here sees p; one elsewhere, asked "at least p", waits for it."""
    async with two_applications(tmp_path) as (one, other):
        for number in range(30):
            name = f"{number:02}"
            receipt = await one.execute(Create(note_id=name))
            assert name in await one.query(List())
            assert name in await other.query(List(), at_least=receipt.position)
        with pytest.raises(Busy):
            await other.query(List(), at_least=31, timeout_s=0.01)


async def test_promise_5_validation_is_never_stale() -> None:
    """A command is judged against the state at exactly the position that it is appended after."""
    store = FaultyStore(MemoryStore())
    async with running(store) as app:
        for name in ("taken", "changed"):
            store.faulty_log.fail_next(overtake(store.faulty_log, name))
            command = Create(note_id=name) if name == "taken" else Change(note_id=name, text="mine")
            outcome = (await asyncio.gather(app.execute(command), return_exceptions=True))[0]
            if name == "taken":
                assert isinstance(outcome, Rejected)
                assert outcome.position == 1
            else:
                assert not isinstance(outcome, BaseException)
                assert outcome.position == 3
        assert subjects(await everything(store)) == ["taken", "changed", "changed"]


async def test_promise_6_one_path() -> None:
    """Live and replay apply the same decoded message through the same code: the states' hashes are equal."""
    store = FaultyStore(MemoryStore())
    async with running(store, limits=HASTY) as app, running(store) as follower:
        held = store.faulty_log.fail_next(Held())
        stalled = submit(app, Create(note_id="stalled", text="é🦉\u2028"))
        await held.arrived.wait()
        assert await app.query(List()) == ()
        held.release()
        await asyncio.gather(*stalled)
        store.faulty_log.fail_next(refuse)
        await asyncio.gather(*submit(app, Create(note_id="lost")), return_exceptions=True)
        await app.execute(Change(note_id="stalled", text="x"), idempotency_key="k", actor="ann")
        await app.execute(Weigh(grams=1, exactly=1e-7))
        await follower.query(List(), at_least=3)
        hashes = {await app.state_hash(), await follower.state_hash(), await replayed_hash(store)}
        assert len(hashes) == 1


@pytest.mark.parametrize("message", [("notes/create", b"[]"), ("notes/unheard-of", b"{}")])
async def test_promise_7_nothing_is_skipped(message: tuple[str, bytes]) -> None:
    """What can't be decoded or applied stops the start with its position, its name and the next step."""
    name, body = message
    store = MemoryStore()
    await store.log.append(make_records(1, name=name, body=body), after=0)
    with pytest.raises(Poisoned, match=rf"position 1 \({name}\).*log set-aside 1"):
        await App(features=[notes]).start(store)


async def test_promise_10_a_slow_call_stalls_nothing() -> None:
    """Neither the log, nor queries, nor shutdown past its deadline wait for a worker's slow call, or a slow store."""
    called = asyncio.Event()

    class Slow:
        name = "slow"

        def start(self, context: Context) -> None: ...

        async def work(self) -> None:
            called.set()
            await asyncio.Event().wait()

        def stop(self, context: Context) -> None: ...

    store = FaultyStore(MemoryStore())
    app = App(features=[notes], workers=[Slow()], limits=HASTY)
    async with asyncio.timeout(PATIENCE_S):
        await app.start(store)
        await called.wait()
        await app.execute(Create(note_id="a"))
        held = store.faulty_log.fail_next(Held())
        (caller,) = submit(app, Create(note_id="b"))
        await held.arrived.wait()
        assert await app.query(List()) == ("a",)
        await app.stop(drain_s=0.01)
        await asyncio.wait({caller})
        held.release()
        await held.ended.wait()


async def test_promise_11_everything_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues, waits, bodies and retries have a bound, and at the bound there is a clear error."""
    waiting_max = 100
    for module in ("pending", "executor"):
        monkeypatch.setattr(f"journeyman.{module}.WAITING_MAX", waiting_max)
    store = FaultyStore(MemoryStore())
    async with running(store, limits=PATIENT) as app:
        with pytest.raises(TooLarge, match=str(BODY_BYTES_MAX)):
            await app.execute(Create(note_id="large", text="x" * BODY_BYTES_MAX))
        with pytest.raises(Busy, match=r"after 0\.001 s"):
            await app.query(List(), at_least=1, timeout_s=0.001)
        held = store.faulty_log.fail_next(Held())
        first = submit(app, Weigh(grams=0))
        await held.arrived.wait()
        calls: list[Any] = [asyncio.create_task(app.execute(Weigh(grams=1))) for _ in range(waiting_max + 1)]
        calls += [asyncio.create_task(app.query(List())) for _ in range(waiting_max + 1)]
        calls += [asyncio.create_task(app.query(List(), at_least=1)) for _ in range(waiting_max + 1)]
        await asyncio.sleep(0)
        at_bound = [call for call in calls if call.done()]
        assert len(at_bound) == 3
        assert all(isinstance(call.exception(), Busy) for call in at_bound)
        held.release()
        await asyncio.gather(*first, *calls, return_exceptions=True)

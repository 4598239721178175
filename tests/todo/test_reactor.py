"""Reactions: message in, commands out, once each and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from journeyman import (
    App,
    Command,
    Message,
    NotReady,
    PauseWorker,
    Record,
    Store,
    TodoWorker,
    WorkerFailed,
    reacts,
)
from journeyman.message import ReactionStep
from journeyman.store.base import MessageLog
from journeyman.store.memory import MemoryStore
from journeyman.tables import AppState
from journeyman.todo.jobs import ReactionRow
from journeyman.todo.ledger import jobs_state
from tests.todo.desk import WAIT_S, Answer, Ask, Close, Desk, Note, answered, desk, idle, log_of, make, running, until


class Echo(TodoWorker):
    """Asks for what each note says: the note `a b` leads to the jobs `a` and `b`."""

    name = "desk/echo"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken: set[str] = set()

    @reacts(Note, name="echo", since=0)
    def echo(self, message: Message[Note]) -> Any:
        self.asked.append(message.body.text)
        if message.body.text in self.broken:
            raise ValueError(f"broken by {message.body.text}")
        return [Ask(key=key) for key in message.body.text.split()]


def reaction(name: str = "echo", worker: str = Echo.name) -> Any:
    def look(state: AppState) -> ReactionRow | None:
        return jobs_state(state).reactions.get((worker, name))

    return look


def moved(number: int, name: str = "echo", worker: str = Echo.name) -> Any:
    """Finds whether the reaction has recorded so many steps."""

    def look(state: AppState) -> bool:
        row = jobs_state(state).reactions.get((worker, name))
        return row is not None and row.number >= number

    return look


async def subjects(app: App, name: str = "desk/ask") -> list[str | None]:
    return [record.subject for record in await log_of(app, name)]


async def test_each_message_leads_to_its_commands_once_and_in_order_over_restarts(store: str | Store) -> None:
    found: list[str | None] = []
    for part in range(3):
        async with running(Echo(), store=store) as app:
            texts = [f"{part}.{number}a {part}.{number}b" for number in range(400)]
            await asyncio.gather(*(app.execute(Note(text=text)) for text in texts))
            await until(app, moved(800 * (part + 1)))
            found = await subjects(app)
    notes = [f"{part}.{number}{side}" for part in range(3) for number in range(400) for side in "ab"]
    assert found == notes


async def test_a_step_says_where_it_comes_from() -> None:
    async with running(Echo()) as app:
        note = await app.execute(Note(text="a"), actor="ann")
        await until(app, moved(1))
        [record] = await log_of(app, "desk/ask")
        assert (record.causation_id, record.actor) == (note.message_id, "worker:desk/echo")
        message = app.catalog.codec.decode(record)
        assert message.meta.reaction == ReactionStep(Echo.name, "echo", 1, note.position, 0)


async def test_a_refused_step_is_recorded_and_moves_the_reaction_on() -> None:
    async with running(Echo()) as app:
        await app.execute(Close(key="no"))
        await asyncio.gather(*(app.execute(Note(text=text)) for text in ["a", "b no c", "no", "d"]))
        await until(app, moved(6))
        assert await subjects(app) == ["a", "b", "c", "d"]
        refused = [app.catalog.codec.decode(record) for record in await log_of(app, "journeyman/reaction-refused")]
        assert [message.body.reason for message in refused] == ["Rejected: no is closed."] * 2
        assert [step.number for message in refused if (step := message.meta.reaction)] == [3, 5]
    assert not any(isinstance(message.body, Ask) for message in refused)


class Two(Echo):
    @reacts(Note, name="other", since=0)
    async def other(self, message: Message[Note]) -> Command:
        await asyncio.sleep(0)
        return Answer(key=message.body.text, text="other")


async def test_a_reaction_that_fails_holds_only_itself_is_shown_and_goes_on_where_it_failed() -> None:
    worker = Two()
    worker.broken = {"bad"}
    async with running(worker, Desk()) as app:
        for text in ["good", "bad", "after"]:
            await app.execute(Note(text=text))
        await until(app, answered("good", "bad", "after"))
        await app.execute(Ask(key="another worker's"))
        await until(app, answered("another worker's"))
        async with asyncio.timeout(WAIT_S):
            while worker.asked.count("bad") < 3:
                await app.store.log.wait(app.position, 0.02)
        assert await subjects(app) == ["good", "another worker's"]
        status = next(one for one in await app.workers() if one.name == worker.name)
        assert (status.status, status.last_error) == ("failing", "reaction echo: ValueError: broken by bad")
        worker.broken = set()
        await until(app, moved(3))
        assert await subjects(app) == ["good", "another worker's", "bad", "after"]
        await until(app, idle)
        assert all(one.status == "running" for one in await app.workers())


async def test_a_message_at_which_a_reaction_fails_does_not_hold_those_before_it() -> None:
    store = MemoryStore()
    async with App(features=[desk]).running(store) as app:
        for text in ["good", "bad", "after"]:
            await app.execute(Note(text=text))
    worker = Echo()
    worker.broken = {"bad"}
    async with running(worker, store=store) as app:
        await until(app, moved(1))
        assert await subjects(app) == ["good"]
        worker.broken = set()
        await until(app, moved(3))
        assert await subjects(app) == ["good", "bad", "after"]


@pytest.mark.parametrize("garbage", ["text", 7, [Ask(key="x"), "y"], Ask, {"a": 1}])
async def test_what_is_no_command_holds_the_reaction_and_says_so(garbage: Any) -> None:
    class Odd(Echo):
        @reacts(Note, name="echo", since=0)
        def echo(self, message: Message[Note]) -> Any:
            return garbage

    async with running(Odd()) as app:
        await app.execute(Note(text="a"))
        async with asyncio.timeout(WAIT_S):
            while (status := (await app.workers())[0]).status != "failing":
                await app.store.log.wait(app.position, 0.01)
                await asyncio.sleep(0)
        assert "a reaction returns commands or None" in (status.last_error or "")
        assert await subjects(app) == []


# A new reaction.


async def with_notes(store: str | Store, count: int) -> None:
    async with App(features=[desk]).running(store) as app:
        for number in range(count):
            await app.execute(Note(text=f"old{number}"))


class NoSince(TodoWorker):
    name = "desk/echo"

    @reacts(Note, name="echo")
    def echo(self, message: Message[Note]) -> Command:
        return Ask(key=message.body.text)


class Now(TodoWorker):
    name = "desk/echo"

    @reacts(Note, name="echo", since="now")
    def echo(self, message: Message[Note]) -> Command:
        return Ask(key=message.body.text)


async def test_a_new_reaction_on_old_messages_without_since_refuses_the_start_and_counts_them(
    store: str | Store,
) -> None:
    await with_notes(store, 7)
    with pytest.raises(WorkerFailed, match=r"the log has 7 old messages of desk/note .* Say since=0 .*since='now'"):
        async with running(NoSince(), store=store):
            pass


async def test_without_old_messages_no_since_is_needed() -> None:
    store = MemoryStore()
    async with App(features=[desk]).running(store) as app:
        await app.execute(Close(key="x"))
    async with running(NoSince(), store=store) as app:
        await app.execute(Note(text="a"))
        await until(app, moved(1))
        assert await subjects(app) == ["a"]


async def test_since_0_handles_the_old_messages_and_now_leaves_them(store: str | Store) -> None:
    await with_notes(store, 3)
    async with running(Now(), store=store) as app:
        await app.execute(Note(text="new"))
        await until(app, moved(1))
        assert await subjects(app) == ["new"]
    # It is recorded: what the code says later changes nothing.
    async with running(Echo(), store=store) as app:
        await app.execute(Note(text="newer"))
        await until(app, moved(2))
        assert await subjects(app) == ["new", "newer"]
        assert len(await log_of(app, "journeyman/reaction-added")) == 1


async def test_since_0_on_a_log_with_messages(store: str | Store) -> None:
    await with_notes(store, 3)
    async with running(Echo(), store=store) as app:
        await until(app, moved(3))
        assert await subjects(app) == ["old0", "old1", "old2"]


async def test_renaming_a_reaction_or_its_worker_repeats_nothing(store: str | Store) -> None:
    async with running(Echo(), store=store) as app:
        await app.execute(Note(text="a b"))
        await until(app, moved(2))

    class Renamed(TodoWorker):
        name = "desk/parrot"
        former_names = (Echo.name,)

        @reacts(Note, name="repeat", former_names=("echo",))
        def repeat(self, message: Message[Note]) -> Any:
            return [Ask(key=key) for key in message.body.text.split()]

    async with running(Renamed(), store=store) as app:
        await app.execute(Note(text="c"))
        await until(app, moved(3, "repeat", "desk/parrot"))
        assert await subjects(app) == ["a", "b", "c"]
        assert len(await log_of(app, "journeyman/reaction-added")) == 1


# Crashes between the steps of one reaction, and a store in trouble.


class Flaky:
    """A log that takes no `desk/ask` for so many times."""

    def __init__(self, log: MessageLog, failures: int) -> None:
        self.log = log
        self.failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        if any(record.name == "desk/ask" for record in records) and self.failures > 0:
            self.failures -= 1
            raise NotReady("down for a moment")
        await self.log.append(records, after=after)


@pytest.mark.parametrize("asks", range(7))
async def test_a_crash_between_the_commands_of_one_reaction_resumes_at_the_next(asks: int) -> None:
    """The log is cut where the process died; a new process goes on from what is in it."""
    store = MemoryStore()
    async with App(features=[desk]).running(store) as app:
        for text in ["a b c", "d", "e f"]:
            await app.execute(Note(text=text))
    log = store.log
    async with running(Echo(), store=store) as app:
        await until(app, moved(6))
        records = await log.read(0, 1000)
    kept, left = [], asks
    for record in records:
        if record.name == "desk/ask":
            if left == 0:
                break
            left -= 1
        kept.append(record)
    died = MemoryStore()
    await died.log.append(kept, after=0)
    async with running(Echo(), store=died) as app:
        await until(app, moved(6))
        assert await subjects(app) == list("abcdef")
        steps = [app.catalog.codec.decode(record).meta.reaction for record in await log_of(app, "desk/ask")]
        assert [(step.position, step.index) for step in steps if step] == [
            (1, 0),
            (1, 1),
            (1, 2),
            (2, 0),
            (3, 0),
            (3, 1),
        ]


async def test_a_store_in_trouble_holds_a_reaction_and_loses_and_repeats_nothing() -> None:
    store = MemoryStore()
    log: Any = Flaky(store.log, 3)
    store.log = log
    async with running(Echo(), store=store) as app:
        await asyncio.gather(*(app.execute(Note(text=f"{number}")) for number in range(20)))
        await until(app, moved(20))
        assert await subjects(app) == [f"{number}" for number in range(20)]
        assert log.failures == 0


async def test_two_reactors_of_one_reaction_record_each_step_once() -> None:
    """As in two processes: what one has recorded the other finds handled."""
    store = MemoryStore()
    async with running(Echo(), store=store) as app, running(Echo(), store=store) as other:
        await asyncio.gather(*((app, other)[number % 2].execute(Note(text=f"{number}")) for number in range(200)))
        await until(app, moved(200))
        found = await subjects(app)
        notes = [record.subject for record in await log_of(app, "desk/note")]
    assert found == notes


async def test_reactions_go_on_while_the_worker_is_paused() -> None:
    class Both(Desk):
        @reacts(Note, name="echo", since=0)
        def echo(self, message: Message[Note]) -> Command:
            return Ask(key=message.body.text)

    async with running(Both()) as app:
        await app.execute(PauseWorker(worker=Desk.name))
        await app.execute(Note(text="a"))
        await until(app, moved(1, worker=Desk.name))
        assert not await app.state(idle)


async def test_a_reaction_sees_state_at_or_past_its_message() -> None:
    seen: list[bool] = []

    class Looking(Echo):
        @reacts(Answer, name="look", since=0)
        async def look(self, message: Message[Answer]) -> None:
            seen.append(message.body.key in await app.state(lambda state: answered(message.body.key)(state) or {}))

    async with running(Looking(), make(concurrency=2)) as app:
        await asyncio.gather(*(app.execute(Ask(key=f"{number}")) for number in range(50)))
        async with asyncio.timeout(WAIT_S):
            while len(seen) < 50:
                await app.store.log.wait(app.position, 0.02)
                await asyncio.sleep(0)
    assert all(seen)

"""A small feature for the tests of the executor and the application: notes, and commands and queries that break."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from journeyman import App, Command, Feature, Message, NotFound, Query, Receipt, Record, Rejected, State, Store, Table
from journeyman.executor import Limits
from journeyman.store.base import MessageLog
from journeyman.testing.faults import Append, Fault, FaultyLog, FaultyStore
from journeyman.testing.records import make_records

#: How long a test waits for what must come, in seconds.
PATIENCE_S = 20.0

#: So long that nothing stalls and nothing is given up while a test holds something.
PATIENT = Limits(stall_s=1000, append_s=1000, settle_s=1000, read_s=1000, conflict_s=1000)

#: So short that a test need not wait.
HASTY = Limits(stall_s=0.01, append_s=1000, settle_s=1000, pause_s=0.01)


class Note(msgspec.Struct, frozen=True):
    note_id: str
    text: str


class NotesState(State):
    notes: Table[str, Note] = Table(Note, key="note_id")


notes = Feature("notes", state=NotesState)


@notes.command("create", subject="note_id")
class Create(Command):
    note_id: str
    text: str = ""

    def validate(self, state: NotesState, message: Message[Any]) -> None:
        if self.note_id in state.notes:
            raise Rejected(f"There is a note {self.note_id} already.")

    def apply(self, state: NotesState, message: Message[Any]) -> None:
        state.notes.put(Note(self.note_id, self.text))


@notes.command("change", subject="note_id")
class Change(Command):
    note_id: str
    text: str

    def validate(self, state: NotesState, message: Message[Any]) -> None:
        if self.note_id not in state.notes:
            raise Rejected(f"There is no note {self.note_id}.")

    def apply(self, state: NotesState, message: Message[Any]) -> None:
        state.notes.put(Note(self.note_id, self.text))


@notes.command("weigh")
class Weigh(Command):
    grams: int
    exactly: float = 0.0


@notes.command("price", subject="note_id")
class Price(Command):
    """Records the price as Python writes it: 1 and 1.0 are not the same."""

    note_id: str
    price: float

    def apply(self, state: NotesState, message: Message[Any]) -> None:
        state.notes.put(Note(self.note_id, repr(self.price)))


@notes.command("break")
class Break(Command):
    """Writes a note, and then breaks; or breaks before."""

    at: str

    def validate(self, state: NotesState, message: Message[Any]) -> None:
        if self.at == "validate":
            raise ZeroDivisionError
        if self.at == "validate changes":
            state.notes.put(Note("broken", ""))

    def apply(self, state: NotesState, message: Message[Any]) -> None:
        state.notes.put(Note("broken", ""))
        raise KeyError(self.at)


@notes.query("get")
class Get(Query[str]):
    note_id: str

    def run(self, state: NotesState) -> str:
        note = state.notes.get(self.note_id)
        if note is None:
            raise NotFound(f"There is no note {self.note_id}.")
        return note.text


@notes.query("list")
class List(Query[tuple[str, ...]]):
    def run(self, state: NotesState) -> tuple[str, ...]:
        return tuple(note.note_id for note in state.notes)


@notes.query("meddle")
class Meddle(Query[None]):
    """Does what only a command may."""

    note_id: str

    def run(self, state: NotesState) -> None:
        state.notes.put(Note(self.note_id, "changed by a query"))


@notes.query("first")
class First(Query[str]):
    """Breaks when there is no note, as an iterator does."""

    def run(self, state: NotesState) -> str:
        return next(iter(state.notes)).note_id


@asynccontextmanager
async def running(store: Store | str, *, limits: Limits = PATIENT) -> AsyncIterator[App]:
    """An application with notes over the store, in a test that can't hang."""
    async with asyncio.timeout(PATIENCE_S), App(features=[notes], limits=limits).running(store, drain_s=1.0) as app:
        yield app


def submit(app: App, *commands: Command) -> list[asyncio.Task[Receipt]]:
    """Execute the commands, each by a caller of its own, in this order."""
    return [asyncio.create_task(app.execute(command)) for command in commands]


def overtake(log: FaultyLog, note_id: str) -> Fault:
    """Another writer creates the note just before the append."""

    async def fault(append: Append) -> None:
        await create_elsewhere(log.real, note_id)
        await append()

    return fault


async def create_elsewhere(log: MessageLog, note_id: str) -> None:
    """What another process does."""
    head = await log.head()
    body = msgspec.json.encode(Create(note_id=note_id, text="elsewhere"))
    await log.append(make_records(1, after=head, name="notes/create", subject=note_id, body=body), after=head)


async def everything(store: Store) -> list[Record]:
    """The whole log, which must not have a gap, and no message twice."""
    log = store.faulty_log.real if isinstance(store, FaultyStore) else store.log
    records = await log.read(0, 1_000_000)
    assert [record.position for record in records] == list(range(1, len(records) + 1))
    assert all(times == 1 for times in Counter(record.id for record in records).values())
    return records


def subjects(records: Iterable[Record]) -> list[str | None]:
    return [record.subject for record in records]


async def replayed_hash(store: Store) -> str:
    """The hash of the state that a process has that starts now."""
    async with App(features=[notes]).running(store) as fresh:
        return await fresh.state_hash()

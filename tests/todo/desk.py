"""A small application for the tests of to-do workers: jobs are asked for, and answered or failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from msgspec import Meta, Struct

from journeyman import (
    App,
    Attempt,
    Command,
    Feature,
    Job,
    Message,
    Record,
    Rejected,
    Retry,
    State,
    Store,
    Table,
    TodoWorker,
    ends,
    opens,
)
from journeyman.tables import AppState
from journeyman.todo.jobs import JobRow, WorkerRow
from journeyman.todo.ledger import jobs_state

T = TypeVar("T")

#: How long a test waits for what must come, in seconds.
WAIT_S = 20.0


class Answered(Struct, frozen=True):
    key: str
    text: str
    by: str | None


class DeskState(State):
    answers: Table[str, Answered] = Table(Answered, key="key")
    closed: Table[str, Answered] = Table(Answered, key="key")


desk = Feature("desk", state=DeskState)


@desk.command("note", subject="text")
class Note(Command):
    """Something that reactions react to."""

    text: str


@desk.command("ask", subject="key")
class Ask(Command):
    key: str
    subject: str | None = None
    due_in_s: float = 0.0

    def validate(self, state: DeskState, message: Message[Any]) -> None:
        if self.key in state.closed:
            raise Rejected(f"{self.key} is closed.")


@desk.command("close", subject="key")
class Close(Command):
    """No answer to `key` is taken from now on."""

    key: str

    def apply(self, state: DeskState, message: Message[Any]) -> None:
        state.closed.put(Answered(self.key, "", None))


class _Reply(Command):
    key: str
    text: Annotated[str, Meta(max_length=1_000_000)]

    def validate(self, state: DeskState, message: Message[Any]) -> None:
        if self.key in state.closed:
            raise Rejected(f"{self.key} is closed.")

    def apply(self, state: DeskState, message: Message[Any]) -> None:
        state.answers.put(Answered(self.key, f"{message.name.rpartition('/')[2]}: {self.text}", message.actor))


@desk.command("answer", subject="key")
class Answer(_Reply):
    pass


@desk.command("fail", subject="key")
class Fail(_Reply):
    pass


Do = Callable[[Attempt[Ask]], Awaitable[Command | None]]


async def answer(attempt: Attempt[Ask]) -> Command:
    return Answer(key=attempt.id, text=f"attempt {attempt.number}")


class Desk(TodoWorker):
    name = "desk/answers"
    concurrency = 4
    timeout_s = 10.0
    retry = Retry(attempts=3, first_s=0.002, factor=1, max_s=0.002)

    def __init__(self, do: Do = answer) -> None:
        self.do = do
        #: The attempts that were performed, in order.
        self.performed: list[Attempt[Ask]] = []

    @opens(Ask)
    def asked(self, message: Message[Ask]) -> Any:
        return Job(message.body.key, subject=message.body.subject, due_in_s=message.body.due_in_s)

    @ends(Answer, Fail)
    def answered(self, message: Message[Answer | Fail]) -> Any:
        return message.body.key

    async def perform(self, attempt: Attempt[Ask]) -> Command | None:
        self.performed.append(attempt)
        return await self.do(attempt)

    def give_up(self, attempt: Attempt[Ask], error: BaseException) -> Command | None:
        return Fail(key=attempt.id, text=str(error))

    @property
    def tried(self) -> list[str]:
        return [attempt.id for attempt in self.performed]


class Parking(Desk):
    """A desk that never gives up by itself."""

    def give_up(self, attempt: Attempt[Ask], error: BaseException) -> Command | None:
        return None


def make(do: Do = answer, kind: type[Desk] = Desk, **attributes: Any) -> Desk:
    """A worker of a class of its own, with other class attributes."""
    made: type[Desk] = type(kind.__name__, (kind,), attributes)
    return made(do)


@asynccontextmanager
async def running(
    *workers: Any, store: str | Store | None = None, drain_s: float = 5.0, workers_run: bool = True, **options: Any
) -> AsyncIterator[App]:
    app = App(features=[desk], workers=workers, **options)
    async with app.running(store if store is not None else "memory:", workers=workers_run, drain_s=drain_s):
        yield app


async def until(app: App, look: Callable[[AppState], T | None], *, timeout_s: float = WAIT_S) -> T:
    """What `look` finds in the state, once it finds something true."""
    async with asyncio.timeout(timeout_s):
        while True:
            position = app.position
            if found := await app.state(look):
                return found
            await app.store.log.wait(position, 0.05)
            await asyncio.sleep(0)  # `wait` need not give way when the head is above the position already.


def job_of(key: str, worker: str = Desk.name) -> Callable[[AppState], JobRow | None]:
    return lambda state: jobs_state(state).jobs.get((worker, key))


def standing(key: str, *standings: str, worker: str = Desk.name) -> Callable[[AppState], JobRow | None]:
    """Finds the job when it stands so."""

    def look(state: AppState) -> JobRow | None:
        row = job_of(key, worker)(state)
        return row if row is not None and row.standing in standings else None

    return look


def idle(state: AppState) -> bool:
    """Whether no job is open."""
    return len(jobs_state(state).jobs) == 0


def answers(state: AppState) -> dict[str, str]:
    found = state.features["desk"]
    assert isinstance(found, DeskState)
    return {row.key: row.text for row in found.answers}


def answered(*keys: str) -> Callable[[AppState], dict[str, str] | None]:
    """Finds all answers, once these keys have one."""

    def look(state: AppState) -> dict[str, str] | None:
        found = answers(state)
        return found if found.keys() >= set(keys) else None

    return look


def counts(worker: str = Desk.name) -> Callable[[AppState], WorkerRow]:
    return lambda state: jobs_state(state).workers.get(worker) or WorkerRow(worker=worker)


async def log_of(app: App, *names: str) -> list[Record]:
    """The log's records of these names, or all."""
    found: list[Record] = []
    while records := await app.store.log.read(found[-1].position if found else 0, 1000):
        found += records
    return [record for record in found if not names or record.name in names]


def names(records: Iterable[Record]) -> list[str]:
    return [record.name.rpartition("/")[2] for record in records]

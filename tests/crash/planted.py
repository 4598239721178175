"""Bugs that a process under test can be given, to prove that the experiments find them. None is anywhere else."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from journeyman import App, Message, OutcomeUnknown, Outdated, Poisoned, Record, reacts
from journeyman.heartbeat import Heartbeat, decode_note
from journeyman.replica import Replica
from journeyman.store.base import MessageLog
from journeyman.store.sqlite_file import LockFile
from journeyman.timing import SYSTEM_TIMING
from journeyman.todo.attempts import Performer
from journeyman.todo.jobs import InstanceLost, JobReleased, JobsState
from journeyman.todo.ledger import running_of
from tests.crash.app import SERVICE, Ask, Asker, Put, make_app


def ignore_fences(app: App) -> None:
    """An answer is taken whatever its fence, as a queue takes it whose leases only say when to try again."""
    ledger = app._ledger
    admit = ledger.admit

    def careless(state: Any, message: Any) -> None:
        if message.record.fence is None:
            admit(state, message)

    ledger.admit = careless  # type: ignore[method-assign]


def charge_everybody(app: App) -> None:
    """A death charges every job that was running, the killer's neighbours too."""
    lose = app._ledger._effects[InstanceLost]

    def charging(state: JobsState, body: Any, message: Any) -> None:
        charged = {row.job: row.attempts for row in running_of(state, body.instance)}
        lose(state, body, message)
        for row in list(state.jobs):
            if row.job in charged:
                state.jobs.put(msgspec.structs.replace(row, attempts=charged[row.job], suspect=False))

    app._ledger._effects[InstanceLost] = charging


def charge_releases(app: App) -> None:
    """An attempt that a deploy cuts off is charged."""
    release = app._ledger._effects[JobReleased]

    def charging(state: JobsState, body: Any, message: Any) -> None:
        before = state.jobs.by("fence", body.fence)
        release(state, body, message)
        if before is not None and (row := state.jobs.get((before.worker, before.job))) is not None:
            state.jobs.put(msgspec.structs.replace(row, attempts=before.attempts))

    app._ledger._effects[JobReleased] = charging


def forget_the_dead(app: App) -> None:
    """What a dead process was doing is not taken over."""
    app._ledger._effects[InstanceLost] = lambda state, body, message: None


def perform_unrecorded(app: App) -> None:
    """An attempt that fails is made again at once, as many a client library does, and nobody records it."""
    perform = Performer._perform

    async def again(self: Performer, attempt: Any) -> Any:
        try:
            return await perform(self, attempt)
        except ValueError:
            return await perform(self, attempt)

    Performer._perform = again  # type: ignore[method-assign]


def believe_clocks(app: App) -> None:
    """A process is gone when the time in its note is long ago, by one's own clock."""

    async def look(self: Heartbeat) -> None:
        self._others |= await self._at_work() - {self._instance}
        for instance in sorted(self._others):
            entry = await self._store.keys.get(f"instances/{instance}")
            if entry is not None and decode_note(entry.value).at_us < self._note().at_us - 10_000_000:
                await self._bury(instance)

    Heartbeat._look = look  # type: ignore[method-assign]


class ForgetfulAsker(Asker):
    """A release in which a method was renamed, and with it the reaction that it was."""

    @reacts(Put, name="ask-again", since=0)
    def ask(self, message: Message[Put]) -> Ask:
        return Ask(key=message.body.key, about=message.body.about)


def pass_over(app: App) -> None:
    """What can't be read is passed over, as a consumer does that logs an error and goes on."""
    decode = Replica.decode

    def lenient(replica: Replica, record: Record) -> Message[Any] | None:
        try:
            return decode(replica, record)
        except (Poisoned, Outdated):
            return None

    def replay(replica: Replica, records: Sequence[Record]) -> None:
        read = [record for record in records if lenient(replica, record) is None]
        replica._set_asides |= {record.position for record in read}
        replay_whole(replica, records)

    replay_whole = Replica.replay
    Replica.replay = replay  # type: ignore[assignment, method-assign]


def __getattr__(name: str) -> App:
    """`app` and `lenient`, for `journeyman --app tests.crash.planted:app`."""
    if name == "lenient":
        app = make_app(os.environ[SERVICE])
        pass_over(app)
        return app
    if name == "app":
        return make_app(os.environ[SERVICE], worker=ForgetfulAsker)
    raise AttributeError(name)


class HastyLog:
    """Tells that a batch is written when it is only kept in memory: it is written with the next one."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log
        self._kept: list[Record] = []

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        if self._kept:
            await self._log.append(self._kept, after=self._kept[0].position - 1)
        self._kept = list(records)

    async def head(self) -> int:
        return self._kept[-1].position if self._kept else await self._log.head()

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        found = await self._log.read(after, limit, name=name)
        kept = [record for record in self._kept if record.position > after and name in (None, record.name)]
        return [*found, *kept][:limit]

    async def wait(self, after: int, timeout_s: float) -> None:
        await asyncio.sleep(0.01)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class RepeatingLog:
    """Writes what had no reply again as something new, as a client does that has no ids to ask by."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        try:
            await self._log.append(records, after=after)
        except OutcomeUnknown:
            head = await self._log.head()
            again = [
                msgspec.structs.replace(record, position=position, id=SYSTEM_TIMING.new_id())
                for position, record in enumerate(records, start=head + 1)
            ]
            await self._log.append(again, after=head)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


def keep_the_turn() -> None:
    """Give the writers' lock back after five hundred appends only: others keep it for twenty milliseconds, too."""
    give, gives = LockFile.give, itertools.count(1)

    def keep(self: LockFile) -> None:
        if next(gives) % 500:
            self._depth = max(0, self._depth - 1)
        else:
            give(self)

    LockFile.give = keep  # type: ignore[method-assign]


#: Bugs of an application, by name. Those named below are bugs of its store, but for `no key`, which is one of a client.
IN_THE_APPLICATION: Final[dict[str, Callable[[App], None]]] = {
    "ignore fences": ignore_fences,
    "charge everybody": charge_everybody,
    "charge releases": charge_releases,
    "forget the dead": forget_the_dead,
    "perform unrecorded": perform_unrecorded,
    "believe clocks": believe_clocks,
}
ACKNOWLEDGE_EARLY: Final = "acknowledge early"
NO_KEY: Final = "no key"
REPEAT_ANEW: Final = "repeat anew"
GREEDY: Final = "greedy"

"""The replica: the application's state at a position, and the only caller of `apply`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final, Protocol

from journeyman.errors import ApplyFailed, Outdated, Poisoned, Rejected, Undecodable, WrongLog
from journeyman.feature import Catalog, Command
from journeyman.follower import MessageSource, RecentMessages, as_stop, check_no_gap
from journeyman.message import Message, Record
from journeyman.receipts import Receipts
from journeyman.set_aside import NAME as SET_ASIDE_NAME
from journeyman.set_aside import read_set_asides
from journeyman.snapshots import Capture, Restored, Snapshots
from journeyman.store.base import MessageLog, Scannable
from journeyman.tables import AppState
from journeyman.threads import begin_in_thread

#: How many records one read of a replay asks for.
REPLAY_RECORDS: Final = 1000


Judge = Callable[[AppState, Message[Any]], None]


class Ledger(Protocol):
    """A part of the framework that judges and keeps account of messages, beside the message's own command."""

    def concerns(self, kind: type[Command]) -> bool:
        """Whether it has to see messages of that type also when they have no idempotency key, no fence and no meta."""
        ...

    def admit(self, state: AppState, message: Message[Any]) -> None:
        """Before `validate`: raise Rejected when the message's envelope does not fit the state. Changes nothing."""
        ...

    def record(self, state: AppState, message: Message[Any]) -> None:
        """After `apply`, live and in every replay: keep account. Deterministic, like `apply`."""
        ...


class Replica:
    """State and position. Live and replay apply the same decoded message through the same code.

    `propose` goes ahead of the log; `settle` keeps that, `undo` takes it back. `position` includes what is proposed,
    `settled_position` does not.
    """

    def __init__(self, log: MessageLog, catalog: Catalog, ledgers: Sequence[Ledger] = ()) -> None:
        self._log = log
        self._catalog = catalog
        self._decode = catalog.codec.decode
        self.receipts = Receipts()
        self._admits: list[Judge] = [ledger.admit for ledger in ledgers]
        self._records: tuple[Judge, ...] = (self.receipts.record, *(ledger.record for ledger in ledgers))
        # For messages without key, fence and meta, by type: most concern no ledger at all.
        types = [command.message_type.body for command in catalog.commands.values()]
        concerned = {kind: [ledger for ledger in ledgers if ledger.concerns(kind)] for kind in types}
        self._plain_admits = {kind: [ledger.admit for ledger in found] for kind, found in concerned.items()}
        self._plain_records: dict[type[Command], tuple[Judge, ...]] = {
            kind: tuple(ledger.record for ledger in found) for kind, found in concerned.items()
        }
        self._set_asides: frozenset[int] = frozenset()
        self._started = False
        self._rebuild_to = 0
        self._recent = RecentMessages()
        self.messages = MessageSource(log, self.decode, self._recent)
        self._become_empty()

    def _take_state(self, state: AppState) -> None:
        self.state = state
        self._state_of = {
            command.message_type.body: state.features[command.feature] for command in self._catalog.commands.values()
        }
        self._applied_to = {kind: (self._state_of[kind], self._plain_records[kind]) for kind in self._state_of}

    def _become_empty(self) -> None:
        self._take_state(self._catalog.new_state())
        self.position = 0
        self.settled_position = 0
        self._settled_id: str | None = None
        self._proposed: list[Message[Any]] = []
        self._recent.clear()

    # Replay.

    async def start(self, snapshots: Snapshots | None = None) -> None:
        """Read the decisions to set messages aside, then the whole log; with snapshots, what is behind the newest one.

        Raises:
            Poisoned: a message can't be decoded or applied; says its position, its name and the next step.
            NotReady, Corrupt: the store can't be read.
        """
        self._set_asides = await read_set_asides(self._log)
        if snapshots is not None and (restored := await snapshots.restore(self._set_asides)) is not None:
            self._become(restored)
        if isinstance(self._log, Scannable):
            await self._replay_in_thread(self._log)
        await self.catch_up()
        self._started = True

    async def _replay_in_thread(self, log: Scannable) -> None:
        """Apply what the log has by now, up to a decision to set a message aside, if there is one.

        Read and applied by one thread: handed from one to another, a long log takes half as long again. The event
        loop is free meanwhile.
        """
        abandoned = threading.Event()

        def replay() -> None:
            with closing(log.scan(self.settled_position, REPLAY_RECORDS)) as batches:
                for records in batches:
                    if abandoned.is_set() or SET_ASIDE_NAME in {record.name for record in records}:
                        return
                    self.replay(records)

        replayed = begin_in_thread(replay, name="journeyman: replay")
        try:
            await asyncio.shield(replayed)
        except asyncio.CancelledError:
            abandoned.set()
            await asyncio.wait({replayed})
            raise

    async def begin_before(self, position: int, snapshots: Snapshots | None) -> None:
        """Begin with the newest snapshot that is not behind a position, if there is one: the rest is replayed to it.

        Raises:
            NotReady, Corrupt: the store can't be read.
        """
        self._set_asides = await read_set_asides(self._log)
        if snapshots is not None:
            restored = await snapshots.restore(self._set_asides, up_to=position)
            if restored is not None:
                self._become(restored)

    async def replay_to(self, position: int) -> None:
        """Apply the log from where this replica is up to a position, for looking at the state that it had there.

        Raises:
            Poisoned: a message can't be decoded or applied.
            NotReady, Corrupt: the store can't be read.
        """
        self._set_asides = await read_set_asides(self._log)
        while (missing := position - self.settled_position) > 0:
            records = await self._log.read(self.settled_position, min(missing, REPLAY_RECORDS))
            if not records:
                return
            self.replay(records)

    def _become(self, restored: Restored) -> None:
        self._become_empty()
        self._take_state(restored.state)
        self.position = self.settled_position = restored.position
        self._settled_id = restored.message_id

    def capture(self) -> Capture:
        """The settled state, copied in this moment: a few milliseconds for a million rows.

        Raises:
            RuntimeError: something is proposed, or nothing was applied yet.
        """
        if self._proposed or self._settled_id is None:
            raise RuntimeError("Only a settled state that is not empty can be captured.")
        rows = [
            (feature, name, table, table.rows())
            for feature, state in self.state.features.items()
            for name, table in state.tables().items()
        ]
        set_asides = frozenset(position for position in self._set_asides if position <= self.settled_position)
        return Capture(self.settled_position, self._settled_id, set_asides, rows)

    @property
    def rebuilding(self) -> bool:
        """Whether the state is behind what it was: a message that it had taken in was set aside."""
        return self.settled_position < self._rebuild_to

    async def catch_up(self) -> None:
        """Apply what the log has beyond the settled position; all of it anew, if an applied message was set aside.

        Raises:
            Poisoned: a message can't be decoded or applied; nothing of it is applied.
            Outdated: after the start, a message's name or version is not known to this code.
            NotReady, Corrupt: the store can't be read.
        """
        reached_head = False
        while not reached_head:
            records = await self._log.read(self.settled_position, REPLAY_RECORDS)
            if await self._sets_applied_message_aside(records):
                self._rebuild_to = self.settled_position
                self._become_empty()
            else:
                self.replay(records)
                # Not the first empty read: while others append without a pause, it might never come.
                reached_head = len(records) < REPLAY_RECORDS

    async def verify(self) -> None:
        """Check that the log still has this replica's last message at its position: after a lost connection.

        Raises:
            WrongLog: it doesn't.
        """
        if self._settled_id is None:
            return
        found = await self._log.read(self.settled_position - 1, 1)
        if not found or found[0].id != self._settled_id:
            raise WrongLog(
                f"The log's message at position {self.settled_position} is not the one that this process applied. "
                "It was replaced or restored: restart this process, once it is the log that you want."
            )

    def replay(self, records: Sequence[Record]) -> None:
        """Apply recorded messages that follow the settled position. A message that can't be applied leaves no trace.

        Raises:
            Poisoned, Outdated: as `catch_up`; what is before that message is applied.
            Corrupt: the records do not follow the settled position; nothing is applied.
        """
        assert not self._proposed, "settle or undo what was proposed before reading the log"
        after = self.settled_position
        check_no_gap(records, after=after)
        applied: list[Message[Any] | None] = []
        decode, apply, undo = self._decode, self._apply, self.state.undo
        set_asides = self._set_asides.intersection(range(after + 1, after + 1 + len(records)))
        mark = undo.mark()
        try:
            for record in records:
                mark = len(undo.entries)
                if set_asides and record.position in set_asides:
                    applied.append(None)
                    continue
                message = decode(record)
                apply(message)
                applied.append(message)
            mark = len(undo.entries)
        except Exception as error:
            raise self._stop(records[len(applied)], error) from error
        finally:
            undo.undo(mark)
            undo.forget()
            if self._started or len(records) < REPLAY_RECORDS:
                # While a long log is read at the start, what is read first would only be forgotten again.
                self._recent.extend(applied, after=after)
            if applied:
                self.position = self.settled_position = after + len(applied)
                self._settled_id = records[len(applied) - 1].id

    def _stop(self, record: Record, error: Exception) -> Outdated | Poisoned:
        """What it means that a record could not be decoded or applied."""
        if isinstance(error, Undecodable):
            return as_stop(error, record, started=self._started)
        return Poisoned(position=record.position, name=record.name, why=repr(error))

    def decode(self, record: Record) -> Message[Any] | None:
        """The message of a record, or None when it is set aside.

        Raises:
            Poisoned: it can't be decoded.
            Outdated: after the start, its name or version is not known to this code.
        """
        if record.position in self._set_asides:
            return None
        try:
            return self._decode(record)
        except Undecodable as error:
            raise as_stop(error, record, started=self._started) from error

    async def _sets_applied_message_aside(self, records: Sequence[Record]) -> bool:
        """Whether a decision among these concerns a message that this replica has taken in. Renews the decisions."""
        if SET_ASIDE_NAME not in {record.name for record in records}:
            return False
        known, self._set_asides = self._set_asides, await read_set_asides(self._log)
        return any(position <= self.settled_position for position in self._set_asides - known)

    # Ahead of the log.

    def propose(self, message: Message[Any]) -> None:
        """Judge the message that is to follow `position`, and apply it. What fails leaves no trace.

        Raises:
            Rejected: the state does not allow it.
            ApplyFailed: the application's own code broke on it, from what it raised.
        """
        undo = self.state.undo
        mark = undo.mark()
        body = message.body
        try:
            record = message.record
            plain = record.idempotency_key is None and record.fence is None and record.meta is None
            for admit in self._plain_admits[type(body)] if plain else self._admits:
                admit(self.state, message)
            body.validate(self._state_of[type(body)], message)
            if undo.mark() != mark:
                raise RuntimeError(f"validate of {message.name} changed the state; only apply may")
            self._apply(message)
        except Rejected:
            undo.undo(mark)
            raise
        except Exception as error:
            undo.undo(mark)
            raise ApplyFailed(f"{message.name} was not recorded: its own code raised {error!r}.") from error
        self.position = message.position
        self._proposed.append(message)

    def newest(self, position: int) -> Message[Any] | None:
        """The message at a position, proposed or settled, as far as it is in memory."""
        if position > self.settled_position:
            return self._proposed[position - self.settled_position - 1]
        held = self._recent.after(position - 1, 1)
        return held[0] if held is not None else None

    def settle(self) -> None:
        """Keep everything proposed: it is durable."""
        if self._proposed:
            self._settled_id = self._proposed[-1].id
            self._recent.extend(self._proposed, after=self.settled_position)
        self.settled_position = self.position
        self._forget()

    def undo(self) -> None:
        """Take back everything proposed."""
        self.state.undo.undo()
        self.position = self.settled_position
        self._forget()

    def _forget(self) -> None:
        self.state.undo.forget()
        self._proposed = []

    def _apply(self, message: Message[Any]) -> None:
        body = message.body
        state, records = self._applied_to[type(body)]
        body.apply(state, message)
        record = message.record
        if record.idempotency_key is not None or record.fence is not None or record.meta is not None:
            records = self._records
        for keep in records:
            keep(self.state, message)

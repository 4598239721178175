"""The executor: turns commands into recorded messages. One task, the only one that touches the replica.

    take → speculate (admit, validate, apply) → append → settle

Every command that waits goes into one batch, and one durable write serves them all. Nothing that rests on a batch is
told before the batch is durable: no receipt, no refusal, no query result.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final, TypeVar

import msgspec

from journeyman.errors import (
    ApplyFailed,
    Busy,
    Conflict,
    JourneymanError,
    NotRunning,
    OutcomeUnknown,
    Outdated,
    Poisoned,
    Rejected,
    StoreError,
    WrongLog,
)
from journeyman.feature import Catalog, Command
from journeyman.message import Record
from journeyman.pending import Envelope, Pending, prepare
from journeyman.receipts import Receipt
from journeyman.replica import Replica
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, MessageLog
from journeyman.tables import AppState
from journeyman.timing import Timing

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: How many commands, and how many queries, may wait; above, callers are told Busy.
WAITING_MAX: Final = 10_000

#: Conflicts in a row after which the executor takes the writer's turn.
CONFLICTS_BEFORE_TURN: Final = 3


class Limits(msgspec.Struct, frozen=True):
    """How long the executor tries, in seconds."""

    #: An append that takes longer is set apart: queries go on at the last settled position, new commands get Busy.
    stall_s: float = 0.1
    #: One try at an append; after it the identical call is made again.
    append_s: float = 5.0
    #: All tries at a batch whose outcome is not known; after it callers get OutcomeUnknown.
    settle_s: float = 30.0
    #: Losing to other writers; after it callers get Busy.
    conflict_s: float = 5.0
    #: The longest pause between tries.
    pause_s: float = 1.0
    #: How often the log is looked at when nothing wakes the executor.
    look_s: float = 1.0


class _Batch:
    """Commands judged together, and the records of those that were taken."""

    __slots__ = ("pendings", "records")

    def __init__(self) -> None:
        self.pendings: list[Pending] = []
        self.records: list[Record] = []


class Executor:
    """Executes commands and answers queries over one replica.

    Args:
        on_settled: called, in the executor's task, each time the settled position has moved.
    """

    def __init__(
        self,
        log: MessageLog,
        catalog: Catalog,
        replica: Replica,
        *,
        timing: Timing,
        on_settled: Callable[[], None] = lambda: None,
        limits: Limits = Limits(),
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._replica = replica
        self._timing = timing
        self._limits = limits
        self._on_settled = on_settled
        self._commands: deque[Pending] = deque()
        self._queries: deque[tuple[Callable[[AppState], Any], asyncio.Future[Any]]] = deque()
        self._position_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._speculating = False
        self._behind = False
        #: Tries in a row at which the store failed; after any, the log is checked to be the one that was read.
        self._failures = 0
        self._losses = 0
        self._lost_since = 0.0
        self._stopping = False
        #: Since when an append has been unsettled too long, on the monotonic clock; None when all is well.
        self.stalled_since: float | None = None
        #: Why the executor stopped applying for good; None while it works.
        self.failure: JourneymanError | None = None

    # What callers use.

    @property
    def position(self) -> int:
        """The last position that queries see."""
        return self._replica.settled_position

    async def execute(self, command: Command, envelope: Envelope) -> Receipt:
        """Record a command and return its receipt, once it is durable.

        Cancelling abandons the wait only: the command goes on.

        Raises:
            Invalid: its fields do not fit their types.
            TooLarge: its body is over BODY_BYTES_MAX.
            Rejected: the state does not allow it; carries the position it was judged at.
            ApplyFailed: the application's own code broke on it.
            Busy, NotRunning, StoreError: it was not recorded; but see OutcomeUnknown.
            OutcomeUnknown: it may have been recorded; execute it again with the same idempotency key.
        """
        return await self.submit(command, envelope)

    def submit(self, command: Command, envelope: Envelope) -> asyncio.Future[Receipt]:
        """Like `execute`, without waiting. What is submitted in order is judged in that order."""
        pending = prepare(self._catalog, command, envelope, id=self._timing.new_id())
        self._check_open()
        if len(self._commands) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} commands wait already.", retry_after_s=0.1)
        self._commands.append(pending)
        self._wake.set()
        return pending.future

    async def query(self, run: Callable[[AppState], T]) -> T:
        """What `run` finds in the settled state. It runs between batches, never on what is not durable."""
        if not self._speculating and not self._replica.rebuilding and self.failure is None:
            return run(self._replica.state)
        self._check_open(for_query=True)
        if len(self._queries) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} queries wait already.", retry_after_s=0.1)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queries.append((run, future))
        return await future

    async def reach(self, position: int, timeout_s: float) -> None:
        """Return when queries see `position`.

        Raises:
            Busy: they do not after `timeout_s`.
        """
        if self.position >= position:
            return
        self._check_open(for_query=True)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (position, future)
        self._position_waiters.append(waiter)
        self._notice_growth()
        try:
            await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise Busy(f"This process has position {self.position}, not {position}, after {timeout_s:g} s.") from None
        finally:
            if waiter in self._position_waiters:
                self._position_waiters.remove(waiter)

    def stop(self) -> None:
        """Take no new commands; `run` ends once those that wait are done."""
        self._stopping = True
        self._wake.set()

    # The loop.

    async def run(self) -> None:
        """Execute commands and follow the log, until stopped.

        Raises:
            Poisoned, Outdated, WrongLog: applying can't go on. Whoever waits is told the same.
        """
        watch = asyncio.create_task(self._watch(), name="journeyman: log watch")
        try:
            while await self._has_work():
                await self._step()
        except (Poisoned, Outdated, WrongLog) as error:
            self.failure = error
            raise
        finally:
            watch.cancel()
            self._tell_everybody(self.failure or NotRunning("The application is stopping; nothing was recorded."))
            await asyncio.gather(watch, return_exceptions=True)

    async def _step(self) -> None:
        """One batch: catch up, speculate, append, settle."""
        turn = self._log.turn() if self._losses >= CONFLICTS_BEFORE_TURN else nullcontext()
        batch: _Batch | None = None
        try:
            async with turn:
                if self._behind:
                    await self._catch_up()
                batch = self._speculate()
                await self._append(batch)
            self._settle(batch)
        except Conflict:
            await self._judge_again(batch)
        except StoreError as error:
            await self._take_back(batch, error)
        except BaseException:
            for pending in batch.pendings if batch is not None else ():
                pending.tell(OutcomeUnknown(_UNKNOWN))
            raise

    def _speculate(self) -> _Batch:
        """Judge waiting commands in order, up to the batch's bounds, and apply those that are taken."""
        batch = _Batch()
        body_bytes = 0
        recorded_at_us = self._timing.now_us()
        self._speculating = bool(self._commands)
        while self._commands and len(batch.pendings) < BATCH_RECORDS_MAX:
            body_bytes += len(self._commands[0].data)
            if body_bytes > BATCH_BYTES_MAX:
                break
            pending = self._commands.popleft()
            batch.pendings.append(pending)
            pending.outcome = self._judge(pending, batch, recorded_at_us)
        return batch

    def _judge(self, pending: Pending, batch: _Batch, recorded_at_us: int) -> Receipt | JourneymanError:
        try:
            if receipt := self._earlier_receipt(pending):
                return receipt
            message = pending.propose(position=self._replica.position + 1, recorded_at_us=recorded_at_us)
            self._replica.propose(message)
        except Rejected as error:
            error.position = self._replica.position
            return error
        except ApplyFailed as error:
            logger.error("%s", error, exc_info=error.__cause__)  # noqa: TRY400  # the cause has the traceback
            return error
        batch.records.append(message.record)
        return Receipt(message.position, pending.id)

    def _earlier_receipt(self, pending: Pending) -> Receipt | None:
        key = pending.envelope.idempotency_key
        if key is None:
            return None
        name = pending.kind.name
        return self._replica.receipts.find(self._replica.state, key=key, name=name, body=pending.data)

    async def _append(self, batch: _Batch) -> None:
        """Make the batch durable. The identical call is repeated until its outcome is known, or time is up."""
        after = self._replica.settled_position
        if not batch.records:
            await self._confirm_head(batch, after)
            return None
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._limits.settle_s
        stall = loop.call_later(self._limits.stall_s, self._stall)
        try:
            for attempt in range(1_000_000):
                try:
                    async with asyncio.timeout(self._limits.append_s):
                        return await self._log.append(batch.records, after=after)
                except (OutcomeUnknown, TimeoutError) as error:
                    if loop.time() >= give_up_at:
                        raise OutcomeUnknown(_UNKNOWN) from error
                await asyncio.sleep(self._pause_s(attempt))
        finally:
            stall.cancel()

    async def _confirm_head(self, batch: _Batch, after: int) -> None:
        """A refusal is told only if nobody has recorded anything since that could change it."""
        if batch.pendings and (head := await self._log.head()) != after:
            raise Conflict(expected=after, head=head)

    def _settle(self, batch: _Batch) -> None:
        """The batch is durable: keep it, answer the queries that waited, tell the callers."""
        self._losses = 0
        if self.stalled_since is not None:
            self._recover(batch)
        self._replica.settle()
        self._speculating = False
        self._answer_queries()
        for pending in batch.pendings:
            assert pending.outcome is not None
            pending.tell(pending.outcome)
        if batch.records:
            self._moved()

    # When it is not so easy.

    async def _judge_again(self, batch: _Batch | None) -> None:
        """Another writer was first: take everything back, catch up, and judge the same commands anew."""
        now = asyncio.get_running_loop().time()
        self._lost_since = now if self._losses == 0 else self._lost_since
        self._losses += 1
        self._behind = True
        if now - self._lost_since > self._limits.conflict_s:
            await self._take_back(batch, Busy(f"Other writers were faster for {self._limits.conflict_s:g} s."))
            self._losses = 0
            return
        self._undo()
        if batch is not None:
            self._commands.extendleft(reversed(batch.pendings))
        if self._losses < CONFLICTS_BEFORE_TURN:
            await asyncio.sleep(self._timing.uniform(0, 0.001 * self._losses))

    async def _take_back(self, batch: _Batch | None, error: JourneymanError) -> None:
        """The batch was not recorded, or nobody knows: take it back and tell its callers."""
        self._undo()
        self._behind = True
        self._failures += 1
        for pending in batch.pendings if batch is not None else ():
            pending.tell(error)
        if batch is None:
            # The store can't even be read: whoever waits is told, and the next look is not at once.
            self._tell_commands(error)
            await asyncio.sleep(self._pause_s(self._failures))

    def _undo(self) -> None:
        self.stalled_since = None
        self._replica.undo()
        self._speculating = False
        self._answer_queries()

    def _stall(self) -> None:
        """The append takes too long: serve queries as of the last settled position until its outcome is known."""
        self.stalled_since = asyncio.get_running_loop().time()
        self._replica.undo()
        self._speculating = False
        self._answer_queries()
        self._tell_commands(Busy("The store is slow to answer."))

    def _recover(self, batch: _Batch) -> None:
        """The append that stalled was recorded after all: apply it as what it is now, a part of the log."""
        self.stalled_since = None
        self._replica.replay(batch.records)

    async def _catch_up(self) -> None:
        before = self.position
        if self._failures:
            await self._replica.verify()
        await self._replica.catch_up()
        self._behind = False
        self._failures = 0
        self._caught_up.set()
        if self.position != before:
            self._answer_queries()
            self._moved()

    async def _watch(self) -> None:
        """Notice what other processes append. What this one has in flight is no news."""
        while True:
            position = self._replica.position
            await self._log.wait(position, self._limits.look_s)
            if self._replica.position == position:
                self._caught_up.clear()
                self._notice_growth()
                await self._caught_up.wait()
            else:
                await asyncio.sleep(0)  # `wait` need not have given way: see that the loop goes round.

    def _notice_growth(self) -> None:
        self._behind = True
        self._wake.set()

    async def _has_work(self) -> bool:
        if not self._commands and not self._behind:
            if self._stopping:
                return False
            self._wake.clear()
            await self._wake.wait()
        return bool(self._commands) or not self._stopping

    # Telling.

    def _moved(self) -> None:
        position = self.position
        for waiter in self._position_waiters:
            if waiter[0] <= position and not waiter[1].done():
                waiter[1].set_result(None)
        self._on_settled()

    def _answer_queries(self) -> None:
        if self._replica.rebuilding:
            return
        while self._queries:
            run, future = self._queries.popleft()
            if future.done():
                continue
            try:
                future.set_result(run(self._replica.state))
            except Exception as error:  # noqa: BLE001  # it is the caller's, and goes to the caller
                future.set_exception(error)

    def _tell_commands(self, error: JourneymanError) -> None:
        while self._commands:
            self._commands.popleft().tell(error)

    def _tell_everybody(self, error: JourneymanError) -> None:
        self._stopping = True
        self._undo()
        self._tell_commands(error)
        for _, future in (*self._queries, *self._position_waiters):
            if not future.done():
                future.set_exception(error)
        self._queries.clear()

    def _check_open(self, *, for_query: bool = False) -> None:
        if self.failure is not None:
            raise self.failure
        if self._stopping:
            raise NotRunning("The application is not running. Nothing was recorded.")
        if self.stalled_since is not None and not for_query:
            raise Busy("The store is slow to answer.")

    def _pause_s(self, attempt: int) -> float:
        """Full jitter over a doubling pause."""
        return self._timing.uniform(0, min(self._limits.pause_s, 0.01 * 2 ** min(attempt, 20)))


_UNKNOWN: Final = (
    "The store did not say whether the command was recorded. Execute it again with the same idempotency key: "
    "it is recorded once, whatever happened."
)

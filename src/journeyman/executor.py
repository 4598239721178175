"""The executor: turns commands into recorded messages. One task, the only one that touches the replica.

    catch up → speculate (admit, validate, apply) → append → settle

Every command that waits goes into one batch, and one durable write serves them all. Nothing that rests on a batch is
told before the batch is durable: no receipt, no refusal, no query result.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final, TypeVar

import msgspec

from journeyman.errors import (
    ApplyFailed,
    Busy,
    Conflict,
    JourneymanError,
    NotReady,
    NotRunning,
    OutcomeUnknown,
    Rejected,
    TooLarge,
)
from journeyman.feature import Catalog, Command
from journeyman.message import Record
from journeyman.meter import Meter
from journeyman.pending import WAITING_MAX, Envelope, Pending, WaitingCommands, prepare
from journeyman.receipts import Receipt
from journeyman.replica import Replica
from journeyman.store.base import MessageLog
from journeyman.tables import AppState
from journeyman.telemetry import NO_TRACING, Tracing
from journeyman.timing import Timing

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Conflicts in a row after which the executor takes the writer's turn.
CONFLICTS_BEFORE_TURN: Final = 3

#: How long the turn is kept while callers go on, in seconds: taking it costs as much as a batch or two.
TURN_S: Final = 0.02

#: The longest pause after a conflict, in seconds: so that writers who collided don't meet again.
CONFLICT_PAUSE_S_MAX: Final = 0.02

#: What ends one step and not the executor. The store's other errors (WrongLog, Corrupt) end it, as a defect does.
_PASSING: Final = (NotReady, OutcomeUnknown, TooLarge, Busy)

#: What leaves open whether an append was done, once one try at it may have been.
_NOT_TOLD: Final = (OutcomeUnknown, NotReady, TimeoutError)


class Limits(msgspec.Struct, frozen=True):
    """How long the executor tries, in seconds."""

    #: An append that takes longer is set apart: queries go on at the last settled position, new commands get Busy.
    stall_s: float = 0.1
    #: One try at an append; after it the identical call is made again.
    append_s: float = 5.0
    #: All tries at a batch whose outcome is not known; after it callers get OutcomeUnknown.
    settle_s: float = 30.0
    #: Reading what others appended; after it callers get Busy, and reading goes on.
    read_s: float = 5.0
    #: Losing to other writers, and waiting for the writer's turn; after it callers get Busy.
    conflict_s: float = 5.0
    #: The longest pause between tries.
    pause_s: float = 1.0
    #: How often the log is looked at when nothing wakes the executor.
    look_s: float = 1.0
    #: The pause between looks at the log while this process appends itself.
    busy_look_s: float = 0.02


class _Batch:
    """Commands judged together, and the records of those that were taken."""

    __slots__ = ("pendings", "records")

    def __init__(self) -> None:
        self.pendings: list[Pending] = []
        self.records: list[Record] = []

    def tell(self, error: JourneymanError) -> None:
        for pending in self.pendings:
            pending.tell(error)


class Executor:
    """Executes commands and answers queries over one replica.

    Args:
        on_settled: called, in the executor's task, each time the settled position has moved.
        on_judged: called, in the executor's task, once a batch is judged and nothing else waits: what it submits goes
            into the same append.
    """

    def __init__(
        self,
        log: MessageLog,
        catalog: Catalog,
        replica: Replica,
        *,
        timing: Timing,
        on_settled: Callable[[], None] = lambda: None,
        on_judged: Callable[[], None] = lambda: None,
        limits: Limits = Limits(),
        meter: Meter | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._log = log
        self._catalog = catalog
        self._replica = replica
        self._timing = timing
        self._limits = limits
        self.meter = meter or Meter()
        self.tracing = tracing
        # Kept, because Python 3.11 asks the kernel for the process's id each time that the running loop is asked for.
        self._loop = asyncio.get_running_loop()
        self._on_settled = on_settled
        self._on_judged = on_judged
        self._commands = WaitingCommands()
        self._queries: deque[tuple[Callable[[AppState], Any], asyncio.Future[Any]]] = deque()
        self._position_waiters: set[tuple[int, asyncio.Future[None]]] = set()
        self._wake = asyncio.Event()
        self._caught_up = asyncio.Event()
        #: The batch that is not settled; its callers must be told, whatever happens.
        self._batch = _Batch()
        #: Whether the state holds what is not durable: no query may run.
        self._speculating = False
        #: Whether the log may hold what is not applied.
        self._behind = False
        #: Tries in a row at which the store failed; after any, the log is checked to be the one that was read.
        self._failures = 0
        self._losses = 0
        self._lost_since = 0.0
        #: Whether others appended while this process waited for its last turn: then they would win again without one.
        self._contended = False
        self._stopping = False
        #: Since when an append has been unsettled too long, on the loop's clock; None when all is well.
        self.stalled_since: float | None = None
        #: Why nothing can be executed or asked any more; None while it can.
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
            UnknownName: its class belongs to no feature of the application.
            Invalid: its fields do not fit their types, or a text of its envelope can't be stored.
            TooLarge: its body is over BODY_BYTES_MAX.
            Rejected: the state does not allow it; carries the position it was judged at.
            ApplyFailed: the application's own code broke on it.
            Busy, NotRunning, NotReady: it was not recorded.
            OutcomeUnknown: it may have been recorded; execute it again with the same idempotency key.
            Poisoned, Outdated, WrongLog, Corrupt: why applying had to stop; it was not recorded.
        """
        return await self.submit(command, envelope)

    def submit(self, command: Command, envelope: Envelope) -> asyncio.Future[Receipt]:
        """Like `execute`, without waiting. What is submitted in order is judged in that order."""
        try:
            self._check_running()
            if self._stopping:
                raise NotRunning("The application is stopping. Nothing was recorded.")
            if self.stalled_since is not None:
                raise Busy("The store is slow to answer.")
            pending = prepare(self._catalog, command, envelope, self._loop, id=self._timing.new_id())
            self._commands.add(pending)
        except JourneymanError as error:
            self.meter.refused(self._catalog.known_name_of(type(command)), error)
            raise
        self._wake.set()
        return pending.future

    async def query(self, run: Callable[[AppState], T]) -> T:
        """What `run` finds in the settled state. It runs between batches, never on what is not durable.

        Raises:
            Busy: too many queries wait, or the state is being built anew and the store can't be read.
            NotRunning, Poisoned, Outdated, WrongLog, Corrupt: why nothing can be asked any more.
        """
        self._check_running()
        if not self._speculating and not self._replica.rebuilding:
            return self._ask(run)
        if len(self._queries) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} queries wait already.", retry_after_s=0.1)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queries.append((run, future))
        return await future

    async def reach(self, position: int, timeout_s: float) -> None:
        """Return when queries see `position`.

        Raises:
            Busy: they do not after `timeout_s`, or too many wait for a position.
            NotRunning, Poisoned, Outdated, WrongLog, Corrupt: why they never will.
        """
        self._check_running()
        if self.position >= position:
            return
        if len(self._position_waiters) >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} queries wait for a position already.", retry_after_s=0.1)
        waiter = (position, asyncio.get_running_loop().create_future())
        self._position_waiters.add(waiter)
        self._notice_growth()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter[1]
        except TimeoutError:
            raise Busy(f"This process has position {self.position}, not {position}, after {timeout_s:g} s.") from None
        finally:
            self._position_waiters.discard(waiter)

    def stop(self) -> None:
        """Take no new commands; `run` ends once those that wait are done."""
        self._stopping = True
        self._wake.set()

    # The loop.

    async def run(self) -> None:
        """Execute commands and follow the log, until stopped.

        Raises:
            Poisoned, Outdated, WrongLog, Corrupt: applying can't go on. Whoever waits is told the same.
        """
        watch = asyncio.create_task(self._watch(), name="journeyman: log watch")
        try:
            while await self._has_work():
                await self._step()
        except JourneymanError as error:
            self.failure = error
            raise
        except Exception as error:
            self.failure = NotRunning(f"The application stopped on a defect: {error!r}. Restart it, and report this.")
            self.failure.__cause__ = error
            raise
        finally:
            watch.cancel()
            self._end(self.failure or NotRunning("The application has stopped. Nothing was recorded."))
            await asyncio.gather(watch, return_exceptions=True)

    async def _step(self) -> None:
        """One batch: catch up, speculate, append, settle. In the writer's turn as many as find the time."""
        self._batch = _Batch()
        try:
            if self._needs_turn():
                await self._take_turn()
            else:
                if self._behind:
                    await self._catch_up()
                self._speculate(self._batch)
                await self._append(self._batch)
            self._settle(self._batch)
        except Conflict:
            await self._judge_again(self._batch)
        except _PASSING as error:
            await self._take_back(self._batch, error)

    def _speculate(self, batch: _Batch) -> None:
        """Judge waiting commands in order, as many as one append may carry, and apply those that are taken.

        What the new state asks for at once, such as the start of a job that was just opened, goes along.
        """
        self._judge_waiting(batch)
        if not self._commands and not self._stopping:
            self._on_judged()
            if self._commands:
                self._judge_waiting(batch)

    def _judge_waiting(self, batch: _Batch) -> None:
        pendings = self._commands.take(beside=batch.pendings)
        recorded_at_us = self._timing.now_us()
        with self.tracing.batch("apply", pendings):
            for pending in pendings:
                pending.outcome = self._judge(pending, batch, recorded_at_us)
        batch.pendings += pendings
        self._speculating = bool(batch.records)

    def _judge(self, pending: Pending, batch: _Batch, recorded_at_us: int) -> Receipt | JourneymanError:
        replica = self._replica
        try:
            if receipt := self._earlier_receipt(pending):
                return receipt
            message = pending.propose(position=replica.position + 1, recorded_at_us=recorded_at_us)
            replica.propose(message)
        except Rejected as error:
            error.position = replica.position
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
        """Make the batch durable. Where all were refused, it is empty: then this only checks that the head is still
        where they were refused, for nobody may have recorded what would have changed that.
        """
        if not batch.pendings:
            return
        began_s = self._loop.time()
        stall = self._loop.call_later(self._limits.stall_s, self._stall)
        try:
            with self.tracing.batch("append", batch.pendings):
                await self._append_until_told(batch.records, after=self._replica.settled_position)
        finally:
            stall.cancel()
        if batch.records:
            self.meter.appended(len(batch.records), self._loop.time() - began_s)

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
        self.meter.told(batch.pendings, recorded=len(batch.records))
        if batch.records:
            self._moved()

    # When it is not so easy.

    async def _append_until_told(self, records: Sequence[Record], *, after: int) -> None:
        """Repeat the identical call until its outcome is known, or time is up.

        After a try that may have been done, NotReady says only that the next one was not.
        """
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._limits.settle_s
        for attempt in count(1):
            try:
                async with asyncio.timeout(self._limits.append_s):
                    if attempt > 1:
                        await self._replica.verify()
                    await self._log.append(records, after=after)
                return
            except _NOT_TOLD as error:
                if attempt == 1 and isinstance(error, NotReady):
                    raise
                if loop.time() >= give_up_at:
                    raise OutcomeUnknown(_UNKNOWN) from error
            await asyncio.sleep(self._pause_s(attempt))

    async def _judge_again(self, batch: _Batch) -> None:
        """Another writer was first: take everything back, catch up, and judge the same commands anew."""
        now = asyncio.get_running_loop().time()
        self._lost_since = now if self._losses == 0 else self._lost_since
        self._losses += 1
        self._undo()
        if now - self._lost_since > self._limits.conflict_s:
            self._losses = 0
            self._tell(batch, Busy(f"Other writers were faster for {self._limits.conflict_s:g} s."))
        else:
            self._commands.put_back(batch.pendings)
        batch.pendings = []
        await asyncio.sleep(self._timing.uniform(0, min(CONFLICT_PAUSE_S_MAX, 0.001 * self._losses)))

    async def _take_back(self, batch: _Batch, error: JourneymanError) -> None:
        """The batch was not recorded, or nobody knows: take it back and tell its callers."""
        self._undo()
        self._failures += 1
        self._tell(batch, error)
        if not batch.pendings:
            # The store can't even be read: whoever waits is told, and the next look is not at once.
            self._tell_waiting(error)
            self._tell_queries(error)
            await asyncio.sleep(self._pause_s(self._failures))

    def _undo(self) -> None:
        """Back to the last settled position, behind whatever has become of the batch."""
        self.stalled_since = None
        self._behind = True
        self._replica.undo()
        self._speculating = False
        self._answer_queries()

    def _stall(self) -> None:
        """The append takes too long: serve queries as of the last settled position until its outcome is known."""
        self._undo()
        self.stalled_since = asyncio.get_running_loop().time()
        self._tell_waiting(Busy("The store is slow to answer."))

    def _recover(self, batch: _Batch) -> None:
        """The append that stalled was done after all: apply it as what it is now, a part of the log."""
        self.stalled_since = None
        self._replica.replay(batch.records)

    def _needs_turn(self) -> bool:
        return self._losses >= CONFLICTS_BEFORE_TURN or (self._contended and bool(self._commands))

    async def _take_turn(self) -> None:
        """Batches in the writer's turn, while callers have commands and it is not too long. The last is not settled."""
        async with self._turn():
            over_at = self._loop.time() + TURN_S
            while True:
                self._speculate(self._batch)
                await self._append(self._batch)
                if self._loop.time() >= over_at:
                    return
                self._settle(self._batch)
                self._batch = _Batch()
                await asyncio.sleep(0)  # Callers who were told this moment send their next commands.
                if not self._commands:
                    return

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The writer's turn: while it is held, others' appends wait."""
        if self._behind:
            await self._catch_up()  # Before, so that less is left to do in the turn.
        before = self.position
        async with AsyncExitStack() as stack:
            following = asyncio.create_task(self._follow(), name="journeyman: catch up before the turn")
            try:
                async with asyncio.timeout(self._limits.conflict_s):
                    await stack.enter_async_context(self._log.turn())
            except TimeoutError:
                raise Busy(f"Other writers held the store for {self._limits.conflict_s:g} s.") from None
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            self._behind = True
            await self._catch_up()
            self._contended = self.position != before
            yield

    async def _follow(self) -> None:
        """Catch up again and again, on behalf of a step that waits: then there is less to do in its turn."""
        while True:
            self._wake.clear()
            if self._behind:
                await self._catch_up()
            await self._wake.wait()

    async def _catch_up(self) -> None:
        before = self.position
        # Before reading, not after: what is noticed meanwhile may be newer than what was read.
        self._behind = False
        try:
            async with asyncio.timeout(self._limits.read_s):
                if self._failures:
                    await self._replica.verify()
                await self._replica.catch_up()
        except TimeoutError:
            raise Busy("The log is being read.") from None
        finally:
            if self.position != before:
                self._answer_queries()
                self._moved()
        self._failures = 0
        self._caught_up.set()

    async def _watch(self) -> None:
        """Notice what other processes append. What this one has in flight is no news."""
        while True:
            position = self._replica.settled_position
            try:
                await self._log.wait(position, self._limits.look_s)
            except Exception as error:  # noqa: BLE001  # what it means is told by reading, which comes next
                logger.warning("the log can't be watched, so it is read each %g s: %r", self._limits.look_s, error)
                await asyncio.sleep(self._limits.look_s)
            if self._replica.position == position:
                self._caught_up.clear()
                self._notice_growth()
                await self._caught_up.wait()
            else:
                # Own appends wake `wait`, too; a conflict would tell of another's message soon enough.
                await asyncio.sleep(self._limits.busy_look_s)

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

    def _tell(self, batch: _Batch, error: JourneymanError) -> None:
        batch.tell(error)
        self.meter.failed(batch.pendings, error)

    def _tell_waiting(self, error: JourneymanError) -> None:
        self.meter.failed(self._commands.tell_all(error), error)

    def _moved(self) -> None:
        position = self.position
        for wanted, future in self._position_waiters:
            if wanted <= position and not future.done():
                future.set_result(None)
        self._on_settled()

    def _ask(self, run: Callable[[AppState], T]) -> T:
        """Run a query on the settled state, where there is nothing to undo unless the query itself changed a table."""
        state = self._replica.state
        try:
            result = run(state)
            if state.undo.entries:
                raise RuntimeError("The query changed the state, which only apply may; its change was taken back.")
            return result
        finally:
            if state.undo.entries:
                state.undo.undo()

    def _answer_queries(self) -> None:
        if self._replica.rebuilding:
            return
        while self._queries:
            run, future = self._queries.popleft()
            if future.done():
                continue
            try:
                future.set_result(self._ask(run))
            except StopIteration as error:
                # A future can't carry it; from a coroutine it would come as a RuntimeError, too (PEP 479).
                future.set_exception(_with_cause(RuntimeError("The query raised StopIteration."), error))
            except Exception as error:  # noqa: BLE001  # it is the caller's, and goes to the caller
                future.set_exception(error)

    def _tell_queries(self, error: JourneymanError) -> None:
        while self._queries:
            future = self._queries.popleft()[1]
            if not future.done():
                future.set_exception(error)

    def _end(self, failure: JourneymanError) -> None:
        """Whatever ended the executor, nobody may wait for it any more."""
        self.failure = failure
        self._tell(self._batch, OutcomeUnknown(_UNKNOWN))
        self._undo()
        self._tell_waiting(failure)
        self._tell_queries(failure)
        for _, future in self._position_waiters:
            if not future.done():
                future.set_exception(failure)

    def _check_running(self) -> None:
        if self.failure is not None:
            # It is raised again and again: without this, its traceback would grow each time.
            raise self.failure.with_traceback(None)

    def _pause_s(self, attempt: int) -> float:
        """Full jitter over a doubling pause."""
        return self._timing.uniform(0, min(self._limits.pause_s, 0.01 * 2 ** min(attempt, 20)))


def _with_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


_UNKNOWN: Final = (
    "The store did not say whether the command was recorded. Execute it again with the same idempotency key: "
    "it is recorded once, whatever happened."
)

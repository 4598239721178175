"""Running a to-do worker: reactions in order, jobs side by side, one recorded answer for each.

    job-started is recorded → perform → the answer, with the attempt's fence, is recorded

An outcome, once known, is dispatched again until the log takes or refuses it; `perform` is never repeated because
recording failed.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import logging
from typing import Any, Final, TypeVar

import msgspec

from journeyman.errors import (
    ApplyFailed,
    Busy,
    DefinitionError,
    Fenced,
    GiveUp,
    Invalid,
    NotReady,
    OutcomeUnknown,
    Rejected,
    TooLarge,
    UnknownName,
)
from journeyman.executor import Executor
from journeyman.feature import Catalog, Command
from journeyman.follower import MessageSource
from journeyman.message import Meta
from journeyman.pending import Envelope
from journeyman.receipts import Receipt
from journeyman.retry import describe, draw_pause_s
from journeyman.tables import AppState, Table
from journeyman.threads import in_thread
from journeyman.timing import Timing
from journeyman.todo.jobs import (
    STARTABLE,
    InstanceLost,
    JobEnded,
    JobFailed,
    JobParked,
    JobReleased,
    JobRow,
    JobStarted,
)
from journeyman.todo.lane import Fault, Lane, LaneState
from journeyman.todo.ledger import jobs_state
from journeyman.todo.reactor import Reactor
from journeyman.todo.worker import Attempt, TodoWorker
from journeyman.worker import Context

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Of the time left for stopping, what is kept to release the attempts that did not end.
RELEASE_S: Final = 1.0

#: While the store is in trouble, an outcome is dispatched again after pauses of up to so many seconds.
DISPATCH_PAUSE_MAX_S: Final = 5.0

#: What `dispatch_until_told` tries again: surely not recorded, or perhaps recorded, but not refused.
_TRANSIENT: Final = (Busy, NotReady, OutcomeUnknown)

#: What says that a command can't be recorded, whenever it is tried.
_UNRECORDABLE: Final = (Rejected, Invalid, TooLarge, ApplyFailed, UnknownName)


class Process:
    """What the runners of one process share: its instance id, and that one suspect runs at a time."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.suspect: tuple[str, str] | None = None


class Ready(msgspec.Struct, frozen=True):
    """What a runner finds in the state: jobs to start, jobs out of attempts, its attempts that are over or unknown."""

    start: list[JobRow]
    exhausted: list[JobRow]
    stray: list[JobRow]
    fenced: list[str]
    next_due_us: int | None


class TodoRunner:
    """Runs one to-do worker in one process. It is a Worker itself, supervised like any other."""

    def __init__(
        self,
        worker: TodoWorker,
        executor: Executor,
        catalog: Catalog,
        messages: MessageSource,
        process: Process,
        *,
        timing: Timing,
    ) -> None:
        self.name = worker.name
        self.worker = worker
        loop = asyncio.get_running_loop()
        self.lane = Lane(now_s=loop.time, uniform=timing.uniform)
        self._executor = executor
        self._messages = messages
        self._process = process
        self._timing = timing
        self._reactors = [Reactor(worker, reaction, executor, catalog, messages) for reaction in worker.reactions]
        #: The attempts that run here, by job; the fence is None until job-started is recorded.
        self._running: dict[str, _Running] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._context: Context | None = None
        self._draining = False

    # The contract of a worker.

    async def start(self, context: Context) -> None:
        """Record new reactions, then start the worker."""
        self._context = context
        self.worker.app = context.app
        self.worker.messages = self._messages
        for reactor in self._reactors:
            await reactor.start()
        await self.worker.start()

    async def work(self) -> None:
        """Start what is ready, then react to what is new."""
        await self._start_ready()
        await self._react()

    async def stop(self, context: Context) -> None:
        """Let running attempts end until the deadline, release the others, then stop the worker."""
        self._draining = True
        if self._alarm is not None:
            self._alarm.cancel()
        tasks = {running.task for running in self._running.values()}
        if tasks:
            remaining_s = context.remaining_s() or 0.0
            _, late = await asyncio.wait(tasks, timeout=max(0.0, remaining_s - RELEASE_S))
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self.worker.stop()

    @property
    def position(self) -> int:
        """The last message that every reaction has looked at."""
        return min((reactor.position for reactor in self._reactors), default=self._executor.position)

    @property
    def running(self) -> int:
        return len(self._running)

    def resume(self) -> None:
        """A person resumed the worker: a lane that was stopped or paused is open again."""
        self.lane.resume()
        self._wake()

    # Reactions.

    async def _react(self) -> None:
        error: Exception | None = None
        for reactor in self._reactors:
            try:
                if await reactor.run():
                    self._wake()
            except Exception as failure:  # noqa: BLE001  # raised below: one reaction must not hold up the others
                error = error or failure
        if error is not None:
            raise error

    # Jobs.

    async def _start_ready(self) -> None:
        now_us = self._timing.now_us()
        slots = self.lane.allows(free=self.worker.concurrency - len(self._running), running=len(self._running))
        ready = await self._executor.query(lambda state: self._find_ready(state, now_us, slots))
        for key in ready.fenced:
            self._running[key].task.cancel()
        for row in ready.stray:
            assert row.fence is not None
            await self._finish(JobReleased(fence=row.fence, reason="its process is not running it"))
        for row in ready.exhausted:
            reason = f"no attempts left after {row.attempts}: {row.error or 'no error recorded'}"
            await self._finish(JobParked(worker=row.worker, job=row.job, reason=reason))
        for row in ready.start:
            self._spawn(row)
        self._set_alarm(ready.next_due_us, now_us)

    def _find_ready(self, state: AppState, now_us: int, slots: int) -> Ready:
        table = jobs_state(state)
        mine = table.jobs.find("instance", self._process.instance)
        known = {running.fence for running in self._running.values()}
        held = {row.fence for row in mine}
        ready = Ready(
            start=[],
            exhausted=[],
            stray=[
                row
                for row in mine
                if row.worker == self.name and row.fence not in known and row.job not in self._running
            ],
            fenced=[key for key, running in self._running.items() if running.fence and running.fence not in held],
            next_due_us=None,
        )
        worker = table.workers.get(self.name)
        if worker is not None and worker.paused:
            return ready
        busy = {row.subject for row in mine if row.worker == self.name and row.subject is not None}
        next_due_us = self._choose(table.jobs, ready, busy, now_us=now_us, slots=slots)
        return msgspec.structs.replace(ready, next_due_us=next_due_us)

    def _choose(
        self, table: Table[tuple[str, str], JobRow], ready: Ready, busy: set[str], *, now_us: int, slots: int
    ) -> int | None:
        """Fill `ready` with the jobs that have been due for longest. Returns when the next one will be due."""
        suspect_taken = self._process.suspect is not None
        probe_again: JobRow | None = None
        scans = (table.scan("due", self.name, standing) for standing in STARTABLE)
        for row in heapq.merge(*scans, key=lambda row: (row.due_at_us, row.opened_at)):
            if row.due_at_us > now_us:
                return int(row.due_at_us)
            if row.attempts >= self.worker.retry.attempts:
                ready.exhausted.append(row)
                continue
            if len(ready.start) >= slots:
                return None
            if row.job in self._running or row.subject in busy or (row.suspect and suspect_taken):
                continue
            if self.lane.state is LaneState.PROBING and row.job == self.lane.last_probe:
                probe_again = row
                continue
            suspect_taken = suspect_taken or row.suspect
            if row.subject is not None:
                busy.add(row.subject)
            ready.start.append(row)
        if probe_again is not None and not ready.start and slots > 0:
            ready.start.append(probe_again)
        return None

    def _spawn(self, row: JobRow) -> None:
        if row.suspect:
            self._process.suspect = (row.worker, row.job)
        task = asyncio.create_task(self._attempt(row), name=f"{self.name} {row.job}")
        running = _Running(task)
        self._running[row.job] = running
        task.add_done_callback(lambda _: self._ended(row))

    def _ended(self, row: JobRow) -> None:
        running = self._running.pop(row.job)
        if self._process.suspect == (row.worker, row.job):
            self._process.suspect = None
        if not running.task.cancelled() and (error := running.task.exception()) is not None:
            logger.error("%s %s: the attempt was left open", self.name, row.job, exc_info=error)
        self._wake()

    async def _attempt(self, row: JobRow) -> None:
        """One attempt: record it, perform it, record what came of it."""
        attempt = await self._begin(row)
        if attempt is None:
            return
        try:
            answer = await self._perform(attempt)
        except asyncio.CancelledError:
            # Either somebody else answered meanwhile, and this release is fenced; or the process is stopping.
            await asyncio.shield(
                self._finish(JobReleased(fence=attempt.fence, reason="its process was stopping"), attempt)
            )
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is recorded as the attempt's error
            await self._record_failure(attempt, error)
        else:
            self.lane.succeeded()
            await self._record_answer(attempt, answer)

    async def _begin(self, row: JobRow) -> Attempt[Any] | None:
        """Record the attempt, before anything is done for it. None when the state did not take it."""
        message = await self._messages.get(row.opened_at)
        if message is None:
            raise DefinitionError(f"The message at {row.opened_at}, which opened job {row.job}, is not there.")
        started = JobStarted(
            worker=self.name,
            job=row.job,
            instance=self._process.instance,
            park_after_crash=self.worker.after_crash == "park",
        )
        envelope = self._envelope(correlation_id=message.correlation_id, causation_id=message.id)
        try:
            receipt = await self._executor.execute(started, envelope)
        except (Rejected, *_TRANSIENT):
            return None  # Another process was first, or a person paused it, or the store is in trouble: look again.
        self._running[row.job].fence = receipt.position
        return Attempt(
            id=row.job,
            subject=row.subject,
            number=row.attempts + 1,
            message=message,
            fence=receipt.position,
            key=f"{message.id}:{row.job}",
        )

    async def _perform(self, attempt: Attempt[Any]) -> Command | None:
        perform = self.worker.perform
        async with asyncio.timeout(self.worker.timeout_s) as limit:
            if inspect.iscoroutinefunction(perform):
                answer = await perform(attempt)
            else:
                answer = await self._perform_in_thread(attempt, limit)
        if answer is not None and not isinstance(answer, Command):
            raise DefinitionError(f"{type(self.worker).__name__}.perform returned {answer!r}, which is no command.")
        return answer

    async def _perform_in_thread(self, attempt: Attempt[Any], limit: asyncio.Timeout) -> Any:
        """A thread can't be cancelled: the slot is held until it returns, however late."""
        thread = asyncio.ensure_future(
            in_thread(lambda: self.worker.perform(attempt), name=f"{self.name} {attempt.id}")
        )
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            if limit.expired() and not self._draining:
                await asyncio.wait({thread})
            thread.cancel()
            raise

    # Recording what came of it.

    async def _record_answer(self, attempt: Attempt[Any], answer: Command | None, *, error: str | None = None) -> None:
        command = answer or JobEnded(fence=attempt.fence, reason="done")
        try:
            await self._dispatch(command, attempt, fence=attempt.fence if answer else None, error=error)
        except Fenced:
            return  # Somebody answered first, or took the job over: this answer is dropped.
        except _UNRECORDABLE as refusal:
            # The outcome is known and the log does not take it: final. Performing again would only cost again.
            await self._finish(JobEnded(fence=attempt.fence, reason=f"answer refused: {describe(refusal)}"), attempt)

    async def _record_failure(self, attempt: Attempt[Any], error: Exception) -> None:
        text = describe(error)
        if self.lane.failed(attempt.id, error) is Fault.SERVICE:
            # The lane's own pause says when the service is tried again; the job goes on as soon as it may.
            await self._finish(JobReleased(fence=attempt.fence, reason=text), attempt)
        elif isinstance(error, GiveUp) or attempt.number >= self.worker.retry.attempts:
            await self._give_up(attempt, error)
        else:
            pause_s = self.worker.retry.pause_s(attempt.number, self._timing.uniform)
            await self._finish(JobFailed(fence=attempt.fence, error=text, retry_after_s=pause_s), attempt)

    async def _give_up(self, attempt: Attempt[Any], error: Exception) -> None:
        answer = self.worker.give_up(attempt, error)
        if answer is None:
            await self._finish(JobFailed(fence=attempt.fence, error=describe(error), retry_after_s=None), attempt)
        else:
            await self._record_answer(attempt, answer, error=describe(error))

    async def _finish(self, command: Command, attempt: Attempt[Any] | None = None) -> None:
        """Record the end of an attempt. Refused means that it, or its job, is over already: nothing is left to do."""
        try:
            await self._dispatch(command, attempt)
        except Rejected:
            return

    async def _dispatch(
        self,
        command: Command,
        attempt: Attempt[Any] | None = None,
        *,
        fence: int | None = None,
        error: str | None = None,
    ) -> Receipt:
        """Dispatch until the log takes or refuses it: what is known must not be lost to a store in trouble.

        Raises:
            Rejected, Invalid, TooLarge, ApplyFailed, UnknownName: it was refused.
            NotRunning: the process is stopping; the next one finds the attempt open.
        """
        message = attempt.message if attempt is not None else None
        envelope = self._envelope(
            correlation_id=message.correlation_id if message is not None else None,
            causation_id=message.id if message is not None else None,
            fence=fence,
            meta=Meta(error=error),
        )
        tries = 0
        while True:
            try:
                return await self._executor.execute(command, envelope)
            except _TRANSIENT as trouble:
                tries += 1
                logger.warning("%s: try %d to record %s: %s", self.name, tries, type(command).__name__, trouble)
                await asyncio.sleep(draw_pause_s(0.05, 2.0, DISPATCH_PAUSE_MAX_S, tries, self._timing.uniform))

    def _envelope(self, **fields: Any) -> Envelope:
        return Envelope(actor=f"worker:{self.name}", **fields)

    # Waking.

    def _wake(self) -> None:
        if self._context is not None and not self._draining:
            self._context.wake()

    def _set_alarm(self, next_due_us: int | None, now_us: int) -> None:
        """Wake when the next job is due, or the lane opens again."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        waits = [self.lane.waits_s] if self.lane.waits_s > 0 else []
        if next_due_us is not None:
            waits.append((next_due_us - now_us) / 1_000_000)
        if waits:
            self._alarm = asyncio.get_running_loop().call_later(max(0.001, min(waits)), self._wake)


class _Running:
    """An attempt that runs here. `fence` is None until its start is recorded."""

    __slots__ = ("fence", "task")

    def __init__(self, task: asyncio.Task[None]) -> None:
        self.task = task
        self.fence: int | None = None


async def release_lost_instances(executor: Executor, instance: str) -> int:
    """Record that every other instance with open attempts is gone: for a process that alone runs the workers.

    Returns how many instances were lost.
    """
    lost = await executor.query(
        lambda state: sorted(
            {row.instance for row in jobs_state(state).jobs if row.instance not in (None, instance)}, key=str
        )
    )
    for other in lost:
        assert other is not None
        await executor.execute(InstanceLost(instance=other), Envelope(actor=f"instance:{instance}"))
    return len(lost)

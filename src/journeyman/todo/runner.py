"""Running a to-do worker: reactions in order, jobs side by side. What one attempt does is in `attempts.py`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context as Variables
from contextvars import copy_context
from typing import Any, Final

from journeyman.errors import JourneymanError, NotRunning
from journeyman.executor import Executor
from journeyman.feature import Catalog
from journeyman.follower import MessageSource
from journeyman.receipts import Receipt
from journeyman.replica import Replica
from journeyman.store.base import KeyValue
from journeyman.tables import AppState
from journeyman.timing import Timing
from journeyman.todo.attempts import Performer, Running
from journeyman.todo.backoff import Backoff
from journeyman.todo.choice import Choice, Slots, choose
from journeyman.todo.jobs import JobParked, JobReleased
from journeyman.todo.lane import PROBE_MAX_S, Lane, LaneState
from journeyman.todo.ledger import jobs_state, runs_a_suspect
from journeyman.todo.limiter import Limiter
from journeyman.todo.process import Process
from journeyman.todo.reactor import Reactor
from journeyman.todo.recorder import TROUBLE_FIRST_S, TROUBLE_MAX_S, Recorder, is_trouble
from journeyman.todo.worker import TodoWorker
from journeyman.worker import Context

logger = logging.getLogger(__name__)

#: Of the time left for stopping, what is kept to release the attempts that did not end: a share, and at most so long.
RELEASE_SHARE: Final = 0.25
RELEASE_S_MAX: Final = 1.0

#: The pause before an attempt that was recorded, but that nobody runs, is made again, in seconds.
STRAY_RETRY_S: Final = 1.0


class TodoRunner:
    """Runs one to-do worker in one process. It is a Worker itself, supervised like any other."""

    def __init__(
        self,
        worker: TodoWorker,
        executor: Executor,
        catalog: Catalog,
        messages: MessageSource,
        process: Process,
        keys: KeyValue,
        *,
        timing: Timing,
    ) -> None:
        now_s, uniform = asyncio.get_running_loop().time, timing.uniform
        self.name = worker.name
        self.worker = worker
        self.lane = Lane(now_s=now_s, uniform=uniform)
        self._executor = executor
        self._messages = messages
        self._process = process
        self._timing = timing
        self._trouble = Backoff(TROUBLE_FIRST_S, TROUBLE_MAX_S, now_s=now_s, uniform=uniform)
        self._recorder = Recorder(executor, worker.name, uniform=uniform)
        self._performer = Performer(worker, self._recorder, process, self.lane, self._trouble, timing=timing)
        self._reactors = [
            Reactor(worker, reaction, executor, catalog, messages, self._recorder, now_s=now_s, uniform=uniform)
            for reaction in worker.reactions
        ]
        self._limiter = (
            Limiter(keys, worker.name, worker.requests_per_minute, now_us=timing.now_us)
            if worker.requests_per_minute is not None
            else None
        )
        #: When attempts took leave to begin that were then not recorded: another process was first.
        self._unused_us: list[int] = []
        self._running: dict[str, Running] = {}
        #: Whether jobs are chosen that do not run yet: nobody else may take their slots.
        self._choosing = False
        #: How many jobs were ever opened, when the newest ones were last looked at.
        self._opened = 0
        #: What attempts find in context variables, from the end of the worker's `start`: what that has set.
        self._variables: Variables | None = None
        self._resumed_at = 0
        self._next_due_s: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._context: Context | None = None

    # The contract of a worker.

    async def start(self, context: Context) -> None:
        """Record new reactions, then start the worker."""
        self._context = context
        self._process.join(self._wake)
        self.worker.context = context
        self.worker.app = context.app
        self.worker.messages = self._messages
        for reactor in self._reactors:
            await reactor.start()
        await self.worker.start()
        self._variables = copy_context()

    async def work(self) -> None:
        """Start what is ready, then react to what is new."""
        await self._start_jobs()
        for reactor in self._reactors:
            if await reactor.work():
                self._wake()
        self._set_alarm()

    async def stop(self, context: Context) -> None:
        """Let running attempts end until the deadline, release the others, then stop the worker."""
        self._performer.draining = True
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            await self._drain(context.remaining_s() or 0.0)
        finally:
            await self.worker.stop()

    async def _drain(self, remaining_s: float) -> None:
        tasks = {running.task for running in self._running.values() if running.task is not None}
        if not tasks:
            return
        release_s = min(RELEASE_S_MAX, remaining_s * RELEASE_SHARE)
        try:
            await asyncio.wait(tasks, timeout=remaining_s - release_s)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.wait(tasks, timeout=release_s)

    # What people see.

    @property
    def position(self) -> int:
        """The last message that every reaction has looked at."""
        return min((reactor.position for reactor in self._reactors), default=self._executor.position)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def fault(self) -> str | None:
        """What a reaction is held up by; None when all go on."""
        return next((reactor.fault for reactor in self._reactors if reactor.fault is not None), None)

    def resume(self) -> None:
        """A person resumed the worker: a lane that was stopped or paused is open again."""
        self.lane.resume()
        self._wake()

    # Jobs.

    async def _start_jobs(self) -> None:
        self._reap()
        self._choosing = True
        try:
            await self._start_chosen()
        finally:
            self._choosing = False

    async def _start_chosen(self) -> None:
        now_us, instance = self._timing.now_us(), self._process.instance
        choice = await self._executor.query(lambda state: self._choose(state, instance, now_us))
        self._next_due_s = None if choice.next_due_us is None else (choice.next_due_us - now_us) / 1_000_000
        if choice.resumed_at > self._resumed_at:
            self._resumed_at = choice.resumed_at
            self.resume()
        for job in choice.over:
            self._abandon(self._running[job])
        if choice.lost:
            self._process.lost(instance)
        for row in choice.stray:
            assert row.fence is not None
            released = JobReleased(fence=row.fence, reason="its process does not run it", retry_after_s=STRAY_RETRY_S)
            self._spawn(Running(row), self._recorder.finish(released))
        chosen = choice.start[: await self._granted(len(choice.start))]
        try:
            openings = await self._messages.get_each([row.opened_at for row in chosen])
        except JourneymanError as error:
            if not is_trouble(error):
                raise
            self._could_not_read(error, leaves_us=[now_us] * len(chosen))
            return
        for row, opening in zip(chosen, openings, strict=True):
            self._start(Running(row, opening), leave_us=now_us)

    def start_along(self, replica: Replica) -> None:
        """Start jobs that were opened this moment: what is submitted here goes into the append that opens them.

        So they wait for no second one. What needs the store first, or a pause, is left to `work`, and so is what the
        executor does not take now. Whatever it raises else is a defect, for the caller to tell of; the job goes on.
        """
        if self._variables is None or self._performer.draining or self._choosing or self._limiter is not None:
            return
        opened = self._ever_opened(replica.state)
        if opened == self._opened or len(self._running) >= self.worker.concurrency:
            return
        self._opened = opened
        now_us = self._timing.now_us()
        for row in self._choose(replica.state, self._process.instance, now_us).start:
            opening = replica.newest(row.opened_at)
            if opening is None or row.attempts or row.suspect:
                break
            running = Running(row, opening)
            self._start(running, leave_us=now_us)
            try:
                running.start = self._performer.submit_start(row, opening)
            except JourneymanError as error:
                if not (is_trouble(error) or isinstance(error, NotRunning)):
                    raise
                # Its task tries it again, and tells of it if that fails. The others are left to `work`.
                logger.debug("%s %s: not started along: %s", self.name, row.job, error)
                return
            running.start.add_done_callback(_seen)

    def _ever_opened(self, state: AppState) -> int:
        row = jobs_state(state).workers.get(self.name)
        return row.opened if row is not None else 0

    def _could_not_read(self, error: JourneymanError, *, leaves_us: list[int]) -> None:
        """The store is in trouble: what was to be started is tried again after a pause."""
        logger.warning("%s: could not read the messages of jobs to start: %s", self.name, error)
        self._trouble.failed()
        if self._limiter is not None:
            self._unused_us += leaves_us

    async def _granted(self, wanted: int) -> int:
        """How many of so many attempts may begin, by the limit that all processes share."""
        if self._limiter is None:
            return wanted
        unused_us, self._unused_us = self._unused_us, []
        if unused_us:
            await self._limiter.give_back(unused_us)
        return await self._limiter.take(wanted) if wanted else 0

    def _choose(self, state: AppState, instance: str, now_us: int) -> Choice:
        fences = {job: running.fence for job, running in self._running.items()}
        free = self.lane.allows(free=self._free(state, len(fences)), running=len(fences))
        probing = self.lane.state is LaneState.PROBING
        slots = Slots(
            free=free if self._process.ready and self._trouble.waits_s == 0 else 0,
            suspect=self._process.suspect is None and not runs_a_suspect(jobs_state(state), instance),
            unlike=self.lane.last_probe if probing else None,
            pause_max_us=round((self.worker.retry.max_s + PROBE_MAX_S) * 1_000_000),
        )
        return choose(jobs_state(state), self.name, instance, fences, slots=slots, now_us=now_us)

    def _free(self, state: AppState, running: int) -> int:
        """How many attempts may run beside those that do, here and in all processes."""
        free, total = self.worker.concurrency - running, self.worker.concurrency_total
        if total is not None:
            free = min(free, total - jobs_state(state).jobs.count("due", self.name, "running"))
        return max(0, free)

    def _start(self, running: Running, *, leave_us: int) -> None:
        row = running.row
        if row.attempts >= self.worker.retry.attempts:
            # Its last attempt killed its process, so that nobody could give up: a person decides.
            reason = f"no attempts left after {row.attempts}: {row.error or 'no error recorded'}"[:2000]
            self._spawn(running, self._recorder.finish(JobParked(worker=row.worker, job=row.job, reason=reason)))
            return
        if row.suspect:
            self._process.suspect = (row.worker, row.job)
        running.leave_us = leave_us
        self._spawn(running, self._performer.run(running))

    def _spawn(self, running: Running, coroutine: Coroutine[Any, Any, None]) -> None:
        name, variables = f"{self.name} {running.row.job}", self._variables
        task = running.task = asyncio.create_task(coroutine, name=name, context=variables.copy() if variables else None)
        self._running[running.row.job] = running
        task.add_done_callback(lambda task: self._ended(running, task))

    def _abandon(self, running: Running) -> None:
        """Its job was answered, ended or taken over meanwhile: whatever it brings is worth nothing."""
        if not running.over and running.task is not None:
            running.over = True
            running.task.cancel()

    def _reap(self) -> None:
        """Where a process is out of memory, the loop can lose the call that would tell of an end."""
        for running in list(self._running.values()):
            if running.task is not None and running.task.done():
                self._ended(running, running.task)

    def _ended(self, running: Running, task: asyncio.Task[None]) -> None:
        if self._running.get(running.row.job) is not running:
            return
        del self._running[running.row.job]
        if running.leave_us is not None and running.fence is None and self._limiter is not None:
            self._unused_us.append(running.leave_us)
        self._process.ended((running.row.worker, running.row.job))
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, NotRunning):
            logger.error("%s %s: the attempt was left open", self.name, running.row.job, exc_info=error)
        self._wake()

    # Waking.

    def _wake(self) -> None:
        if self._context is not None and not self._performer.draining:
            self._context.wake()

    def _set_alarm(self) -> None:
        """Wake when the next job is due, the lane opens, the store may be better, or a reaction is tried again."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        pauses = [self.lane.waits_s, self._trouble.waits_s, *(reactor.backoff.waits_s for reactor in self._reactors)]
        if self._limiter is not None:
            pauses.append(self._limiter.waits_s)
        waits = [pause for pause in pauses if pause > 0]
        if self._next_due_s is not None:
            waits.append(self._next_due_s)
        if waits:
            self._alarm = asyncio.get_running_loop().call_later(max(0.001, min(waits)), self._wake)


def _seen(told: asyncio.Future[Receipt]) -> None:
    """An attempt that is cancelled before it begins asks nobody what became of its start."""
    if not told.cancelled():
        told.exception()

"""One attempt at a job, from beginning to end.

    job-started is recorded → perform → the answer, with the attempt's fence, is recorded

An outcome, once known, is dispatched again until the log takes or refuses it; `perform` is never repeated because
recording failed.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from time import perf_counter
from typing import Any, Final

from journeyman.errors import Fenced, GiveUp, Invalid, JourneymanError, NotRunning, Rejected, TooLarge
from journeyman.feature import Command
from journeyman.message import Message
from journeyman.receipts import Receipt
from journeyman.retry import describe
from journeyman.telemetry import told
from journeyman.threads import begin_in_thread
from journeyman.timing import Timing
from journeyman.todo.backoff import Backoff
from journeyman.todo.jobs import JobEnded, JobFailed, JobReleased, JobRow, JobStarted
from journeyman.todo.lane import Fault, Lane
from journeyman.todo.process import Process
from journeyman.todo.recorder import Recorder, is_trouble
from journeyman.todo.worker import Attempt, TodoWorker
from journeyman.worker import is_cancelled_or_exiting

logger = logging.getLogger(__name__)

#: What is recorded when an attempt was cut off whose effect must not be repeated.
CUT_OFF: Final = "outcome unknown: the attempt was cut off"

#: How long a cancelled attempt waits to learn whether its start was recorded, in seconds.
START_TOLD_S: Final = 0.5


class Running:
    """An attempt that runs here.

    `opening` is the message that opened its job, None when that is set aside. `start` is its start on the way to the
    log, where it was dispatched before the task began. `fence` is None until the start is recorded; `over` when the
    state has ended it; `leave_us` is when it took leave to begin, None for what needs none.
    """

    __slots__ = ("fence", "leave_us", "opening", "over", "row", "start", "task")

    def __init__(self, row: JobRow, opening: Message[Any] | None = None) -> None:
        self.row = row
        self.opening = opening
        self.start: asyncio.Future[Receipt] | None = None
        self.fence: int | None = None
        self.over = False
        self.leave_us: int | None = None
        self.task: asyncio.Task[None] | None = None


class Performer:
    """Takes jobs of one worker through one attempt each.

    Args:
        trouble: is told how starting goes, so that a store in trouble is not asked again at once.
    """

    def __init__(
        self,
        worker: TodoWorker,
        recorder: Recorder,
        process: Process,
        lane: Lane,
        trouble: Backoff,
        *,
        timing: Timing,
    ) -> None:
        self._worker = worker
        self._meter = recorder.meter
        self._tracing = recorder.tracing
        self._recorder = recorder
        self._process = process
        self._lane = lane
        self._trouble = trouble
        self._timing = timing
        self._is_async = inspect.iscoroutinefunction(worker.perform)
        self._parks = worker.after_crash == "park"
        #: Set while the process stops: nothing more is begun, and threads are not waited for.
        self.draining = False

    async def run(self, running: Running) -> None:
        """One attempt: record it, perform it, record what came of it."""
        attempt = await self._begin(running)
        if attempt is None:
            return
        if self.draining:
            await self._release(attempt, "its process was stopping")
            return
        name, parent = f"attempt {self._worker.name}", attempt.message.meta.traceparent
        with self._tracing.span(name, parent=parent, kind="consumer") as span:
            told(span, job=attempt.id, attempt=attempt.number, position=attempt.message.position)
            await self._run(running, attempt)

    async def _run(self, running: Running, attempt: Attempt[Any]) -> None:
        self._lane.began(attempt.id)
        try:
            answer = await self._perform(attempt)
        except BaseException as error:
            if not is_cancelled_or_exiting(error):
                await self._record_failure(attempt, error)
                return
            if not running.over:
                await self._cut_off(attempt, "its process was stopping")
            raise
        if answer is not None and not isinstance(answer, Command):
            await self._park(attempt, f"perform returned {type(answer).__name__}, which is no command: mend it, retry")
            return
        self._lane.succeeded(attempt.id)
        await self._record_answer(attempt, answer)

    # Beginning.

    def submit_start(self, row: JobRow, message: Message[Any]) -> asyncio.Future[Receipt]:
        """Dispatch that an attempt begins. Raises, or makes the future raise, what App.execute does."""
        started = JobStarted(
            worker=row.worker,
            job=row.job,
            opened_at=row.opened_at,
            attempt=row.attempts + 1,
            instance=self._process.instance,
            park_after_crash=self._parks,
        )
        return self._recorder.submit(started, message)

    async def _begin(self, running: Running) -> Attempt[Any] | None:
        """Record the attempt, before anything is done for it. None when the state did not take it."""
        row, message = running.row, running.opening
        if message is None:  # Just set aside: the job goes with it, once the state is built anew.
            self._trouble.failed()
            return None
        try:
            receipt = await self._start_told(running.start or self.submit_start(row, message), row, message)
        except Rejected:
            return None  # Another process was first, or a person changed something: look again.
        except JourneymanError as error:
            if not is_trouble(error):
                raise
            if self._trouble.waits_s == 0:  # Once for all that fail together.
                logger.warning("%s %s: could not start: %s", row.worker, row.job, error)
            self._trouble.failed()
            return None
        self._trouble.succeeded()
        running.fence = receipt.position
        return _attempt(row, message, fence=receipt.position)

    async def _start_told(self, told: asyncio.Future[Receipt], row: JobRow, message: Message[Any]) -> Receipt:
        try:
            return await asyncio.shield(told)
        except asyncio.CancelledError:
            # It is on its way, and may be recorded: then it is open, and nobody will perform it.
            await asyncio.wait({told}, timeout=START_TOLD_S)
            if told.done() and told.exception() is None:
                await self._release(_attempt(row, message, fence=told.result().position), "its process was stopping")
            raise

    # Performing.

    async def _perform(self, attempt: Attempt[Any]) -> Any:
        limit = asyncio.timeout(self._worker.timeout_s)
        began_s = perf_counter()
        try:
            async with limit:
                if self._is_async:
                    return await self._worker.perform(attempt)  # type: ignore[misc]  # it is `async def`
                limit.reschedule(None)
                answer = await self._perform_in_thread(attempt)
                # A `def` around an `async def`, as decorators make it, returns what is to be awaited.
                limit.reschedule(asyncio.get_running_loop().time() + self._worker.timeout_s)
                return await answer if inspect.isawaitable(answer) else answer
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise _TimedOut(f"perform did not end within {self._worker.timeout_s:g} s") from error
        finally:
            self._meter.attempted(self._worker.name, perf_counter() - began_s)

    async def _perform_in_thread(self, attempt: Attempt[Any]) -> Any:
        """A thread can't be cut off: the slot is held until it returns, and what it returns late is its outcome too."""
        name = f"{self._worker.name} {attempt.id}"
        thread = begin_in_thread(lambda: self._worker.perform(attempt), name=name)
        try:
            await asyncio.wait({thread}, timeout=self._worker.timeout_s)
            if not thread.done():
                logger.warning("%s: perform did not return within %g s; it is waited for", name, self._worker.timeout_s)
                await asyncio.wait({thread})
            return thread.result()
        except asyncio.CancelledError:
            if not self.draining and not thread.done():
                await asyncio.wait({thread})
            raise
        finally:
            if not thread.cancel() and not thread.cancelled():
                thread.exception()  # Nobody else may ask for it.

    # Recording what came of it.

    async def _record_answer(self, attempt: Attempt[Any], answer: Command | None, *, error: str | None = None) -> None:
        """Record the answer; when the log can't take it, what follows from that. Performing again would cost again."""
        if answer is None:
            await self._finish(JobEnded(fence=attempt.fence, reason="done"), attempt)
            return
        try:
            await self._recorder.record(answer, attempt.message, fence=attempt.fence, error=error)
        except Fenced:
            return  # Somebody answered first, or took the job over: this answer is dropped.
        except Rejected as refusal:
            await self._finish(JobEnded(fence=attempt.fence, reason=f"answer refused: {describe(refusal)}"), attempt)
        except (Invalid, TooLarge) as refusal:
            if error is None:
                await self._give_up(attempt, refusal)
            else:
                await self._park(attempt, f"{error}; give_up's answer: {describe(refusal)}")
        except Exception as broken:  # noqa: BLE001  # the application's code: a person mends it and retries the job
            self._raise_if_over(broken)
            await self._park(attempt, f"the answer could not be recorded: {describe(broken)}")

    async def _record_failure(self, attempt: Attempt[Any], error: BaseException) -> None:
        self._tracing.failed(error)
        fault = self._lane.failed(attempt.id, error)
        if isinstance(error, _TimedOut) and self._parks:
            await self._park(attempt, f"{CUT_OFF}: {error}")
        elif fault is Fault.SERVICE:
            # The lane's own pause says when the service is tried again; the job goes on as soon as it may.
            await self._release(attempt, describe(error))
        elif fault is Fault.UNKNOWN:
            await self._release(attempt, describe(error), retry_after_s=self._lane.pause_s(attempt.id))
        elif isinstance(error, GiveUp) or attempt.number >= self._worker.retry.attempts:
            await self._give_up(attempt, error)
        else:
            pause_s = self._worker.retry.pause_s(attempt.number, self._timing.uniform)
            await self._finish(JobFailed(fence=attempt.fence, error=describe(error), retry_after_s=pause_s), attempt)

    async def _give_up(self, attempt: Attempt[Any], error: BaseException) -> None:
        self._lane.forget(attempt.id)
        try:
            answer = self._worker.give_up(attempt, error)
            if answer is not None and not isinstance(answer, Command):
                raise TypeError(f"give_up returned {type(answer).__name__}, which is no command")
        except BaseException as broken:
            if is_cancelled_or_exiting(broken):
                raise
            await self._park(attempt, f"{describe(error)}; then give_up failed: {describe(broken)}")
            return
        if answer is None:
            await self._park(attempt, describe(error))
        else:
            await self._record_answer(attempt, answer, error=describe(error))

    async def _cut_off(self, attempt: Attempt[Any], reason: str) -> None:
        """The attempt is cancelled from here: nobody knows what it has done."""
        await (self._park(attempt, f"{CUT_OFF}: {reason}") if self._parks else self._release(attempt, reason))

    async def _release(self, attempt: Attempt[Any], reason: str, *, retry_after_s: float = 0.0) -> None:
        await self._finish(JobReleased(fence=attempt.fence, reason=reason, retry_after_s=retry_after_s), attempt)

    async def _park(self, attempt: Attempt[Any], reason: str) -> None:
        await self._finish(JobFailed(fence=attempt.fence, error=reason, retry_after_s=None), attempt)

    async def _finish(self, command: Command, attempt: Attempt[Any]) -> None:
        await self._recorder.finish(command, attempt.message)

    def _raise_if_over(self, error: Exception) -> None:
        """When nothing can be recorded any more, the attempt is left open for the next process."""
        if isinstance(error, NotRunning) or is_trouble(error) or self._recorder.is_over:
            raise error


class _TimedOut(TimeoutError):
    """The attempt was cut off after `timeout_s`."""


def _attempt(row: JobRow, message: Message[Any], *, fence: int) -> Attempt[Any]:
    return Attempt(
        id=row.job,
        subject=row.subject,
        number=row.attempts + 1,
        message=message,
        fence=fence,
        key=f"{message.id}:{row.job}",
    )

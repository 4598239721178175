"""Workers: long-running parts that follow the log, ask queries and dispatch commands; and how they are kept running.

The contract is `start`, `work`, `stop`. One task runs one worker: `start` once, then `work` again and again (at once
when the log has grown, and else each second plus up to one second of jitter, as a safety net), and at shutdown `stop`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from journeyman.errors import WorkerFailed
from journeyman.feature import Command, Query
from journeyman.follower import Follower, MessageSource
from journeyman.message import Message
from journeyman.receipts import Receipt
from journeyman.retry import describe, draw_pause_s
from journeyman.store.base import MessageLog
from journeyman.threads import in_thread
from journeyman.timing import Timing

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Application(Protocol):
    """What a worker may do with the application it belongs to."""

    async def execute(
        self,
        command: Command,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        cause: Message[Any] | None = None,
    ) -> Receipt:
        """Dispatch a command; see App.execute."""
        ...

    async def query(self, query: Query[T], *, at_least: int | None = None, timeout_s: float = 5.0) -> T:
        """Ask a query; see App.query."""
        ...

    @property
    def blocking(self) -> BlockingApplication:
        """The same for code that runs in a thread: `def work`, `def perform`."""
        ...


class BlockingApplication(Protocol):
    """The application, for code that runs in a thread of a worker. Each call waits for its result."""

    def execute(
        self,
        command: Command,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        cause: Message[Any] | None = None,
    ) -> Receipt:
        """Dispatch a command; see App.execute."""
        ...

    def query(self, query: Query[T], *, at_least: int | None = None, timeout_s: float = 5.0) -> T:
        """Ask a query; see App.query."""
        ...


class Context:
    """What a worker is given: the application, its log, and when to end.

    `log` is the worker's own, where it was registered with one, else the application's.
    """

    def __init__(self, app: Application, messages: MessageSource, *, wake: Callable[[], None]) -> None:
        self.app = app
        self._messages = messages
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        #: Set when the application begins to stop: `work` should come to its end. Threads may ask `is_set`.
        self.stopping = asyncio.Event()
        self._deadline_s: float | None = None

    @property
    def log(self) -> MessageLog:
        return self._messages.log

    def follow(self, *, after: int = 0) -> Follower:
        """The log's messages, decoded, from a position that the worker keeps."""
        return Follower(self._messages, after=after)

    def wake(self) -> None:
        """Have `work` called again at once. From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return  # The loop is closed: nothing is called any more.

    def wait_for(self, call: Coroutine[Any, Any, T]) -> T:
        """For a worker's thread: run a coroutine, like `follower.read()`, on the loop, and wait for its result."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def stop_within(self, seconds: float) -> None:
        """Begin to stop, with so much time left."""
        self._deadline_s = time.monotonic() + seconds
        self.stopping.set()

    def remaining_s(self) -> float | None:
        """How many seconds are left until the deadline for stopping; None while the application runs."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - time.monotonic())


@runtime_checkable
class Worker(Protocol):
    """The low-level contract. For jobs with retries and one answer each, use TodoWorker, which stands on it.

    Each method may be `async def`, or a plain `def` that blocks: that one runs in a thread. A worker keeps its own
    position in the log and asks only for newer messages.
    """

    name: str

    def start(self, context: Context) -> Any:
        """Initialise: load state, usually by reading the log. Raising fails the application's start."""
        ...

    def work(self) -> Any:
        """Do what there is to do: ask queries, dispatch commands. Raising is recorded, shown, and retried later."""
        ...

    def stop(self, context: Context) -> Any:
        """Clean up, within `context.remaining_s()`. Called once for each worker that was started."""
        ...


class Schedule(msgspec.Struct, frozen=True):
    """When `work` runs, beside at once on growth: every `every_s` plus up to `jitter_s`; after errors, backoff."""

    every_s: float = 1.0
    jitter_s: float = 1.0
    backoff_first_s: float = 0.1
    backoff_max_s: float = 30.0


WorkerState = Literal["new", "starting", "running", "failing", "stopping", "stopped", "failed"]

#: Of the time left for stopping, what is kept for `stop` itself when `work` does not end.
STOP_SHARE: Final = 0.2

#: Past its deadline, how long a worker may take to end once it is cancelled, in seconds; then it is left behind.
GRACE_S: Final = 1.0

#: What is never taken for an error of the worker, wherever everything else that it raises is.
NOT_ITS_ERROR: Final = (KeyboardInterrupt, GeneratorExit)


class Supervisor:
    """Runs one worker: its start, its rounds of work, its stop.

    A worker may tell of a trouble that does not end its round by an attribute `fault`, in words; None when all is well.
    """

    def __init__(
        self, worker: Worker, context: Context, woken: asyncio.Event, *, timing: Timing, schedule: Schedule = Schedule()
    ) -> None:
        self.worker = worker
        #: How many rounds of work began: for people to see that it lives.
        self.rounds = 0
        self._state: WorkerState = "new"
        self._last_error: str | None = None
        self._context = context
        self._woken = woken
        self._timing = timing
        self._schedule = schedule
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._limit = asyncio.timeout(None)

    @property
    def state(self) -> WorkerState:
        return "failing" if self._state == "running" and (self._failures or self._fault) else self._state

    @property
    def last_error(self) -> str | None:
        return self._fault or self._last_error

    @property
    def _fault(self) -> str | None:
        return getattr(self.worker, "fault", None)

    async def start(self) -> None:
        """Start the worker in a task of its own; return when its `start` has.

        Raises:
            WorkerFailed: it raised. Its cause is what it raised.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started), name=f"worker {self.worker.name}")
        await started

    async def stop(self, within_s: float) -> None:
        """Signal the worker to stop, and return when it has, or when the time is over."""
        if self._task is None:
            return
        self._context.stop_within(within_s)
        self._limit_work(within_s * (1 - STOP_SHARE))
        self._woken.set()
        await asyncio.wait({self._task}, timeout=within_s + GRACE_S)
        if not self._task.done():
            self._fail(f"did not stop within {within_s:g} s and was cancelled")
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=GRACE_S)
        if not self._task.done():
            self._fail(f"did not stop within {within_s:g} s and was left behind, for it ignores being cancelled")

    async def _run(self, started: asyncio.Future[None]) -> None:
        self._state = "starting"
        try:
            await self._call(self.worker.start, self._context)
        except BaseException as error:  # it is raised where the application starts
            self._state = "failed"
            self._last_error = describe(error)
            failure = WorkerFailed(f"The worker {self.worker.name} could not start: {self._last_error}")
            failure.__cause__ = error
            if not started.done():
                started.set_exception(failure)
            if is_cancelled_or_exiting(error):
                raise
            return
        self._state = "running"
        if not started.done():
            started.set_result(None)
        try:
            await self._rounds()
        finally:
            await self._stop_worker()

    async def _rounds(self) -> None:
        """Work until the application stops. An error never ends it."""
        schedule = self._schedule
        while not self._context.stopping.is_set():
            self._woken.clear()
            self.rounds += 1
            if await self._round():
                await _wait(self._woken, schedule.every_s + self._timing.uniform(0, schedule.jitter_s))
            else:
                # Growth does not cut this short: a log that grows all the time would make it no pause at all.
                first_s, max_s = schedule.backoff_first_s, schedule.backoff_max_s
                pause_s = draw_pause_s(first_s, 2.0, max_s, self._failures, self._timing.uniform)
                await _wait(self._context.stopping, pause_s)

    async def _round(self) -> bool:
        """One round. False when it failed, or was cut off because the application stops."""
        try:
            async with asyncio.timeout(None) as self._limit:
                await self._call(self.worker.work)
        except BaseException as error:
            if is_cancelled_or_exiting(error):
                raise
            if self._limit.expired():
                self._fail("work did not end in time and was cut off")
            else:
                self._fail(describe(error))
                logger.exception("worker %s: work failed; it is tried again", self.worker.name)
            return False
        self._failures = 0
        return True

    def _limit_work(self, seconds: float) -> None:
        """Let the round under way, if there is one, go on for so long at most."""
        with suppress(RuntimeError):  # None is under way.
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _stop_worker(self) -> None:
        self._state = "stopping"
        limit = asyncio.timeout(self._context.remaining_s())
        try:
            async with limit:
                await self._call(self.worker.stop, self._context)
        except BaseException as error:
            if is_cancelled_or_exiting(error):
                raise
            self._fail("stop did not end in time and was cut off" if limit.expired() else describe(error))
            logger.exception("worker %s: stop failed: %s", self.worker.name, self._last_error)
        self._state = "stopped"

    async def _call(self, method: Callable[..., Any], *arguments: object) -> None:
        """Call a method of the worker: on the loop when it is `async def`, else in a thread."""
        if inspect.iscoroutinefunction(method):
            await method(*arguments)
            return
        result = await in_thread(partial(method, *arguments), name=f"worker {self.worker.name}")
        if inspect.isawaitable(result):  # A `def` around an `async def`, as decorators make it.
            await result

    def _fail(self, error: str) -> None:
        self._failures += 1
        self._last_error = error


def is_cancelled_or_exiting(error: BaseException) -> bool:
    """Whether what a worker's code raised is not its own: this task is being cancelled, or the interpreter ends.

    A CancelledError that nobody asked this task for came out of something that the code awaited, and is an error like
    any other; so is SystemExit, by which a library would end the whole application.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, NOT_ITS_ERROR)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    """Return when the event is set, or after `timeout_s`. Gives way once: a worker may have woken itself."""
    await asyncio.sleep(0)
    if event.is_set():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()

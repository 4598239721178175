"""Workers: long-running parts that follow the log, ask queries and dispatch commands; and how they are kept running.

The contract is `start`, `work`, `stop`. One task runs one worker: `start` once, then `work` again and again (at once
when the log has grown, and else each second plus up to one second of jitter, as a safety net), and at shutdown `stop`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, Protocol, TypeVar, runtime_checkable

import msgspec

from journeyman.errors import NotRunning, WorkerFailed
from journeyman.feature import Command, Query
from journeyman.follower import Follower, MessageSource
from journeyman.message import Message
from journeyman.receipts import Receipt
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
        #: Have `work` called again at once. For threads: loop.call_soon_threadsafe(context.wake).
        self.wake = wake
        #: Set when the application begins to stop: `work` should come to its end.
        self.stopping = asyncio.Event()
        self._deadline: float | None = None

    @property
    def log(self) -> MessageLog:
        return self._messages.log

    def follow(self, *, after: int = 0) -> Follower:
        """The log's messages, decoded, from a position that the worker keeps."""
        return Follower(self._messages, after=after)

    def stop_within(self, seconds: float) -> None:
        """Begin to stop, with so much time left."""
        self._deadline = asyncio.get_running_loop().time() + seconds
        self.stopping.set()

    def remaining_s(self) -> float | None:
        """How many seconds are left until the deadline for stopping; None while the application runs."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())


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


class Supervisor:
    """Runs one worker: its start, its rounds of work, its stop."""

    def __init__(
        self, worker: Worker, context: Context, woken: asyncio.Event, *, timing: Timing, schedule: Schedule = Schedule()
    ) -> None:
        self.worker = worker
        self.state: WorkerState = "new"
        self.last_error: str | None = None
        #: When the last round of work began and how many there were: for people to see that it lives.
        self.rounds = 0
        self._context = context
        self._woken = woken
        self._timing = timing
        self._schedule = schedule
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._limit = asyncio.timeout(None)

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
        await asyncio.wait({self._task}, timeout=within_s + 1.0)
        if not self._task.done():
            self._fail(f"did not stop within {within_s:g} s and was left behind")
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, started: asyncio.Future[None]) -> None:
        self.state = "starting"
        try:
            await self._call(lambda: self.worker.start(self._context), self.worker.start)
        except Exception as error:  # noqa: BLE001  # it is raised where the application starts
            self.state = "failed"
            self.last_error = repr(error)
            failure = WorkerFailed(f"The worker {self.worker.name} could not start: {error}")
            failure.__cause__ = error
            started.set_exception(failure)
            return
        self.state = "running"
        started.set_result(None)
        try:
            await self._rounds()
        finally:
            await self._stop_worker()

    async def _rounds(self) -> None:
        """Work until the application stops. An error never ends it."""
        while not self._context.stopping.is_set():
            self._woken.clear()
            self.rounds += 1
            try:
                if not await self._work():
                    return
            except NotRunning:
                return
            except Exception as error:
                self._fail(repr(error))
                logger.exception("worker %s: work failed; it is tried again", self.worker.name)
                await self._wait(self._backoff_s())
            else:
                self._succeed()
                await self._wait(self._schedule.every_s + self._timing.uniform(0, self._schedule.jitter_s))

    async def _work(self) -> bool:
        """One round. False when it was cut off because the application stops."""
        try:
            async with asyncio.timeout(None) as self._limit:
                await self._call(self.worker.work, self.worker.work)
        except TimeoutError:
            if not self._limit.expired():
                raise
            self._fail("work did not end in time and was cut off")
            return False
        return True

    def _limit_work(self, seconds: float) -> None:
        """Let the round under way, if there is one, go on for so long at most."""
        with suppress(RuntimeError):  # None is under way.
            self._limit.reschedule(asyncio.get_running_loop().time() + seconds)

    async def _stop_worker(self) -> None:
        self.state = "stopping"
        try:
            async with asyncio.timeout(self._context.remaining_s()):
                await self._call(lambda: self.worker.stop(self._context), self.worker.stop)
        except TimeoutError:
            self._fail("stop did not end in time and was cut off")
        except Exception as error:
            self._fail(repr(error))
            logger.exception("worker %s: stop failed", self.worker.name)
        self.state = "stopped"

    async def _call(self, call: Callable[[], Any], declared: Callable[..., Any]) -> None:
        """Call a method of the worker: on the loop when it is `async def`, else in a thread."""
        if inspect.iscoroutinefunction(declared):
            await call()
        else:
            await in_thread(call, name=f"worker {self.worker.name}")

    async def _wait(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), timeout_s)

    def _backoff_s(self) -> float:
        ceiling = min(self._schedule.backoff_max_s, self._schedule.backoff_first_s * 2 ** min(self._failures, 30))
        return self._timing.uniform(ceiling / 2, ceiling)

    def _fail(self, error: str) -> None:
        self._failures += 1
        self.last_error = error
        if self.state == "running":
            self.state = "failing"

    def _succeed(self) -> None:
        self._failures = 0
        if self.state == "failing":
            self.state = "running"

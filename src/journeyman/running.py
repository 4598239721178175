"""A running application: what is started and stopped together, over one store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, get_args

import msgspec

from journeyman.errors import NotReady, WorkerFailed
from journeyman.executor import Executor, Limits
from journeyman.feature import Catalog
from journeyman.follower import MessageSource, decode_record
from journeyman.replica import Replica
from journeyman.store.base import MessageLog, Store
from journeyman.tables import AppState
from journeyman.timing import Timing
from journeyman.todo.jobs import Standing
from journeyman.todo.lane import LaneState
from journeyman.todo.ledger import JobLedger, jobs_state
from journeyman.todo.runner import Process, TodoRunner, release_lost_instances
from journeyman.todo.worker import TodoWorker
from journeyman.worker import Application, Context, Schedule, Supervisor, Worker

logger = logging.getLogger(__name__)

_STANDINGS: Final[tuple[Standing, ...]] = get_args(Standing)


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker is doing.

    `status` is a word: running, failing, paused, stopped …, or "elsewhere" where this process runs no workers. `lag` is
    the head less the worker's position. The counts of jobs are None for a worker without a to-do list.
    """

    name: str
    status: str
    position: int | None
    lag: int | None
    waiting: int | None = None
    running: int | None = None
    retrying: int | None = None
    parked: int | None = None
    last_error: str | None = None


class Registration(msgspec.Struct, frozen=True):
    """A plain worker, its own log or None, and its schedule."""

    worker: Worker
    log: MessageLog | None
    schedule: Schedule


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What an application was put together from."""

    app: Application
    catalog: Catalog
    ledger: JobLedger
    todo_workers: Sequence[TodoWorker]
    registrations: Sequence[Registration]
    timing: Timing
    limits: Limits


class Running:
    """What exists while an application runs."""

    def __init__(self, parts: Parts, store: Store, *, owns_store: bool) -> None:
        self._parts = parts
        self.store = store
        self.loop = asyncio.get_running_loop()
        self.process = Process(parts.timing.new_id())
        self.replica = Replica(store.log, parts.catalog, [parts.ledger])
        self.executor = Executor(
            store.log,
            parts.catalog,
            self.replica,
            timing=parts.timing,
            on_settled=self._wake_workers,
            limits=parts.limits,
        )
        self._owns_store = owns_store
        self._executor_task: asyncio.Task[None] | None = None
        self._runners: dict[str, TodoRunner] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._woken_by_app: list[asyncio.Event] = []
        self._watches: list[asyncio.Task[None]] = []
        self._halt: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.replica.start()
        self._executor_task = asyncio.create_task(self.executor.run(), name="journeyman: executor")
        self._executor_task.add_done_callback(self._executor_ended)

    async def start_workers(self) -> None:
        if not await self.store.claim("workers"):
            raise WorkerFailed(
                "Another process runs the workers of this store already. Stop it, or start this one without workers."
            )
        await release_lost_instances(self.executor, self.process.instance)
        parts = self._parts
        for todo in parts.todo_workers:
            runner = TodoRunner(
                todo, self.executor, parts.catalog, self.replica.messages, self.process, timing=parts.timing
            )
            self._runners[todo.name] = runner
            await self._supervise(runner, None, Schedule())
        for registration in parts.registrations:
            await self._supervise(registration.worker, registration.log, registration.schedule)

    async def _supervise(self, worker: Worker, log: MessageLog | None, schedule: Schedule) -> None:
        woken = asyncio.Event()
        messages = self.replica.messages
        if log is None:
            self._woken_by_app.append(woken)
        else:
            messages = MessageSource(log, partial(decode_record, self._parts.catalog.codec))
            self._watches.append(asyncio.create_task(_watch(log, woken), name=f"watch of {worker.name}"))
        context = Context(self._parts.app, messages, wake=woken.set)
        supervisor = Supervisor(worker, context, woken, timing=self._parts.timing, schedule=schedule)
        self._supervisors[worker.name] = supervisor
        await supervisor.start()

    def _wake_workers(self) -> None:
        for woken in self._woken_by_app:
            woken.set()

    async def wait(self) -> None:
        assert self._executor_task is not None
        await asyncio.shield(self._executor_task)

    def _executor_ended(self, task: asyncio.Task[None]) -> None:
        """Nothing can be recorded any more: no worker may go on."""
        if not task.cancelled() and task.exception() is not None:
            logger.error("the application stops applying: %s", task.exception())
            self._halt = asyncio.create_task(self._stop_workers(drain_s=0.0), name="journeyman: halt")

    async def stop(self, *, drain_s: float) -> None:
        """Each part is stopped, last started first, whatever becomes of the part before it."""
        async with AsyncExitStack() as stack:
            if self._owns_store:
                stack.push_async_callback(self.store.close)
            stack.push_async_callback(self._stop_executor, max(drain_s, 1.0))
            stack.push_async_callback(self._stop_workers, drain_s=drain_s)
            if self._halt is not None:
                await self._halt

    async def _stop_executor(self, drain_s: float) -> None:
        if self._executor_task is None:
            return
        self.executor.stop()
        try:
            await asyncio.wait({self._executor_task}, timeout=drain_s)
        finally:
            self._executor_task.cancel()
            await asyncio.gather(self._executor_task, return_exceptions=True)

    async def _stop_workers(self, *, drain_s: float) -> None:
        await asyncio.gather(*(supervisor.stop(drain_s) for supervisor in self._supervisors.values()))
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def workers(self) -> list[WorkerStatus]:
        head = await self.store.log.head()
        todo = await self.executor.query(
            lambda state: [self._todo_status(state, one, head) for one in self._parts.todo_workers]
        )
        return [*todo, *(self._status(one.worker.name, head) for one in self._parts.registrations)]

    def _todo_status(self, state: AppState, worker: TodoWorker, head: int) -> WorkerStatus:
        table = jobs_state(state)
        row = table.workers.get(worker.name)
        runner = self._runners.get(worker.name)
        base = self._status(worker.name, head)
        position = runner.position if runner is not None else None
        status, error = base.status, base.last_error
        if row is not None and row.paused:
            status = "paused"
        elif runner is not None and status == "running" and runner.lane.state is not LaneState.OPEN:
            status, error = f"lane {runner.lane.state.value}", runner.lane.reason
        counts = {standing: table.jobs.count("due", worker.name, standing) for standing in _STANDINGS}
        return WorkerStatus(
            name=worker.name,
            status=status,
            position=position,
            lag=None if position is None else max(0, head - position),
            waiting=counts["waiting"] + counts["behind"] + counts["delayed"],
            running=counts["running"],
            retrying=counts["retrying"],
            parked=counts["parked"],
            last_error=error,
        )

    def _status(self, name: str, head: int) -> WorkerStatus:
        supervisor = self._supervisors.get(name)
        if supervisor is None:
            return WorkerStatus(name=name, status="elsewhere", position=None, lag=None)
        position = getattr(supervisor.worker, "position", None)
        return WorkerStatus(
            name=name,
            status=supervisor.state,
            position=position,
            lag=None if position is None else max(0, head - position),
            last_error=supervisor.last_error,
        )


async def _watch(log: MessageLog, woken: asyncio.Event) -> None:
    """Wake a worker when its own log grows. Without it, and while that log can't be read, the worker still polls."""
    seen = 0
    while True:
        try:
            await log.wait(seen, 1.0)
            seen, before = await log.head(), seen
        except NotReady:
            await asyncio.sleep(1.0)
            continue
        if seen > before:
            woken.set()

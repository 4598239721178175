"""A running application: what is started and stopped together, over one store."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from functools import cache, partial
from typing import Final

import msgspec

from journeyman.errors import Busy, DefinitionError, NotReady, StoreError, WorkerFailed
from journeyman.executor import Executor, Limits
from journeyman.feature import Catalog
from journeyman.follower import MessageSource, decode_record
from journeyman.heartbeat import Note, WorkerNote, is_dead, notes
from journeyman.membership import Membership
from journeyman.meter import Meter
from journeyman.replica import Replica
from journeyman.snapshots import SnapshotInfo, Snapshots
from journeyman.status import WorkerStatus, combined, standing_by, with_jobs
from journeyman.store.base import MessageLog, Store
from journeyman.telemetry import Tracing
from journeyman.timing import Timing
from journeyman.todo.lane import LaneState
from journeyman.todo.ledger import JobLedger, jobs_state
from journeyman.todo.runner import TodoRunner
from journeyman.todo.worker import TodoWorker
from journeyman.worker import Application, Context, Schedule, Supervisor, Worker

logger = logging.getLogger(__name__)


#: How often a process looks whether a snapshot is due, in seconds.
SNAPSHOT_LOOK_S: Final = 5.0

#: How often a process asks for a worker that runs in another one, in seconds.
STAND_BY_S: Final = 1.0


class Registration(msgspec.Struct, frozen=True):
    """A plain worker, its own log or None, its schedule, and whether each process runs it, or one at a time."""

    worker: Worker
    log: MessageLog | None
    schedule: Schedule
    everywhere: bool


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What an application was put together from."""

    app: Application
    catalog: Catalog
    ledger: JobLedger
    todo_workers: Sequence[TodoWorker]
    registrations: Sequence[Registration]
    timing: Timing
    meter: Meter
    tracing: Tracing
    limits: Limits
    takeover_s: float
    snapshot_every: int | None
    fingerprint: str | None


class Running:
    """What exists while an application runs."""

    def __init__(self, parts: Parts, store: Store, *, owns_store: bool) -> None:
        self._parts = parts
        self.store = store
        self.loop = asyncio.get_running_loop()
        self.replica = Replica(store.log, parts.catalog, [parts.ledger])
        self.executor = Executor(
            store.log,
            parts.catalog,
            self.replica,
            timing=parts.timing,
            on_settled=self._wake_workers,
            on_judged=self._start_along,
            limits=parts.limits,
            meter=parts.meter,
            tracing=parts.tracing,
        )
        self.membership = Membership(
            store, self.executor, timing=parts.timing, note=self._note, takeover_s=parts.takeover_s
        )
        self.snapshots = (
            Snapshots(store, parts.catalog, fingerprint=parts.fingerprint) if parts.fingerprint is not None else None
        )
        self.fingerprint = parts.fingerprint
        self._owns_store = owns_store
        self._started_at_us = parts.timing.now_us()
        self._executor_task: asyncio.Task[None] | None = None
        self._runners: dict[str, TodoRunner] = {}
        self._supervisors: dict[str, Supervisor] = {}
        #: By the worker's name, so that one that is started again replaces what it had.
        self._woken_by_app: dict[str, asyncio.Event] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._standing_by: set[str] = set()
        self._turns: list[asyncio.Task[None]] = []
        self._snapshotting: asyncio.Task[None] | None = None
        self._halt: asyncio.Task[None] | None = None

    async def start(self) -> None:
        every = self._parts.snapshot_every
        await self.replica.start(self.snapshots if every is not None else None)
        if self.snapshots is not None and every is not None:
            self._snapshotting = asyncio.create_task(self._take_snapshots(every), name="journeyman: snapshots")
        self._executor_task = asyncio.create_task(self.executor.run(), name="journeyman: executor")
        self._executor_task.add_done_callback(self._executor_ended)

    async def start_workers(self) -> None:
        parts = self._parts
        await self.membership.start()
        for todo in parts.todo_workers:
            runner = TodoRunner(
                todo,
                self.executor,
                parts.catalog,
                self.replica.messages,
                self.membership.process,
                self.store.keys,
                timing=parts.timing,
            )
            self._runners[todo.name] = runner
            await self._supervise(runner, None, Schedule())
        for registration in parts.registrations:
            name = registration.worker.name
            if registration.everywhere:
                await self._supervise(registration.worker, registration.log, registration.schedule)
                continue
            if await self.membership.claim(_role(name)):
                await self._supervise(registration.worker, registration.log, registration.schedule)
            else:
                self._standing_by.add(name)
            self._turns.append(asyncio.create_task(self._run_in_turn(registration), name=f"{name}: in turn"))
        await self.membership.tell()

    async def _run_in_turn(self, registration: Registration) -> None:
        """Run the worker while this process has its role, and stand by while another has."""
        name = registration.worker.name
        try:
            while True:
                await (self._stand_by(registration) if name in self._standing_by else self._keep_role(name))
                await self.membership.tell()
        except WorkerFailed as error:
            logger.error("%s", error, exc_info=error.__cause__)  # noqa: TRY400  # the cause has the traceback
            await self.membership.release(_role(name))  # Another process may do better.
            await self.membership.tell()

    async def _stand_by(self, registration: Registration) -> None:
        """Start the worker once the process that runs it is gone, or stops."""
        name = registration.worker.name
        while not await self._claim_once(name):  # noqa: ASYNC110  # what ends in another process sets no event here
            await asyncio.sleep(STAND_BY_S)
        await self._supervise(registration.worker, registration.log, registration.schedule)
        self._standing_by.discard(name)

    async def _keep_role(self, name: str) -> None:
        """Stop the worker once another process has its role.

        A store on a server loses a role together with a connection, and whoever was cut off for long finds it taken.
        """
        while await self._still_has(name):  # noqa: ASYNC110  # what others do sets no event here
            await asyncio.sleep(STAND_BY_S)
        logger.warning("%s stops here: another process took it over while this one was cut off from the store", name)
        await self._supervisors[name].stop(0.0)
        if name in self._watches:
            await _cancel([self._watches.pop(name)])
        self._standing_by.add(name)
        del self._supervisors[name]

    async def _still_has(self, name: str) -> bool:
        """Whether another process may not run the worker. While the store is away, nothing could be recorded twice."""
        try:
            return await self.membership.claim(_role(name))
        except StoreError:
            return True

    async def _claim_once(self, name: str) -> bool:
        try:
            return await self.membership.claim(_role(name))
        except StoreError as error:
            logger.warning("%s: not known whether another process runs it: %s", name, error)
            return False

    async def _supervise(self, worker: Worker, log: MessageLog | None, schedule: Schedule) -> None:
        woken = asyncio.Event()
        messages = self.replica.messages
        if log is None:
            self._woken_by_app[worker.name] = woken
        else:
            messages = MessageSource(log, partial(decode_record, self._parts.catalog.codec))
            self._watches[worker.name] = asyncio.create_task(_watch(log, woken), name=f"watch of {worker.name}")
        context = Context(self._parts.app, messages, wake=woken.set)
        supervisor = Supervisor(worker, context, woken, timing=self._parts.timing, schedule=schedule)
        self._supervisors[worker.name] = supervisor
        await supervisor.start()

    def _start_along(self) -> None:
        """Let workers start what a batch opens. What goes wrong is left to their next round of work."""
        for runner in self._runners.values():
            try:
                runner.start_along(self.replica)
            except Exception:
                logger.exception("%s: jobs are not started at once, but in its next round", runner.name)

    def _wake_workers(self) -> None:
        for woken in self._woken_by_app.values():
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
            if self._snapshotting is not None:
                stack.push_async_callback(_cancel, [self._snapshotting])
            stack.push_async_callback(self.membership.stop)
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
        await _cancel(self._turns)
        await asyncio.gather(*(supervisor.stop(drain_s) for supervisor in self._supervisors.values()))
        await _cancel(self._watches.values())

    # Snapshots.

    async def take_snapshot(self) -> SnapshotInfo:
        """Keep the settled state of this moment."""
        if self.snapshots is None:
            raise DefinitionError(
                "The application's source is not to be found: nobody could tell whether a snapshot is its own."
            )
        return await self.snapshots.take(await self.executor.query(lambda _: self.replica.capture()))

    async def _take_snapshots(self, every: int) -> None:
        """Take one whenever so many messages came since the last one of any process. Commands go on meanwhile."""
        assert self.snapshots is not None
        while True:
            await asyncio.sleep(SNAPSHOT_LOOK_S)
            try:
                last = max((info.position for info in await self.snapshots.list() if info.current), default=0)
                if self.executor.position - last >= every:
                    await self.take_snapshot()
            except TypeError as error:
                logger.error("no snapshots are taken: %s", error)  # noqa: TRY400  # its text says which row
                return
            except (StoreError, Busy) as error:
                logger.warning("no snapshot is taken now: %s", error)

    # What people see.

    async def workers(self) -> list[WorkerStatus]:
        head = await self.store.log.head()
        live = [self._note(), *(await self._live_instances()).values()]
        told = [worker for note in live for worker in note.workers]
        todo = [one.name for one in self._parts.todo_workers]
        others = [one.worker.name for one in self._parts.registrations]
        statuses = await self.executor.query(
            lambda state: [with_jobs(combined(name, told, head=head), jobs_state(state)) for name in todo]
        )
        return [*statuses, *(combined(name, told, head=head) for name in others)]

    async def instances(self) -> dict[str, Note]:
        """The notes of all processes that run workers, this one's first, by instance."""
        own = {self.membership.process.instance: self._note()} if self._supervisors else {}
        return own | await self._live_instances()

    async def _live_instances(self) -> dict[str, Note]:
        """The notes of other processes, as far as they live and tell."""
        oldest_us = self._parts.timing.now_us() - self._parts.takeover_s * 1_000_000
        found = await notes(self.store.keys)
        found.pop(self.membership.process.instance, None)
        fresh = {instance: note for instance, note in found.items() if not note.left and note.at_us >= oldest_us}
        return {instance: note for instance, note in fresh.items() if not await is_dead(self.store, instance)}

    def _note(self) -> Note:
        """What this process says of itself. Called by the heartbeat's thread, too: it looks, and changes nothing."""
        return Note(
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at_us=self._started_at_us,
            at_us=self._parts.timing.now_us(),
            version=_version(),
            # Copies, because the loop may add a worker meanwhile.
            workers=(*map(self._here, list(self._supervisors)), *map(standing_by, sorted(self._standing_by))),
        )

    def _here(self, name: str) -> WorkerNote:
        """What a worker does in this process."""
        supervisor, runner = self._supervisors[name], self._runners.get(name)
        status, error = str(supervisor.state), supervisor.last_error
        lane_until_us: int | None = None
        if runner is not None and status == "running" and runner.lane.state is not LaneState.OPEN:
            status, error = f"lane {runner.lane.state.value}", runner.lane.reason
            if waits_s := runner.lane.waits_s:
                lane_until_us = self._parts.timing.now_us() + round(waits_s * 1_000_000)
        position = runner.position if runner is not None else getattr(supervisor.worker, "position", None)
        return WorkerNote(name=name, status=status, position=position, last_error=error, lane_until_us=lane_until_us)


@cache
def _version() -> str:
    """The version of Journeyman; empty where it runs from its source, without being installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("journeyman")
    except PackageNotFoundError:
        return ""


def _role(worker: str) -> str:
    """The role of the process that runs a plain worker."""
    return f"worker/{worker}"


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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

"""The application: features and workers put together over one store."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from journeyman.errors import DefinitionError, NotRunning, Rejected
from journeyman.executor import Limits
from journeyman.feature import Catalog, Command, Feature, Query
from journeyman.fingerprint import fingerprint
from journeyman.follower import MessageSource
from journeyman.heartbeat import Note
from journeyman.membership import TAKEOVER_S
from journeyman.message import INTERNAL_PREFIX, NO_META, Message, Meta
from journeyman.meter import Meter
from journeyman.pending import Envelope
from journeyman.receipts import Receipt, receipts
from journeyman.running import Parts, Registration, Running
from journeyman.set_aside import set_asides
from journeyman.snapshots import SnapshotInfo, Snapshots
from journeyman.status import WorkerStatus
from journeyman.store.base import MessageLog, Store
from journeyman.store.open import open_store
from journeyman.tables import AppState
from journeyman.telemetry import Tracing, told
from journeyman.timing import SYSTEM_TIMING, Timing
from journeyman.todo.jobs import OPERATOR_COMMANDS, jobs
from journeyman.todo.ledger import JobLedger
from journeyman.todo.short_form import worker_of
from journeyman.todo.worker import TodoWorker
from journeyman.worker import Schedule, Worker

T = TypeVar("T")

#: Where an application keeps its store when nobody says otherwise.
STORE_DEFAULT: Final = "sqlite:///journeyman.db"

#: After how many messages a snapshot is taken.
SNAPSHOT_EVERY: Final = 100_000

#: How long workers may take to end when the application stops, in seconds.
DRAIN_S: Final = 30.0


class App:
    """An application.

    Args:
        features: its features.
        workers: its workers: to-do workers, and objects with `start`, `work` and `stop`.
        pages: its pages on the web, each as "module:attribute": what makes their routes. Named, and not imported here,
            so that only what serves loads a web framework. See docs/pages.md.
        store: the URL of its store, where neither the environment (JOURNEYMAN_STORE) nor `running` names one.
        limits: how long the executor tries.
        takeover_s: how long a process that runs workers may be silent, in seconds, before the others take its jobs
            over. One that died is noticed much sooner; this is for one that hangs.
        snapshot_every: after how many messages the state is kept beside the log, so that a start need not apply
            everything again; None for never. Snapshots of other code are not taken.
        code_version: say here which version the code has that is called by `apply` and is in none of the packages that
            the features and workers are in; snapshots can't tell otherwise that it has changed.
        timing: where time, chance and ids come from.

    Raises:
        DefinitionError: names collide, or something can't work as declared.
    """

    def __init__(
        self,
        *,
        features: Iterable[Feature[Any]],
        workers: Iterable[TodoWorker | Worker] = (),
        pages: Iterable[str] = (),
        store: str | None = None,
        limits: Limits = Limits(),
        takeover_s: float = TAKEOVER_S,
        snapshot_every: int | None = SNAPSHOT_EVERY,
        code_version: str = "",
        timing: Timing = SYSTEM_TIMING,
    ) -> None:
        if snapshot_every is not None and snapshot_every < 1:
            raise DefinitionError(f"snapshot_every is {snapshot_every}; it must be at least 1, or None for never.")
        if not 0 < takeover_s < math.inf:
            raise DefinitionError(f"takeover_s is {takeover_s}; it must be above 0.")
        if isinstance(pages, str):
            raise DefinitionError(f"pages is {pages!r}; it must be a list of such names.")
        features = list(features)
        self.pages = tuple(pages)
        self.catalog = Catalog([receipts, set_asides, jobs, *features])
        self._internal = frozenset(
            command.message_type.body
            for name, command in self.catalog.commands.items()
            if name.startswith(INTERNAL_PREFIX) and command.message_type.body not in OPERATOR_COMMANDS
        )
        self.todo_workers: list[TodoWorker] = [worker_of(job) for feature in features for job in feature.jobs]
        self._registrations: list[Registration] = []
        self._store_default = store
        self._limits = limits
        self._takeover_s = takeover_s
        self._snapshot_every = snapshot_every
        self._code_version = code_version
        self._timing = timing
        #: What this process counts, for monitors; and whom it tells of its spans.
        self.meter = Meter()
        self.tracing = Tracing()
        self._starting = False
        self._running: Running | None = None
        #: What is ended at a stop: a dict for its order, and so that each is in it once.
        self._beside: dict[Callable[[], Awaitable[None]], None] = {}
        for worker in workers:
            self.register(worker)
        self._ledger = JobLedger(self.todo_workers)

    def register(
        self,
        worker: TodoWorker | Worker,
        *,
        log: MessageLog | None = None,
        schedule: Schedule = Schedule(),
        everywhere: bool = False,
    ) -> None:
        """Add a worker, before the application is started.

        Args:
            log: the worker's own message log; the application's when None. A to-do worker follows the application's.
            schedule: how often `work` is called when nothing wakes it.
            everywhere: whether every process that runs workers runs this one. Else one of them does, and another takes
                over when that one ends. To-do workers run everywhere: their jobs are shared.

        Raises:
            DefinitionError: the name is taken, it is no worker, or the application runs.
        """
        if self._starting or self._running is not None:
            raise DefinitionError("Register workers before the application is started.")
        taken = [*(todo.name for todo in self.todo_workers), *(one.worker.name for one in self._registrations)]
        if getattr(worker, "name", None) in taken:
            raise DefinitionError(f"Two workers are named {worker.name}: give one another name.")
        if isinstance(worker, TodoWorker):
            if log is not None:
                raise DefinitionError(
                    f"{worker.name}: a to-do worker's list is state, so it follows the app's log only."
                )
            ledger = JobLedger([*self.todo_workers, worker])
            self._check_declared(worker)
            self.todo_workers.append(worker)
            self._ledger = ledger
            return
        if not isinstance(worker, Worker):
            raise DefinitionError(f"{worker!r} is no worker: it needs a name, and start, work and stop.")
        self._registrations.append(Registration(worker, log, schedule, everywhere))

    def _check_declared(self, worker: TodoWorker) -> None:
        """Every command class that a to-do worker names belongs to a feature of this application."""
        for reaction in worker.reactions:
            self.catalog.name_of(reaction.on)
        for _, commands in (*worker.openers, *worker.enders):
            for command in commands:
                self.catalog.name_of(command)

    # Running.

    @asynccontextmanager
    async def running(
        self, store: str | Store | None = None, *, workers: bool = True, drain_s: float = DRAIN_S
    ) -> AsyncIterator[App]:
        """Start, and stop at the end of the block.

        Args:
            store: a URL, or a store that is open already and stays so; see `store_url` for None.
            workers: whether this process runs the workers.
            drain_s: how long running attempts may take to end when the block is left.
        """
        await self.start(store, workers=workers)
        try:
            yield self
        finally:
            await self.stop(drain_s=drain_s)

    async def start(self, store: str | Store | None = None, *, workers: bool = True) -> None:
        """Open the store, apply the whole log, then start the workers.

        Raises:
            StoreError: the store can't be opened.
            Poisoned: a message can't be applied; says what to do.
            WorkerFailed: a worker could not start. Everything is stopped again.
            DefinitionError: it is started already.
        """
        if self._starting or self._running is not None:
            raise DefinitionError("The application is started already.")
        self._starting = True
        try:
            self.tracing.begin()
            running = await self._open(store)
            try:
                await running.start()
                self._running = running
                if workers and (self.todo_workers or self._registrations):
                    await running.start_workers()
            except BaseException:
                await running.stop(drain_s=1.0)
                self._running = None
                raise
        finally:
            self._starting = False

    async def _open(self, store: str | Store | None) -> Running:
        if store is not None and not isinstance(store, str):
            return Running(self._parts(), store, owns_store=False)
        opened = await open_store(self.store_url(store))
        try:
            return Running(self._parts(), opened, owns_store=True)
        except BaseException:  # Nothing else knows of the store yet: a state that can't be made, say.
            await opened.close()
            raise

    async def stop(self, *, drain_s: float = DRAIN_S) -> None:
        """Stop the workers, then the executor, then close the store. Harmless when stopped already."""
        running = self._running
        if running is None:
            return
        try:
            for end in list(self._beside):  # A copy, because what has ended may take itself out.
                await end()
        finally:
            try:
                await running.stop(drain_s=drain_s)
            finally:
                self._running = None

    def at_stop(self, end: Callable[[], Awaitable[None]]) -> None:
        """Have something ended, at each stop, that goes on beside the application and reads its store.

        Asked again for the same, it is ended once. Whatever has ended by itself is to leave: see `not_at_stop`.
        """
        self._beside[end] = None

    def not_at_stop(self, end: Callable[[], Awaitable[None]]) -> None:
        """Forget what has ended by itself. Harmless when it is not there."""
        self._beside.pop(end, None)

    async def wait(self) -> None:
        """Return when the application can't go on; until then, wait.

        Raises:
            Poisoned, Outdated, WrongLog: why it can't.
        """
        await self._now_running().wait()

    def run(self, store: str | None = None, *, workers: bool = True, drain_s: float = DRAIN_S) -> None:
        """Run until SIGTERM or SIGINT, then stop cleanly. For a process that does nothing else.

        Raises:
            JourneymanError: it could not start, or could not go on.
        """
        asyncio.run(self._run(store, workers=workers, drain_s=drain_s))

    async def _run(self, store: str | None, *, workers: bool, drain_s: float) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        async with self.running(store, workers=workers, drain_s=drain_s):
            tasks = [asyncio.ensure_future(stopped.wait()), asyncio.ensure_future(self.wait())]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            for task in done:
                task.result()

    def store_url(self, url: str | Store | None = None) -> str:
        """The URL of the store: the one given, else JOURNEYMAN_STORE, else the application's own, else the default."""
        if isinstance(url, str):
            return url
        return os.environ.get("JOURNEYMAN_STORE") or self._store_default or STORE_DEFAULT

    # Commands and queries.

    async def execute(
        self,
        command: Command,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        cause: Message[Any] | None = None,
    ) -> Receipt:
        """Record a command. When this returns, it is on stable storage, and queries of this process see it.

        Args:
            actor: who sends it; recorded.
            idempotency_key: the same key and command give the same receipt, and are recorded once.
            cause: the message that this command follows from; recorded as its causation and correlation.

        Raises:
            UnknownName, Invalid, TooLarge: it can't be recorded as it is.
            Rejected: the state does not allow it, or only the framework records it; the text is for the user.
            ApplyFailed: the application's own code broke on it.
            Busy, NotRunning, NotReady: it was not recorded; try again later.
            OutcomeUnknown: it may have been recorded; execute it again with the same idempotency key.
        """
        if type(command) in self._internal:
            raise Rejected(f"{self.catalog.name_of(type(command))} is a fact that only the framework records.")
        executor, before = self._now_running().executor, cause.meta if cause is not None else None
        if not self.tracing.collects:
            traceparent = self.tracing.here(before)
            return await executor.submit(command, _envelope(actor, idempotency_key, cause, traceparent))
        name = f"execute {self.catalog.known_name_of(type(command))}"
        with self.tracing.span(name, parent=self.tracing.here(before)) as span:
            receipt = await executor.submit(command, _envelope(actor, idempotency_key, cause, self.tracing.here()))
            told(span, position=receipt.position)
            return receipt

    async def query(self, query: Query[T], *, at_least: int | None = None, timeout_s: float = 5.0) -> T:
        """The answer from the settled state: never from a command that is not durable.

        Args:
            at_least: wait until this process has applied that position: to read what another process wrote.
            timeout_s: how long to wait for it.

        Raises:
            UnknownName: the query belongs to no feature of the application.
            NotFound: what it asks about is not there.
            Busy: the position was not reached in time.
        """
        executor = self._now_running().executor
        feature = self.catalog.query_of(query).feature
        if at_least is not None:
            await self.reach(at_least, timeout_s=timeout_s)
        return await executor.query(lambda state: query.run(state.features[feature]))

    async def reach(self, position: int, *, timeout_s: float = 5.0) -> None:
        """Wait until queries of this process see a position: to read what another process wrote.

        Raises:
            Busy: it was not reached in time.
        """
        await self._now_running().executor.reach(position, timeout_s)

    @property
    def blocking(self) -> Blocking:
        """`execute` and `query` for code that runs in a thread of a worker."""
        return Blocking(self, self._now_running().loop)

    # Looking.

    @property
    def instance(self) -> str:
        """The id of this running process: another one at each start, and after it was taken for gone."""
        return self._now_running().membership.process.instance

    @property
    def store(self) -> Store:
        """The open store."""
        return self._now_running().store

    @property
    def messages(self) -> MessageSource:
        """The log's messages, decoded, by position."""
        return self._now_running().replica.messages

    @property
    def position(self) -> int:
        """The last position that queries see."""
        return self._now_running().executor.position

    @property
    def stalled_s(self) -> float | None:
        """For how long the store has not answered, in seconds: queries are as of before. None when all is well."""
        running = self._now_running()
        since = running.executor.stalled_since
        return None if since is None else running.loop.time() - since

    async def state_hash(self) -> str:
        """A digest of the settled state, equal in every process that has applied the same messages."""
        return await self.state(lambda state: state.hash())

    async def state(self, look: Callable[[AppState], T]) -> T:
        """What `look` finds in the settled state of all features. It must not keep or change what it sees."""
        return await self._now_running().executor.query(look)

    async def take_snapshot(self) -> SnapshotInfo:
        """Keep the state of this moment beside the log: a later start of the same code begins there.

        Raises:
            DefinitionError: the application's source is not to be found, so that nobody could tell when it changes.
            TypeError: a table has rows that do not come back as they are.
            NotReady: the store can't keep it now.
        """
        return await self._now_running().take_snapshot()

    @property
    def snapshots(self) -> Snapshots | None:
        """The snapshots beside the log; None where there can't be any."""
        return self._now_running().snapshots

    @property
    def fingerprint(self) -> str | None:
        """A digest of the code that builds the state; None where its source is not to be found."""
        return self._now_running().fingerprint

    async def workers(self) -> list[WorkerStatus]:
        """What each worker is doing, in the order of registration, to-do workers first."""
        return await self._now_running().workers()

    async def instances(self) -> dict[str, Note]:
        """What each process that runs workers last said of itself, by instance id."""
        return await self._now_running().instances()

    def _parts(self) -> Parts:
        return Parts(
            app=self,
            catalog=self.catalog,
            ledger=self._ledger,
            todo_workers=self.todo_workers,
            registrations=self._registrations,
            timing=self._timing,
            meter=self.meter,
            tracing=self.tracing,
            limits=self._limits,
            takeover_s=self._takeover_s,
            snapshot_every=self._snapshot_every,
            fingerprint=fingerprint(
                self.catalog, [type(worker) for worker in self.todo_workers], code_version=self._code_version
            ),
        )

    def _now_running(self) -> Running:
        if self._running is None:
            raise NotRunning("The application is not started. Use it inside `async with app.running():`.")
        return self._running


def _envelope(
    actor: str | None, idempotency_key: str | None, cause: Message[Any] | None, traceparent: str | None
) -> Envelope:
    return Envelope(
        actor=actor,
        idempotency_key=idempotency_key,
        correlation_id=cause.correlation_id if cause is not None else None,
        causation_id=cause.id if cause is not None else None,
        meta=NO_META if traceparent is None else Meta(traceparent=traceparent),
    )


class Blocking:
    """An application for code in a thread: each call waits for its result. Never call it on the event loop."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def execute(
        self,
        command: Command,
        *,
        actor: str | None = None,
        idempotency_key: str | None = None,
        cause: Message[Any] | None = None,
    ) -> Receipt:
        """See App.execute."""
        return self._wait(self._app.execute(command, actor=actor, idempotency_key=idempotency_key, cause=cause))

    def query(self, query: Query[T], *, at_least: int | None = None, timeout_s: float = 5.0) -> T:
        """See App.query."""
        return self._wait(self._app.query(query, at_least=at_least, timeout_s=timeout_s))

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

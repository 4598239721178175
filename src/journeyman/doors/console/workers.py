"""The workers: what each does, in which processes, under which limits; and what one decides for it."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from journeyman.app import App
from journeyman.doors.console.bulk import Account, Decision, broken_off, decide, decide_all
from journeyman.doors.console.console import PATH, Console, actor_of, deciding
from journeyman.doors.console.index.reader import JobEvent, TooSlow
from journeyman.doors.console.index.threads import NotIndexed
from journeyman.doors.web.answers import Page, SeeOther
from journeyman.doors.web.forms import Form
from journeyman.doors.web.headers import POSITION_MAX
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.doors.web.submitting import submit
from journeyman.errors import UnknownName
from journeyman.feature import Command
from journeyman.heartbeat import WorkerNote
from journeyman.status import WorkerStatus
from journeyman.store.base import KeyValue
from journeyman.tables import AppState
from journeyman.todo.jobs import JobRow, PauseWorker, ResumeWorker, Standing, WorkerRow
from journeyman.todo.ledger import jobs_state
from journeyman.todo.limiter import Limiter
from journeyman.todo.overview import STANDINGS
from journeyman.todo.worker import TodoWorker

#: How many jobs a page shows.
PAGE_JOBS: Final = 50

#: Standings that a person may decide about many jobs of.
DECIDABLE: Final[tuple[Standing, ...]] = ("parked", "retrying", "waiting", "delayed", "behind")

Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]


class WorkerQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which worker, and which of its jobs: those that stand so, or those that are over, below a position."""

    name: str
    standing: Standing | None = None
    over: bool = False
    offset: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    before: Position | None = None
    account: str | None = None
    at: Position | None = None


class Decided(msgspec.Struct, frozen=True):
    """What a form of a worker's page decides. `everything` stands for all jobs of the standing."""

    name: str
    decision: Decision
    standing: Standing
    job: tuple[str, ...] = ()
    everything: bool = False
    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Named(msgspec.Struct, frozen=True):
    """The worker that a form is about."""

    name: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds a to-do worker, and what it follows."""

    about: str
    reacts: list[str]
    opens: list[str]
    ends: list[str]
    concurrency: int
    concurrency_total: int | None
    requests_per_minute: int | None
    limiter_waits_s: float | None
    timeout_s: float
    attempts: int
    after_crash: str


class Told(msgspec.Struct, frozen=True):
    """What one process says of the worker."""

    instance: str
    host: str
    pid: int
    note: WorkerNote


class Jobs(msgspec.Struct, frozen=True):
    """The counts by standing, some jobs, and what the worker has done since the log began."""

    counts: dict[str, int]
    rows: list[JobRow]
    totals: WorkerRow


def workers_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The list of workers, each one's page, and its decisions."""
    reader = QueryStringReader(WorkerQuery)

    @get("/workers")
    async def list_workers(request: Request[Any, Any, Any]) -> Page:
        return await console.page(request, "workers.html", shown={"workers": await console.app.workers()})

    @get("/worker")
    async def one_worker(request: Request[Any, Any, Any]) -> Page:
        wanted = reader.read(request.scope["query_string"])
        await console.see(wanted.at)
        return await _worker_page(console, request, wanted)

    @post("/worker/pause")
    async def pause(request: Request[Any, Any, Any]) -> SeeOther:
        return await _switch(console, request, PauseWorker)

    @post("/worker/resume")
    async def resume(request: Request[Any, Any, Any]) -> SeeOther:
        return await _switch(console, request, ResumeWorker)

    @post("/worker/decide")
    async def decide_jobs(request: Request[Any, Any, Any]) -> SeeOther:
        form = await console.form_of_operator(request)
        with deciding():
            decided = form.read(Decided)
        account = await _decide(console, request, decided)
        if account.trouble is not None:
            raise broken_off(account, account.trouble)
        values = {"name": decided.name, "standing": decided.standing, "account": console.keep_account(account)}
        return SeeOther(f"{PATH}/worker", at=account.position, **values)

    return [list_workers, one_worker, pause, resume, decide_jobs]


async def _switch(
    console: Console, request: Request[Any, Any, Any], kind: type[PauseWorker] | type[ResumeWorker]
) -> SeeOther:
    form = await console.form_of_operator(request)
    with deciding():
        command: Command = kind(worker=form.read(Named).name)
        receipt = await submit(console.app, request, form, command)
    return SeeOther(f"{PATH}/worker", at=receipt.position, name=form.text("name"))


async def _decide(console: Console, request: Request[Any, Any, Any], decided: Decided) -> Account:
    reason, actor = decided.reason or "decided in the console", actor_of(request)
    if decided.everything:
        return await decide_all(
            console.app, decided.decision, decided.name, decided.standing, reason=reason, actor=actor
        )
    return await decide(console.app, decided.decision, decided.name, decided.job, reason=reason, actor=actor)


async def _worker_page(console: Console, request: Request[Any, Any, Any], wanted: WorkerQuery) -> Page:
    app = console.app
    status = await _status(app, wanted.name)
    todo = next((worker for worker in app.todo_workers if worker.name == wanted.name), None)
    told = [
        Told(instance, note.host, note.pid, worker)
        for instance, note in (await app.instances()).items()
        for worker in note.workers
        if worker.name == wanted.name
    ]
    values: dict[str, Any] = {"worker": status, "told": told, "todo": todo, "wanted": wanted, "form": Form()}
    if todo is not None:
        values |= await _todo_values(console, todo, wanted)
    return await console.page(request, "worker.html", **values)


async def _todo_values(console: Console, worker: TodoWorker, wanted: WorkerQuery) -> dict[str, Any]:
    jobs = await console.app.state(lambda state: _jobs(state, wanted))
    standing = wanted.standing or next((one for one in STANDINGS if jobs.counts[one]), STANDINGS[0])
    if wanted.standing is None and not wanted.over:
        shown = msgspec.structs.replace(wanted, standing=standing)
        jobs = await console.app.state(lambda state: _jobs(state, shown))
    return {
        "limits": await _limits(console, worker),
        "jobs": jobs,
        "standing": None if wanted.over else standing,
        "standings": STANDINGS,
        "decidable": DECIDABLE,
        "page_jobs": PAGE_JOBS,
        "account": console.accounts.get(wanted.account or ""),
        "over": await _over(console, wanted) if wanted.over else [],
    }


def _jobs(state: AppState, wanted: WorkerQuery) -> Jobs:
    """By the index that sorts the jobs: a page of a long list costs no more than one of a short list."""
    found = jobs_state(state)
    counts: dict[str, int] = {one: found.jobs.count("due", wanted.name, one) for one in STANDINGS}
    rows: list[JobRow] = []
    if wanted.standing is not None:
        rows = found.jobs.find("due", wanted.name, wanted.standing, offset=wanted.offset, limit=PAGE_JOBS)
    return Jobs(counts, rows, found.workers.get(wanted.name) or WorkerRow(worker=wanted.name))


async def _over(console: Console, wanted: WorkerQuery) -> list[JobEvent]:
    """The jobs that ended last; none without an index."""
    before = wanted.before or POSITION_MAX
    await console.index.gather()
    try:
        return await console.index.ask(lambda index: index.over(wanted.name, before=before, limit=PAGE_JOBS))
    except (NotIndexed, TooSlow):
        return []


async def _status(app: App, name: str) -> WorkerStatus:
    workers = await app.workers()
    for worker in workers:
        if worker.name == name:
            return worker
    raise UnknownName("worker", name, [worker.name for worker in workers])


async def _limits(console: Console, worker: TodoWorker) -> Limits:
    def names(marks: tuple[tuple[str, tuple[Any, ...]], ...]) -> list[str]:
        return [console.app.catalog.name_of(command) for _, commands in marks for command in commands]

    return Limits(
        about=inspect.cleandoc(type(worker).__dict__.get("__doc__") or "").partition("\n")[0],
        reacts=[console.app.catalog.name_of(reaction.on) for reaction in worker.reactions],
        opens=names(worker.openers),
        ends=names(worker.enders),
        concurrency=worker.concurrency,
        concurrency_total=worker.concurrency_total,
        requests_per_minute=worker.requests_per_minute,
        limiter_waits_s=await _limiter_waits_s(console, worker, console.app.store.keys),
        timeout_s=worker.timeout_s,
        attempts=worker.retry.attempts,
        after_crash=worker.after_crash,
    )


async def _limiter_waits_s(console: Console, worker: TodoWorker, keys: KeyValue) -> float | None:
    """How long until the next attempt may begin, by the limit that all processes share. Looking takes nothing of it."""
    if worker.requests_per_minute is None:
        return None
    limiter = Limiter(keys, worker.name, worker.requests_per_minute, now_us=lambda: console.now_us)
    await limiter.take(0)
    return limiter.waits_s

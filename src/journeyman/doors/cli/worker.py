"""`journeyman worker …`: what the workers do, and the decisions that are a person's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from journeyman.app import App
from journeyman.doors.cli.opening import operator, with_app
from journeyman.doors.cli.output import console, print_json, table
from journeyman.errors import UnknownName
from journeyman.feature import Command
from journeyman.heartbeat import Note
from journeyman.message import Message, Record
from journeyman.status import WorkerStatus
from journeyman.tables import AppState
from journeyman.todo.jobs import DiscardJob, JobRow, PauseWorker, ResumeWorker, RetryJob
from journeyman.todo.ledger import jobs_state
from journeyman.todo.overview import first_jobs, last_error

if TYPE_CHECKING:
    from rich.table import Table

#: The most jobs that one call shows.
JOBS_MAX: Final = 1000

cli = typer.Typer(help="See what the workers do, and decide for them.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(help="The worker's name: feature/words. `worker list` lists them.")]
JobKey = Annotated[str, typer.Argument(help="The job. `worker list NAME` lists them.")]


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, and, when it was asked for by name, the first of its open jobs."""

    name: str
    status: str
    processes: int
    waiting: int | None
    running: int | None
    retrying: int | None
    parked: int | None
    last_error: str | None
    jobs: list[JobRow] | None = None


@cli.callback()
def worker() -> None:
    """See what the workers do, and decide for them."""


@cli.command("list")
def list_workers(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One worker, with its open jobs.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=JOBS_MAX, help="How many open jobs to show, parked ones first.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what every worker does, in all processes together, with its jobs in numbers; or one worker and its jobs."""

    async def look(app: App) -> tuple[list[WorkerView], dict[str, Note]]:
        return await _views(app, name, limit), await app.instances()

    views, instances = with_app(context, look, reads=True)
    if json:
        print_json(views if name is None else views[0])
        return
    out = console()
    columns = ("worker", "status", "processes", "waiting", "running", "retrying", "parked", "last error")
    rows = [msgspec.structs.astuple(view)[: len(columns)] for view in views]
    out.print(table(columns, rows) if rows else "The application has no workers.")
    if rows:
        out.print(_processes(instances))
    for view in views:
        if view.jobs is not None:
            out.print()
            out.print(_jobs_table(view, view.jobs) if view.jobs else "No open jobs.")


@cli.command("pause")
def pause(context: typer.Context, name: Name) -> None:
    """Let a worker begin no new jobs. Running ones end; what it is asked for meanwhile waits."""
    _decide(context, name, PauseWorker(worker=name), f"{name} is paused")


@cli.command("resume")
def resume(context: typer.Context, name: Name) -> None:
    """Let a paused worker go on."""
    _decide(context, name, ResumeWorker(worker=name), f"{name} goes on")


@cli.command("retry")
def retry(context: typer.Context, name: Name, job: JobKey) -> None:
    """Let a parked or waiting job be tried at once, with all its attempts."""
    _decide(context, name, RetryJob(worker=name, job=job), f"{job} is tried again")


@cli.command("discard")
def discard(
    context: typer.Context,
    name: Name,
    job: JobKey,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
) -> None:
    """End a job without an answer."""
    _decide(context, name, DiscardJob(worker=name, job=job, reason=reason), f"{job} is discarded")


def _decide(context: typer.Context, name: str, command: Command, said: str) -> None:
    async def run(app: App) -> int:
        _check_known(name, [worker.name for worker in app.todo_workers])
        return (await app.execute(command, actor=operator())).position

    position = with_app(context, run, reads=True)
    print(f"{said}; the decision is at position {position}.")


async def _views(app: App, name: str | None, limit: int) -> list[WorkerView]:
    statuses = await app.workers()
    if name is not None:
        _check_known(name, [status.name for status in statuses])
        statuses = [status for status in statuses if status.name == name]

    def look(state: AppState) -> list[WorkerView]:
        return [_view(status, state, limit if name is not None else None) for status in statuses]

    return await app.state(look)


def _check_known(name: str, known: list[str]) -> None:
    if name not in known:
        raise UnknownName("worker", name, known)


def _view(status: WorkerStatus, state: AppState, limit: int | None) -> WorkerView:
    jobs = jobs_state(state)
    return WorkerView(
        name=status.name,
        status=status.status,
        processes=status.processes,
        waiting=status.waiting,
        running=status.running,
        retrying=status.retrying,
        parked=status.parked,
        last_error=status.last_error or last_error(jobs, status.name),
        jobs=None if limit is None or status.waiting is None else first_jobs(jobs, status.name, limit=limit),
    )


def _processes(instances: Mapping[str, Note]) -> str:
    """Which processes run the workers, in words."""
    each = [f"{note.pid} on {note.host}, since {_when(note.started_at_us)}" for note in instances.values()]
    return f"Processes: {'; '.join(each)}." if each else "No process runs the workers: start journeyman work."


def _jobs_table(view: WorkerView, jobs: list[JobRow]) -> Table:
    counts = (view.waiting, view.running, view.retrying, view.parked)
    total = sum(count or 0 for count in counts)
    rows = [
        (row.job, row.subject, row.standing, row.attempts, row.opened_at, _when(row.due_at_us), row.error)
        for row in jobs
    ]
    columns = ("job", "subject", "standing", "attempts", "opened at", "due", "error")
    return table(columns, rows, title=f"{len(rows)} of {total} open jobs")


def _when(at_us: int) -> str:
    record = Record(0, "", "", 1, None, b"", at_us, "")
    return Message(record, None).recorded_at.strftime("%Y-%m-%d %H:%M:%SZ")

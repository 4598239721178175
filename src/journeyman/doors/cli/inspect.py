"""`journeyman inspect`: what an application can be asked, and who works in it."""

from __future__ import annotations

import inspect as python_inspect
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from journeyman.app import App
from journeyman.doors.cli.execute import operator_commands
from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.output import as_json, console, print_json, safe, table
from journeyman.doors.cli.settings import without_password
from journeyman.errors import UnknownName
from journeyman.feature import CommandType, QueryType
from journeyman.message import INTERNAL_PREFIX
from journeyman.todo.worker import TodoWorker

if TYPE_CHECKING:
    from rich.console import Console


class CommandView(msgspec.Struct, frozen=True, kw_only=True):
    """A command, with the JSON Schema of its body."""

    name: str
    version: int
    subject: str | None
    about: str
    schema: dict[str, Any]


class QueryView(msgspec.Struct, frozen=True, kw_only=True):
    """A query, with the JSON Schema of its fields."""

    name: str
    about: str
    schema: dict[str, Any]


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. All but its name is told of to-do workers only: what they react to, what opens and ends their jobs."""

    name: str
    about: str
    reacts: list[str] = []
    opens: list[str] = []
    ends: list[str] = []
    concurrency: int | None = None
    timeout_s: float | None = None
    attempts: int | None = None


class AppView(msgspec.Struct, frozen=True, kw_only=True):
    """An application: all that `inspect` shows."""

    app: str
    store: str
    features: list[str]
    commands: list[CommandView]
    queries: list[QueryView]
    workers: list[WorkerView]


def inspect(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One command or query, with its JSON Schema.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with all JSON Schemas.")] = False,
) -> None:
    """Show the application's features, commands, queries and workers. It opens no store."""
    settings = settings_of(context)
    view = _app_view(settings.load_app(), settings.app_name, without_password(settings.store_url()))
    if name is not None:
        _show_one(view, name, json=json)
    elif json:
        print_json(view)
    else:
        _show(view, console())


def _app_view(app: App, name: str, store: str) -> AppView:
    catalog = app.catalog
    own = [command for command in catalog.commands if not command.startswith(INTERNAL_PREFIX)]
    return AppView(
        app=name,
        store=store,
        features=[feature for feature in catalog.features if not feature.startswith(INTERNAL_PREFIX)],
        commands=[_command_view(catalog.commands[command]) for command in (*own, *operator_commands(catalog))],
        queries=[_query_view(query) for query in catalog.queries.values()],
        workers=[_worker_view(app, worker) for worker in app.todo_workers],
    )


def _command_view(command: CommandType) -> CommandView:
    kind = command.message_type
    return CommandView(
        name=command.name,
        version=kind.version,
        subject=command.subject_field,
        about=_about(kind.body),
        schema=msgspec.json.schema(kind.body),
    )


def _query_view(query: QueryType) -> QueryView:
    return QueryView(name=query.name, about=_about(query.query), schema=msgspec.json.schema(query.query))


def _worker_view(app: App, worker: TodoWorker) -> WorkerView:
    def names(marks: tuple[tuple[str, tuple[Any, ...]], ...]) -> list[str]:
        return [app.catalog.name_of(command) for _, commands in marks for command in commands]

    return WorkerView(
        name=worker.name,
        about=_about(type(worker)),
        reacts=[f"{app.catalog.name_of(reaction.on)} ({reaction.name})" for reaction in worker.reactions],
        opens=names(worker.openers),
        ends=names(worker.enders),
        concurrency=worker.concurrency,
        timeout_s=worker.timeout_s,
        attempts=worker.retry.attempts,
    )


def _about(cls: type[Any]) -> str:
    """The first line of the class's own docstring."""
    return python_inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("\n")[0]


def _show_one(view: AppView, name: str, *, json: bool) -> None:
    known: dict[str, CommandView | QueryView] = {query.name: query for query in view.queries}
    known.update((command.name, command) for command in view.commands)
    if name not in known:
        raise UnknownName("command or query", name, list(known))
    found = known[name]
    if json:
        print_json(found)
    else:
        print(f"{found.name}: {safe(found.about)}" if found.about else found.name)
        print(as_json(found.schema, indent=2))


def _show(view: AppView, out: Console) -> None:
    out.print(f"{safe(view.app)}, features: {', '.join(view.features)}; store: {safe(view.store)}\n")
    commands = [(one.name, one.version, one.subject, _fields(one.schema), one.about) for one in view.commands]
    out.print(table(("command", "version", "subject", "fields", ""), commands))
    out.print()
    queries = [(one.name, _fields(one.schema), one.about) for one in view.queries]
    out.print(table(("query", "fields", ""), queries) if queries else "No queries.")
    out.print()
    workers = [
        (one.name, ", ".join(one.reacts) or None, ", ".join(one.opens) or None, ", ".join(one.ends) or None)
        for one in view.workers
    ]
    out.print(table(("worker", "reacts to", "jobs from", "answered by"), workers) if workers else "No to-do workers.")


def _fields(schema: dict[str, Any]) -> str | None:
    """The fields' names; those that may be left out in brackets."""
    body = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    required = body.get("required", [])
    names = (name if name in required else f"[{name}]" for name in body.get("properties", {}))
    return " ".join(names) or None

"""`journeyman doctor`: whether application, store and schema file fit together, before a deploy and in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import msgspec
import typer

from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.output import console, print_json, safe
from journeyman.doors.cli.schema import check_schema
from journeyman.doors.cli.settings import Settings
from journeyman.errors import JourneymanError
from journeyman.replica import Replica
from journeyman.store.base import MessageLog, Store
from journeyman.store.open import find_store
from journeyman.todo.ledger import JobLedger

#: The packages whose versions are told, those that are installed.
PACKAGES: Final = ("journeyman", "msgspec", "apsw", "asyncpg", "nats-py")

#: How often the progress of a replay is looked at, in seconds.
LOOK_S: Final = 0.1


class Check(msgspec.Struct, frozen=True):
    """One thing looked at, and what was found."""

    name: str
    ok: bool
    found: str


def doctor(
    context: typer.Context,
    history: Annotated[
        bool,
        typer.Option("--history", help="Decode and apply the whole log with the code at hand; nothing is recorded."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that application, store and schema file fit together; with --history, before a deploy, also the whole log.

    It fails if anything is wrong. It changes nothing, and other processes may go on meanwhile.
    """
    checks = _checks(settings_of(context), history=history)
    ok = all(check.ok for check in checks)
    if json:
        print_json({"ok": ok, "checks": checks})
    else:
        _show(checks)
    if not ok:
        raise typer.Exit(1)


def _show(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    for check in checks:
        verdict = Text("ok", "green") if check.ok else Text("WRONG", "bold red")
        grid.add_row(verdict, Text(check.name, "bold"), Text(safe(check.found)))
    console().print(grid)


def _checks(settings: Settings, *, history: bool) -> list[Check]:
    checks = [
        _check("versions", _versions),
        _check("app", lambda: _application(settings)),
        _check("schema", lambda: _schema(settings)),
        _check("store", lambda: asyncio.run(_with_store(settings, _described))),
    ]
    if history and checks[1].ok and checks[3].ok:
        checks.append(_check("history", lambda: _history(settings)))
    elif history:
        checks.append(Check("history", False, "Not looked at: it needs the application and the store."))
    return checks


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except JourneymanError as error:
        return Check(name, False, str(error))


def _versions() -> str:
    import importlib.metadata
    import platform

    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def _application(settings: Settings) -> str:
    catalog = settings.load_app().catalog
    return f"{settings.app_name}: {len(catalog.commands)} commands and {len(catalog.queries)} queries"


def _schema(settings: Settings) -> str:
    path, number = check_schema(settings)
    return f"{path}: {number} messages, up to date"


async def _with_store(settings: Settings, look: Callable[[Store], Awaitable[str]]) -> str:
    store = await find_store(settings.existing_store_url())
    try:
        return await look(store)
    finally:
        await store.close()


async def _described(store: Store) -> str:
    return f"{store.url}: {store.durability}; {await store.log.head()} messages"


def _history(settings: Settings) -> str:
    """Replay the log as a start does.

    Raises:
        Poisoned: the first message that can't be decoded or applied; says its position, its name and the next step.
    """
    app = settings.load_app()

    async def replay(store: Store) -> str:
        replica = Replica(store.log, app.catalog, [JobLedger(app.todo_workers)])
        await _with_progress(replica, store.log)
        return f"{replica.settled_position} messages decoded and applied"

    return asyncio.run(_with_store(settings, replay))


async def _with_progress(replica: Replica, log: MessageLog) -> None:
    """Start the replica, with a progress bar on standard error if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    columns = (TextColumn("Applying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=await log.head())
        replay = asyncio.ensure_future(replica.start())
        try:
            while not replay.done():
                await asyncio.wait({replay}, timeout=LOOK_S)
                bar.update(task, completed=replica.settled_position)
        finally:
            replay.cancel()
            await asyncio.gather(replay, return_exceptions=True)
    replay.result()

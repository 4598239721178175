"""`journeyman snapshot …`: the states that are kept beside the log, so that a start need not apply everything again."""

from __future__ import annotations

from typing import Annotated

import typer

from journeyman.app import App
from journeyman.doors.cli.opening import with_app
from journeyman.doors.cli.output import console, print_json, table
from journeyman.errors import DefinitionError
from journeyman.replica import Replica
from journeyman.set_aside import read_set_asides
from journeyman.snapshots import NotUsable, SnapshotInfo, Snapshots
from journeyman.todo.ledger import JobLedger

cli = typer.Typer(help="Keep the state beside the log, for faster starts.", no_args_is_help=True, rich_markup_mode=None)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

COLUMNS = ("position", "bytes", "built by", "name")


@cli.callback()
def snapshot() -> None:
    """Keep the state beside the log, for faster starts."""


@cli.command("take")
def take(context: typer.Context, json: Json = False) -> None:
    """Keep the state of this moment. `serve` and `work` do so by themselves, each 100,000 messages."""
    info = with_app(context, lambda app: app.take_snapshot(), reads=True)
    if json:
        print_json(info)
    else:
        print(f"The state at position {info.position} is kept: {info.size_bytes} bytes.")


@cli.command("list")
def list_snapshots(context: typer.Context, json: Json = False) -> None:
    """Show the snapshots, oldest position first. Those that other code has built are left to it."""
    found = with_app(context, lambda app: _snapshots(app).list(), reads=True)
    if json:
        print_json(found)
    else:
        console().print(table(COLUMNS, map(_row, found)) if found else "There is no snapshot.")


@cli.command("verify")
def verify(context: typer.Context) -> None:
    """Apply the log again from its beginning, and compare. What differs is deleted, and the exit code is 1."""
    if with_app(context, _verify, reads=True):
        raise typer.Exit(1)


async def _verify(app: App) -> int:
    """How many snapshots of this code are wrong."""
    wrong = 0
    replica = Replica(app.store.log, app.catalog, [JobLedger(app.todo_workers)])
    for info in await _snapshots(app).list():
        if not info.current:
            print(f"position {info.position}: not compared, for other code has built it")
            continue
        await replica.replay_to(info.position)
        why = await _difference(app, info, replica.state.hash())
        print(f"position {info.position}: {why or 'as the log says'}")
        if why:
            wrong += 1
            await _snapshots(app).delete(info)
    return wrong


async def _difference(app: App, info: SnapshotInfo, expected: str) -> str | None:
    try:
        restored = await _snapshots(app).load(info, await read_set_asides(app.store.log))
    except NotUsable as why:
        return f"can't be used, and is deleted: {why}"
    return None if restored.state.hash() == expected else "differs from the log, and is deleted"


def _snapshots(app: App) -> Snapshots:
    if app.snapshots is None:
        raise DefinitionError("There are no snapshots: the application's source is not to be found.")
    return app.snapshots


def _row(info: SnapshotInfo) -> tuple[object, ...]:
    return (info.position, info.size_bytes, "this code" if info.current else "other code", info.name)

"""`journeyman store …`: making, examining and copying a store. None of it needs an application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.output import console, print_json, print_pairs, safe
from journeyman.errors import StoreError
from journeyman.store.base import Check, Examination, Store
from journeyman.store.copying import Copied, Progress, Stage, copy_log
from journeyman.store.open import find_store, open_store

if TYPE_CHECKING:
    from rich.progress import TaskID

cli = typer.Typer(help="Make, check and copy a store.", no_args_is_help=True, rich_markup_mode=None)

Url = Annotated[str | None, typer.Argument(metavar="[URL]", help="The store; else the one that --store names.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class StoreView(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a store; `facts` are those of its kind."""

    store: str
    durability: str
    head: int
    facts: dict[str, str | int]


@cli.callback()
def store() -> None:
    """Make, check and copy a store."""


@cli.command("init")
def init(context: typer.Context, url: Url = None, json: Json = False) -> None:
    """Make the store, or bring its layout up to this version's. Several may do so at once; one that is there stays."""
    _show(_with(open_store, _url(context, url), _view), json=json)


@cli.command("info")
def info(context: typer.Context, url: Url = None, json: Json = False) -> None:
    """Show what is known of a store: its head, its size, and facts of its kind."""
    _show(_with(find_store, _url(context, url), _view), json=json)


@cli.command("check")
def check(context: typer.Context, url: Url = None, json: Json = False) -> None:
    """Check what durability and order need: settings, versions, privileges. It fails if anything is wrong.

    It tells each fix, and changes nothing.
    """
    try:
        checks = _with(find_store, _url(context, url), lambda store: store.examine()).checks
    except StoreError as error:
        checks = (Check("store", False, "can't be used", str(error)),)
    ok = all(one.ok for one in checks)
    if json:
        print_json({"ok": ok, "checks": checks})
    else:
        _show_checks(checks)
    if not ok:
        raise typer.Exit(1)


@cli.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store that has the log.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The store that gets it: new, or an earlier copy.")],
    json: Json = False,
) -> None:
    """Copy a log into another store: positions, ids and times stay. All of it is read back and compared.

    Stopped, it goes on where it was. It writes nothing into a log that is not a copy.
    """
    copied = asyncio.run(_copy(source, target))
    if json:
        print_json(copied)
    else:
        print_pairs(console(), messages=copied.messages, copied=copied.copied, digest=copied.digest)


async def _copy(source_url: str, target_url: str) -> Copied:
    async with AsyncExitStack() as stack:
        source = await find_store(source_url)
        stack.push_async_callback(source.close)
        target = await open_store(target_url)
        stack.push_async_callback(target.close)
        with _progress() as progress:
            return await copy_log(source, target, progress=progress)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress bar on standard error, if that is a terminal: one line for each stage."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    out = console(stderr=True)
    columns = (TextColumn("{task.description:<9}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=out, disable=not out.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: Stage, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage.capitalize(), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield show


def _url(context: typer.Context, url: str | None) -> str:
    return url or settings_of(context).store_url()


def _with(opened: Callable[[str], Awaitable[Store]], url: str, use: Callable[[Store], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        store = await opened(url)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def _view(store: Store) -> StoreView:
    found: Examination = await store.examine()
    return StoreView(store=store.url, durability=store.durability, head=await store.log.head(), facts=found.facts)


def _show(view: StoreView, *, json: bool) -> None:
    if json:
        print_json(view)
    else:
        print_pairs(console(), store=view.store, durability=view.durability, head=view.head, **view.facts)


def _show_checks(checks: tuple[Check, ...]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    for one in checks:
        verdict = Text("ok", "green") if one.ok else Text("WRONG", "bold red")
        grid.add_row(verdict, Text(one.name, "bold"), Text(safe(one.found if one.ok else f"{one.found}: {one.fix}")))
    console().print(grid)

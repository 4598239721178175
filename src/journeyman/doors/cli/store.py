"""`journeyman store …`: making a store, and looking whether it is as it must be. None of it needs an application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import typer

from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.output import console, print_json, print_pairs, safe
from journeyman.errors import StoreError
from journeyman.store.base import Check, Examination, Store
from journeyman.store.open import find_store, open_store

cli = typer.Typer(help="Make and check the store.", no_args_is_help=True, rich_markup_mode=None)

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
    """Make and check the store."""


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

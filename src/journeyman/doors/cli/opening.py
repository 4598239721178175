"""Opening what a command works on: the application without its workers, or only its log."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

from journeyman.app import App
from journeyman.doors.cli.settings import Settings
from journeyman.store.base import Store
from journeyman.store.open import find_store

T = TypeVar("T")


def settings_of(context: typer.Context) -> Settings:
    """The global options."""
    settings = context.obj
    assert isinstance(settings, Settings)
    return settings


def with_app(context: typer.Context, use: Callable[[App], Awaitable[T]], *, reads: bool = False) -> T:
    """What `use` returns for the running application. Its workers run elsewhere, or not at all.

    With `reads`, a store that is not there is an error, and is not created.
    """
    settings = settings_of(context)
    app = settings.load_app()
    url = settings.existing_store_url() if reads else settings.store_url()

    async def run() -> T:
        async with app.running(url, workers=False):
            return await use(app)

    return asyncio.run(run())


def with_store(context: typer.Context, use: Callable[[Store], Awaitable[T]]) -> T:
    """What `use` returns for the open store. It must be there already; the application need not work."""
    url = settings_of(context).existing_store_url()

    async def run() -> T:
        store = await find_store(url)
        try:
            return await use(store)
        finally:
            await store.close()

    return asyncio.run(run())


def operator() -> str:
    """Who sends a command from the command line, unless they say another name: the user of the system."""
    try:
        return f"operator:{getpass.getuser()}"
    except (KeyError, OSError):  # A container's user may have no name.
        return f"operator:{os.getuid()}"

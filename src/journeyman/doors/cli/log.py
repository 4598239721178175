"""`journeyman log …`: looking at the log, and mending it."""

from __future__ import annotations

import asyncio
import getpass
from typing import Annotated

import typer

from journeyman.errors import DefinitionError
from journeyman.set_aside import set_aside
from journeyman.store import open_store
from journeyman.timing import SYSTEM_TIMING

cli = typer.Typer(help="Look at the log, and mend it.", no_args_is_help=True, rich_markup_mode=None)


@cli.callback()
def log() -> None:
    """Look at the log, and mend it."""


@cli.command("set-aside")
def set_message_aside(
    context: typer.Context,
    position: Annotated[int, typer.Argument(min=1, help="The position that the error named.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
) -> None:
    """Leave one message out of every replay, for good. For a message that no code can apply any more.

    It needs no working application: only the store.
    """
    if context.obj.store is None:
        raise DefinitionError("Say which store: journeyman --store URL log set-aside …")
    if not reason.strip() or len(reason) > 1000:
        raise DefinitionError("The reason must have 1 to 1000 characters: it is what the next reader of the log has.")
    decided_at = asyncio.run(_set_aside(context.obj.store, position, reason))
    typer.echo(f"Position {position} is set aside from now on; the decision is at position {decided_at}.")


async def _set_aside(url: str, position: int, reason: str) -> int:
    store = await open_store(url)
    try:
        return await set_aside(
            store.log,
            position,
            reason=reason,
            actor=f"operator:{getpass.getuser()}",
            recorded_at_us=SYSTEM_TIMING.now_us(),
            new_id=SYSTEM_TIMING.new_id,
        )
    finally:
        await store.close()

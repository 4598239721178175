"""The `journeyman` command: global options, subcommands, and what a person sees when something is wrong."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Final

import typer
from rich.console import Console

from journeyman.doors.cli import demo, log, schema
from journeyman.doors.cli.settings import Settings
from journeyman.errors import JourneymanError, Outdated

#: Exit codes: 1 for what went wrong, 75 (EX_TEMPFAIL) for "start me again, with newer code", 130 after Ctrl-C.
EXIT_FAILED: Final = 1
EXIT_OUTDATED: Final = 75
EXIT_INTERRUPTED: Final = 130

cli = typer.Typer(
    name="journeyman",
    help="Applications that live on one append-only message log, with workers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@cli.callback()
def settings(
    context: typer.Context,
    app: Annotated[
        str | None, typer.Option("--app", metavar="MODULE:ATTRIBUTE", envvar="JOURNEYMAN_APP", help="The application.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", envvar="JOURNEYMAN_STORE", help="Where it lives: sqlite:///blog.db"),
    ] = None,
) -> None:
    """Options for every subcommand: they come before it."""
    context.obj = Settings(app=app, store=store)


cli.command("demo")(demo.demo)
cli.command("schema")(schema.schema)
cli.add_typer(log.cli, name="log")


def main() -> None:
    """Run the command line. A user's mistake gets one clear line, and a non-zero exit."""
    # The application's own modules are looked for where the command is run, as `python -m` does.
    sys.path.insert(0, os.getcwd())
    try:
        cli()
    except JourneymanError as error:
        Console(stderr=True).print(f"journeyman: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_OUTDATED if isinstance(error, Outdated) else EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

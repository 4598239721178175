"""The `journeyman` command: global options, subcommands, and what a person sees when something is wrong."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Final, cast

import typer

from journeyman.doors.cli import (
    demo,
    doctor,
    execute,
    importing,
    inspect,
    log,
    running,
    schema,
    snapshot,
    store,
    worker,
)
from journeyman.doors.cli.output import console, safe
from journeyman.doors.cli.settings import Settings
from journeyman.errors import JourneymanError, Outdated

#: Exit codes: 1 for what went wrong, 2 for a command line that makes no sense, 75 (EX_TEMPFAIL) for "start me again,
#: with newer code", 130 after Ctrl-C.
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_OUTDATED: Final = 75
EXIT_INTERRUPTED: Final = 130

# Newer versions of typer carry their own click, older ones use the package: this is the class in both.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

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
        str | None,
        typer.Option(
            "--app",
            metavar="MODULE:ATTRIBUTE",
            envvar="JOURNEYMAN_APP",
            help="The application; the example blog when nobody says.",
        ),
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", envvar="JOURNEYMAN_STORE", help="Where it lives, like sqlite:///blog.db."
        ),
    ] = None,
) -> None:
    """Options for every subcommand: they come before it.

    Where neither they nor the environment say it, pyproject.toml does: app and store under [tool.journeyman].
    """
    context.obj = Settings(app=app or None, store=store_url or None)


cli.command("serve", short_help="Serve the application over HTTP, and run its workers.")(running.serve)
cli.command("token", short_help="Print a new token for those who ask over the network.")(running.token)
cli.command("work", short_help="Run the workers, and nothing else.")(running.work)
cli.command("demo", short_help="See it work, from one command.")(demo.demo)
cli.command("import", short_help="Record a post for each document in files.")(importing.import_)
cli.command("execute", short_help="Record one command.")(execute.execute)
cli.command("query", short_help="Ask one question.")(execute.query)
cli.add_typer(log.cli, name="log")
cli.add_typer(worker.cli, name="worker")
cli.add_typer(snapshot.cli, name="snapshot")
cli.add_typer(store.cli, name="store")
cli.command("inspect", short_help="Show commands, queries and workers.")(inspect.inspect)
cli.command("doctor", short_help="Check that all fits together.")(doctor.doctor)
cli.command("schema", short_help="Guard the schemas of old messages.")(schema.schema)


def main() -> None:
    """Run the command line, and exit."""
    # The application's own modules are looked for where the command is run, as `python -m` does.
    sys.path.insert(0, os.getcwd())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # A terminal of another encoding shows what it can.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line. A user's mistake gets one clear line; returns the exit code."""
    try:
        code = cli(list(arguments), prog_name="journeyman", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        return _leave_quietly()
    except JourneymanError as error:
        _tell(" ".join([str(error), *getattr(error, "__notes__", ())]))
        return EXIT_OUTDATED if isinstance(error, Outdated) else EXIT_FAILED
    except _UsageError as error:
        return _explain(error)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED


def _tell(text: str) -> None:
    console(stderr=True).print(f"journeyman: {safe(text)}", style="red", soft_wrap=True)


def _explain(error: Exception) -> int:
    """Tell what is wrong with the command line, and where help is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "journeyman"
    text = str(getattr(error, "format_message", error.__str__)())
    _tell(f"{' '.join(text.split()).rstrip('.')}. Try: {path} --help")
    return EXIT_USAGE


def _leave_quietly() -> int:
    """Whoever read our output has ended, as `head` does: the rest goes nowhere, without a word.

    Python would meet the same error again when it flushes at exit (docs.python.org, signal, "Note on SIGPIPE").
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED

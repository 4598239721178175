"""`journeyman serve` and `journeyman work`: an application that runs until it is told to stop."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final

import typer

from journeyman.app import DRAIN_S, App
from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.output import console, print_pairs
from journeyman.errors import DefinitionError

#: What serves. It is loaded by name, and late: most commands don't need a web server.
SERVING: Final = "journeyman.doors.serving"
TOKENS: Final = "journeyman.doors.web.tokens"

HOST_DEFAULT: Final = "127.0.0.1"
PORT_DEFAULT: Final = 8000

#: Serves a running application in its block, and yields the URL.
Serving = Callable[[App], AbstractAsyncContextManager[str]]

_LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = HOST_DEFAULT,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port to listen on; 0 for any free one.")
    ] = PORT_DEFAULT,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name that clients ask for; may be said again."),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option("--tokens", metavar="FILE", envvar="JOURNEYMAN_TOKENS", help="Who may look, and who may act."),
    ] = None,
    no_workers: Annotated[
        bool, typer.Option("--no-workers", help="Leave the workers to another process: journeyman work.")
    ] = False,
) -> None:
    """Serve the application over HTTP and run its workers, until SIGTERM or Ctrl-C.

    Where others than this machine can ask, it needs tokens: from JOURNEYMAN_OPERATOR_TOKEN and JOURNEYMAN_READER_TOKEN,
    or from a file. journeyman token makes one.
    """
    serving = http_serving(host, port, allowed_hosts=allowed_host or (), tokens=tokens)
    _run(context, workers=not no_workers, serving=serving)


def token() -> None:
    """Print a new token: nobody can guess it, and nothing knows it yet."""
    print(_import_late(TOKENS).new_token())


def work(context: typer.Context) -> None:
    """Run the application's workers, and nothing else, until SIGTERM or Ctrl-C."""
    _run(context, workers=True, serving=None)


def http_serving(host: str, port: int, *, allowed_hosts: Sequence[str] = (), tokens: Path | None = None) -> Serving:
    """What serves an application at that address, with the tokens of the environment and of a file.

    Raises:
        DefinitionError: something that it needs is not installed, or the tokens are not as they must be.
    """
    known = _import_late(TOKENS).read_tokens(os.environ, tokens)
    serve = _import_late(SERVING).serving
    serving: Serving = partial(serve, host=host, port=port, allowed_hosts=allowed_hosts, tokens=known)
    return serving


def _import_late(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DefinitionError(f"Serving needs {error.name}, which is not installed.") from error


class StopSignals:
    """SIGTERM and Ctrl-C. The first asks for a clean end, also of a start that is under way; a second ends at once."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._starting = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive)

    def _receive(self) -> None:
        # The kernel's own way for the next one: it works whatever this process is doing by then.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        print(
            f"Stopping. Work under way may take up to {DRAIN_S:g} s to end; to stop at once, ask again.",
            file=sys.stderr,
            flush=True,
        )
        self.requested.set()
        if self._starting is not None:
            self._starting.cancel()

    async def or_end_of(self, app: App) -> None:
        """Return when a stop is asked for.

        Raises:
            Poisoned, Outdated, WrongLog: the application can't go on.
        """
        self._starting = None
        tasks = [asyncio.ensure_future(self.requested.wait()), asyncio.ensure_future(app.wait())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()


def _run(context: typer.Context, *, workers: bool, serving: Serving | None) -> None:
    settings = settings_of(context)
    app = settings.load_app()
    logging.basicConfig(level=logging.WARNING, format=_LOG_FORMAT)
    asyncio.run(_until_stopped(app, settings.store_url(), workers=workers, serving=serving))


async def _until_stopped(app: App, store: str, *, workers: bool, serving: Serving | None) -> None:
    stop = StopSignals()
    try:
        async with (
            app.running(store, workers=workers),
            serving(app) if serving is not None else nullcontext() as url,
        ):
            await _tell(app, url, workers=workers)
            await stop.or_end_of(app)
    except asyncio.CancelledError:
        if not stop.requested.is_set():
            raise


async def _tell(app: App, url: str | None, *, workers: bool) -> None:
    names = ", ".join(worker.name for worker in await app.workers()) or "none"
    pairs = {"Serving": url} if url is not None else {}
    out = console()
    print_pairs(
        out,
        **pairs,
        Store=f"{app.store.url} ({app.store.durability}), at position {app.position}",
        Workers=names if workers else f"not in this process ({names})",
    )
    out.print("Ctrl-C stops it.", style="dim")
    sys.stdout.flush()

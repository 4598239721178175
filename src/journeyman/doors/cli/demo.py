"""`journeyman demo`: the example's own command, loaded by name, since the doors know no example."""

from __future__ import annotations

import importlib
from typing import Annotated, Final

import typer

from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.running import HOST_DEFAULT, PORT_DEFAULT, http_serving

DEMO: Final = "journeyman.examples.blog.demo"
STORE_DEFAULT: Final = "sqlite:///journeyman-demo.db"


def demo(
    context: typer.Context,
    exit_: Annotated[
        bool, typer.Option("--exit", help="Serve nothing, and end when every post has its answer.")
    ] = False,
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="The port to serve on; 0 for any free one.")
    ] = PORT_DEFAULT,
    delay: Annotated[
        float, typer.Option("--delay", min=0, max=60, metavar="SECONDS", help="Make each summary take so much longer.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Give each module of the Python standard library a post, and each post a summary. Kill it, and run it again.

    It serves the posts meanwhile, and goes on until SIGTERM or Ctrl-C. Its store is journeyman-demo.db, unless --store
    or JOURNEYMAN_STORE names another: it is an application of its own, so pyproject.toml is not asked.
    """
    store = settings_of(context).store or STORE_DEFAULT
    serving = None if exit_ else http_serving(HOST_DEFAULT, port)
    raise typer.Exit(importlib.import_module(DEMO).run(store, serving=serving, delay_s=delay, as_json=json))

"""`journeyman demo`: the example's own command, loaded by name, since the doors know no example."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

DEMO = "journeyman.examples.blog.demo"
STORE_DEFAULT = "sqlite:///journeyman-demo.db"


def demo(
    context: typer.Context,
    exit_: Annotated[
        bool, typer.Option("--exit", help="End when every post has its answer (so far it always does).")
    ] = False,
    delay: Annotated[
        float, typer.Option("--delay", min=0, max=60, metavar="SECONDS", help="Make each summary take so much longer.")
    ] = 0.0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Give each module of the Python standard library a post, and each post a summary. Kill it, and run it again."""
    store = context.obj.store or STORE_DEFAULT
    raise typer.Exit(importlib.import_module(DEMO).run(store, delay_s=delay, as_json=json))

"""`journeyman schema`: the committed file that makes a check fail when old messages would become unreadable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import msgspec
import typer

from journeyman.codec import merge_schemas
from journeyman.errors import DefinitionError
from journeyman.feature import Catalog

SchemaFile = dict[str, dict[str, Any]]


def schema(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Fail if the file is not up to date. For CI.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="The file; schema.json beside the application's module.")
    ] = None,
) -> None:
    """Record the schema of every message in a file to commit, or check that the committed one still holds.

    A schema, once recorded for a version, must not change: old messages in the log have it. A changed command needs a
    new version and an upcaster. To change a version that no log holds yet, remove its entry from the file first.
    """
    app = context.obj.load_app()
    path = file or _beside(context.obj.app_name.partition(":")[0])
    recorded = _read(path)
    merged = _merge(app.catalog, recorded, path)
    if merged == recorded:
        typer.echo(f"{path}: {len(merged)} messages, up to date")
    elif check:
        new = sorted(name for name in merged if merged[name] != recorded.get(name))
        raise DefinitionError(f"{path} lacks {', '.join(new)}: run `journeyman schema` and commit the file.")
    else:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(merged, order="sorted"), indent=1) + b"\n")
        typer.echo(f"{path}: {len(merged)} messages recorded; commit it")


def _merge(catalog: Catalog, recorded: SchemaFile, path: Path) -> SchemaFile:
    merged, faults = merge_schemas(catalog.codec, recorded)
    if faults:
        raise DefinitionError("\n  ".join([f"Old messages would become unreadable (by {path}):", *faults]))
    return merged


def _read(path: Path) -> SchemaFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SchemaFile)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise DefinitionError(f"{path} can't be read as a schema file: {error}") from error


def _beside(module: str) -> Path:
    return Path(cast(str, sys.modules[module].__file__)).parent / "schema.json"

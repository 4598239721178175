"""`journeyman schema`: the committed file that makes a check fail when old messages would become unreadable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from journeyman.codec import merge_schemas
from journeyman.doors.cli.opening import settings_of
from journeyman.doors.cli.settings import Settings
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
    settings = settings_of(context)
    app = settings.load_app()
    path = file or _beside(settings)
    recorded = _read(path)
    merged = _merge(app.catalog, recorded, path)
    if merged == recorded:
        typer.echo(f"{path}: {len(merged)} messages, up to date")
    elif check:
        raise _lacking(path, merged, recorded)
    else:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(merged, order="sorted"), indent=1) + b"\n")
        typer.echo(f"{path}: {len(merged)} messages recorded; commit it")


def check_schema(settings: Settings) -> tuple[Path, int]:
    """The application's schema file, and how many messages it has.

    Raises:
        DefinitionError: it is not up to date, or old messages would become unreadable.
    """
    path = _beside(settings)
    recorded = _read(path)
    merged = _merge(settings.load_app().catalog, recorded, path)
    if merged != recorded:
        raise _lacking(path, merged, recorded)
    return path, len(merged)


def _lacking(path: Path, merged: SchemaFile, recorded: SchemaFile) -> DefinitionError:
    new = sorted(name for name in merged if merged[name] != recorded.get(name))
    return DefinitionError(f"{path} lacks {', '.join(new)}: run `journeyman schema` and commit the file.")


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


def _beside(settings: Settings) -> Path:
    """schema.json in the folder of the application's module, which has been imported."""
    return Path(settings.load_module().__file__ or "").parent / "schema.json"

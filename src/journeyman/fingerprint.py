"""A digest of the code that builds an application's state: state that other code has built is not taken for its own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec

from journeyman.feature import Catalog

#: Counts what a digest is made of.
LAYOUT: Final = 1

#: The folders of this package that take no part in building state.
_BESIDE: Final = ("doors", "testing", "store")


def fingerprint(catalog: Catalog, workers: Iterable[type], *, code_version: str = "") -> str | None:
    """A digest over the source of all packages that features, commands, rows and workers are declared in.

    Where such a module is in no package, all modules of its folder count. Code in other packages that `apply` calls
    is not seen: `code_version` tells of it. None where a module has no source to look at, as in an interactive session.
    """
    workers = list(workers)
    classes = [*_declared(catalog), *workers]
    modules = {cls.__module__ for cls in classes if cls.__module__.partition(".")[0] != __package__}
    found = {module: list(_sources(module)) for module in modules}
    if not all(found.values()):
        return None
    digest = hashlib.blake2b(digest_size=16)
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in classes]
    digest.update(msgspec.json.encode([LAYOUT, sys.version_info[:2], msgspec.__version__, code_version, sorted(names)]))
    for path in sorted({*chain(*found.values()), *_own_sources()}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _declared(catalog: Catalog) -> Iterator[type]:
    for feature in catalog.features.values():
        yield feature.state
        yield from (table.row_type for table in feature.state._declared.values())
    yield from (command.message_type.body for command in catalog.commands.values())


def _sources(module_name: str) -> Iterator[Path]:
    """The source files of the top-level package that a module belongs to."""
    top = import_module(module_name.partition(".")[0])
    for folder, pattern in _places(top):
        yield from folder.glob(pattern)


def _places(top: ModuleType) -> Iterator[tuple[Path, str]]:
    paths = getattr(top, "__path__", None)
    if paths is not None:
        yield from ((Path(path), "**/*.py") for path in paths)
    elif (file := getattr(top, "__file__", None)) is not None:
        yield Path(file).parent, "*.py"


def _own_sources() -> Iterator[Path]:
    here = Path(__file__).parent
    return (path for path in here.glob("**/*.py") if path.relative_to(here).parts[0] not in _BESIDE)

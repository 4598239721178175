"""Real text to fill the example with: the docstrings of the Python standard library on this machine.

The source files are read, and no module is imported: some modules do something when they are (`antigravity` opens a
browser), and some can't be everywhere.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from itertools import islice
from pathlib import Path

DOCUMENTS_MAX = 120
#: A text shorter than this is not worth a summary.
CHARACTERS_MIN = 400
CHARACTERS_MAX = 20_000
TITLE_CHARACTERS_MAX = 200

_NOT_FOR_READERS = frozenset({"antigravity", "idlelib", "lib2to3", "test", "this", "turtledemo"})
_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `name` is unique and the same on every run: use it to make an import that can be run again."""

    name: str
    title: str
    content: str


def standard_library_documents() -> Iterator[Document]:
    """One document for each module that has enough to say, by name, at most DOCUMENTS_MAX.

    It reads a file for each, about 10 ms: beside an event loop, take them in a thread.
    """
    library = Path(sysconfig.get_path("stdlib"))
    documents = (_document(name, path) for name, path in _modules(library))
    return islice((document for document in documents if len(document.content) >= CHARACTERS_MIN), DOCUMENTS_MAX)


def _modules(library: Path) -> Iterator[tuple[str, Path]]:
    """The public modules that have a source file here. Some installations leave modules out."""
    for name in sorted(sys.stdlib_module_names - _NOT_FOR_READERS):
        for path in (library / f"{name}.py", library / name / "__init__.py"):
            if not name.startswith("_") and path.is_file():
                yield name, path


def _document(name: str, path: Path) -> Document:
    module = ast.parse(path.read_bytes(), filename=str(path))
    first_line = _docstring(module).partition("\n")[0]
    texts = filter(None, map(_docstring, (module, *_public(module))))
    return Document(
        name=name,
        title=(f"{name}: {first_line}" if first_line else name)[:TITLE_CHARACTERS_MAX],
        content="\n\n".join(texts)[:CHARACTERS_MAX],
    )


def _public(module: ast.Module) -> Iterator[_Documented]:
    """The public classes and functions at the top of a module, in the order of its source."""
    for node in module.body:
        if isinstance(node, _Documented) and not getattr(node, "name", "_").startswith("_"):
            yield node


def _docstring(node: _Documented) -> str:
    # A docstring may write half of a surrogate pair as an escape, which no JSON can carry.
    text = ast.get_docstring(node, clean=False) or ""
    return cleandoc(text.encode(errors="replace").decode())

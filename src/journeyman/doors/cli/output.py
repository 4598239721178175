"""What people and programs see: tables, JSON, and nothing that stored text could do to a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from os import environ
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Characters that change what a terminal shows or does, beyond their own place: controls (C0, DEL, C1), marks and
#: overrides of writing direction (Unicode TR #9, UAX "Bidirectional Algorithm"), line separators, annotations, and
#: halves of surrogate pairs. Newline and tab are not among them.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)

#: How wide tables are where there is no terminal and COLUMNS does not say.
WIDTH_ELSEWHERE: Final = 120

#: How much of a long text a table's cell shows, in characters.
CELL_CHARACTERS_MAX: Final = 200

#: A table whose columns would have less than this is shown as one block for each row, in characters.
COLUMN_CHARACTERS_MIN: Final = 14


def safe(text: str) -> str:
    r"""The text, with what a terminal would obey written as \u001b."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """The text on one line, safe, and cut where it is long."""
    line = safe(" ".join(text[: 4 * CELL_CHARACTERS_MAX].split()))
    return line if len(line) <= CELL_CHARACTERS_MAX else line[: CELL_CHARACTERS_MAX - 1] + "…"


def as_json(value: Any, *, indent: int = 0) -> str:
    """The value as JSON. All of it stands in strings, so that what is unsafe can be written as JSON's own escapes."""
    data = msgspec.json.encode(value)
    return safe((msgspec.json.format(data, indent=indent) if indent else data).decode())


def print_json(value: Any) -> None:
    """Print for programs: one value, one line."""
    print(as_json(value))


def console(*, stderr: bool = False) -> Console:
    """Where people read. Colours go to a terminal only, and to none with NO_COLOR (no-color.org)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in environ else WIDTH_ELSEWHERE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A table of texts and numbers. Texts are made safe here."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    listed = [list(row) for row in rows]
    for number, name in enumerate(columns):
        numeric = any(isinstance(row[number], int) for row in listed)
        made.add_column(name, justify="right" if numeric else "left", overflow="fold", header_style="bold")
    for row in listed:
        made.add_row(*(Text(cell(value)) for value in row))
    return made


def cell(value: object) -> str:
    """A value as it stands in a table."""
    if value is None:
        return "–"
    return one_line(value if isinstance(value, str) else as_json(value))


def show(value: Any, to: Console) -> None:
    """Show any answer of a query: an object as names and values, a list of objects as a table."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, list):
        _show_list(plain, to, title=None)
    elif isinstance(plain, dict):
        lists = {key: item for key, item in plain.items() if _is_table(item)}
        to.print(_names_and_values({key: item for key, item in plain.items() if key not in lists}))
        for key, item in lists.items():
            to.print()
            _show_list(item, to, title=safe(str(key)))
    else:
        to.print(safe(plain if isinstance(plain, str) else as_json(plain)), soft_wrap=True)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _show_list(items: list[Any], to: Console, *, title: str | None) -> None:
    if not _is_table(items):
        to.print(table([title or "value"], [[item] for item in items]))
        return
    columns = list(dict.fromkeys(key for item in items for key in item))
    if len(columns) * COLUMN_CHARACTERS_MIN <= to.width:
        to.print(table([safe(name) for name in columns], ([item.get(name) for name in columns] for item in items)))
        return
    for number, item in enumerate(items, 1):
        to.print(f"{title or 'item'} {number}", style="bold")
        to.print(_names_and_values(item))


def _names_and_values(pairs: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(Text(safe(str(name))), Text(cell(value)))
    return grid


def print_pairs(to: Console, **pairs: object) -> None:
    """Print names and values, one a line; an underscore in a name is a space."""
    to.print(_names_and_values({name.replace("_", " "): value for name, value in pairs.items()}))

"""Looking through a table: in key order or by an index, page by page, of the live state or of one that was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec

from journeyman.errors import NotFound
from journeyman.tables import AppState, Table
from journeyman.threads import in_thread

T = TypeVar("T")

#: How many rows a page shows.
PAGE_ROWS: Final = 50

#: How many keys are compared at a time: as many as stay near the processor meanwhile.
KEYS_AT_ONCE: Final = 1024


class Look(Protocol):
    """Looks at a state: `App.state`, or the same for a state of the past."""

    def __call__(self, look: Callable[[AppState], T], /) -> Awaitable[T]: ...


class TableFacts(msgspec.Struct, frozen=True):
    """A table, and how many rows it has."""

    feature: str
    name: str
    rows: int
    fields: tuple[str, ...]
    key_fields: tuple[str, ...]
    indexes: tuple[str, ...]


class RowPage(msgspec.Struct, frozen=True):
    """Some rows with their keys. `previous` and `next` lead to other pages, None where there is none."""

    rows: tuple[tuple[Any, Any], ...]
    previous: str | None = None
    next: str | None = None


def facts_of(state: AppState) -> list[TableFacts]:
    """All tables of a state, by feature; the framework's own at the end."""
    found = [
        _facts(feature, name, table) for feature, one in state.features.items() for name, table in one.tables().items()
    ]
    return sorted(found, key=lambda facts: (facts.feature.startswith("journeyman"), facts.feature, facts.name))


def _facts(feature: str, name: str, table: Table[Any, Any]) -> TableFacts:
    return TableFacts(feature, name, len(table), table.row_type.__struct_fields__, table.key_fields, table.index_names)


def table_of(state: AppState, feature: str, name: str) -> Table[Any, Any]:
    """A table of a state.

    Raises:
        NotFound: there is none of that name.
    """
    found = state.features.get(feature)
    if found is None or name not in found.tables():
        raise NotFound(f"There is no table {feature}/{name}.")
    return found.tables()[name]


async def page_by_key(
    look: Look, feature: str, name: str, *, after: str | None = None, before: str | None = None
) -> RowPage:
    """The rows behind a key, or the last ones before one.

    A state keeps no order of its keys. Only a copy of them is taken from it; they are compared in a thread, and let go
    of there: for many, that takes as long as the copy.

    Raises:
        NotFound: there is no such table, or no such key can be.
    """
    table, keys = await look(lambda state: _with_keys(table_of(state, feature, name)))
    after_key = None if after is None else read_key(table, after)
    before_key = None if before is None else read_key(table, before)
    chosen, more = await in_thread(lambda: _choose(keys, after_key, before_key), name="journeyman: keys in order")
    rows = await look(lambda state: [(key, table_of(state, feature, name).get(key)) for key in chosen])
    shown = tuple((key, row) for key, row in rows if row is not None)
    if not chosen:
        return RowPage(shown)
    has_next = more if before_key is None else True
    has_previous = more if before_key is not None else after_key is not None
    return RowPage(
        shown,
        previous=write_key(chosen[0]) if has_previous else None,
        next=write_key(chosen[-1]) if has_next else None,
    )


def _with_keys(table: Table[Any, Any]) -> tuple[Table[Any, Any], list[Any]]:
    return table, table.keys()


def _choose(keys: list[Any], after: Any, before: Any) -> tuple[list[Any], bool]:
    """The keys of the page in order, and whether there are more in that direction. Nothing is left of the list.

    What can't be on the page any more is left out by one comparison, in whatever order they come: a heap of the last
    ones would take in each key of a table that has grown in the order of its keys.
    """
    backward = before is not None
    if not backward:
        keys.reverse()  # They are taken from the end, and most tables grow in the order of their keys.
    found: list[Any] = []
    bound: Any = None
    while keys:
        part = keys[-KEYS_AT_ONCE:]
        del keys[-KEYS_AT_ONCE:]
        found += _below(part, before, bound) if backward else _above(part, after, bound)
        found.sort(reverse=backward)
        del found[PAGE_ROWS + 1 :]
        if len(found) > PAGE_ROWS:
            bound = found[-1]
    page = found[:PAGE_ROWS]
    return page[::-1] if backward else page, len(found) > PAGE_ROWS


def _above(keys: list[Any], after: Any, bound: Any) -> list[Any]:
    """The keys behind one, as far as the page may still reach. None is no bound."""
    if bound is not None:
        return [key for key in keys if key < bound and (after is None or key > after)]
    return keys if after is None else [key for key in keys if key > after]


def _below(keys: list[Any], before: Any, bound: Any) -> list[Any]:
    """The same before one."""
    return [key for key in keys if (bound is None or key > bound) and key < before]


async def page_by_index(look: Look, feature: str, name: str, index: str, *, offset: int) -> RowPage:
    """The rows in the order of an index, from a number on.

    Raises:
        NotFound: there is no such table or index.
    """

    def find(state: AppState) -> tuple[Table[Any, Any], list[Any]]:
        table = table_of(state, feature, name)
        if index not in table.index_names:
            raise NotFound(f"{feature}/{name} has no index {index!r}.")
        return table, table.find(index, offset=offset, limit=PAGE_ROWS + 1)

    table, rows = await look(find)
    return RowPage(
        tuple((key_of(table, row), row) for row in rows[:PAGE_ROWS]),
        previous=str(max(0, offset - PAGE_ROWS)) if offset else None,
        next=str(offset + PAGE_ROWS) if len(rows) > PAGE_ROWS else None,
    )


def key_of(table: Table[Any, Any], row: Any) -> Any:
    """The key of a row."""
    values = tuple(getattr(row, field) for field in table.key_fields)
    return values[0] if len(values) == 1 else values


def write_key(key: Any) -> str:
    """A key as text: JSON, whatever its type."""
    return msgspec.json.encode(key).decode()


def read_key(table: Table[Any, Any], text: str) -> Any:
    """The key that a text stands for: JSON, or the bare text for a key that is one.

    Raises:
        NotFound: no key of the table can be that.
    """
    kinds = {field.name: field.type for field in msgspec.structs.fields(table.row_type)}
    types = tuple(kinds[name] for name in table.key_fields)
    kind = types[0] if len(types) == 1 else tuple[types]  # type: ignore[valid-type]  # a type at run time
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeError):
        pass
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise NotFound(f"No key of {table.name} can be {text[:100]!r}: it is made of {table.key_fields}.") from error


async def row_at(look: Look, feature: str, name: str, key: str) -> tuple[Any, Any]:
    """A key and its row.

    Raises:
        NotFound: there is none.
    """

    def find(state: AppState) -> tuple[Any, Any]:
        table = table_of(state, feature, name)
        wanted = read_key(table, key)
        row = table.get(wanted)
        if row is None:
            raise NotFound(f"{feature}/{name} has no row {key[:100]}.")
        return wanted, row

    return await look(find)

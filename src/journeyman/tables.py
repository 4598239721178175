"""State: tables of frozen rows, in memory, that can be undone, indexed, hashed and encoded.

All features' tables share one undo list, so a batch of commands is taken back as one. Everything a table tells is
the same in every process that applied the same messages: iteration is in key order, never in insertion order, which
an undone delete would change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, ClassVar, Final, Generic, TypeVar, cast

import msgspec
from msgspec import inspect
from sortedcontainers import SortedList

from journeyman.errors import DefinitionError

K = TypeVar("K")
R = TypeVar("R", bound=msgspec.Struct)

#: Stands in the undo list for "there was no row".
_ABSENT: Final = cast(Any, object())

_encoder = msgspec.json.Encoder(order="deterministic")


class UndoList:
    """What to put back, newest last: (table, key, the row that was there)."""

    __slots__ = ("entries",)

    def __init__(self) -> None:
        self.entries: list[tuple[Table[Any, Any], Any, Any]] = []

    def mark(self) -> int:
        """A point to undo to."""
        return len(self.entries)

    def undo(self, mark: int = 0) -> None:
        """Put back everything that changed since the mark."""
        entries = self.entries
        while len(entries) > mark:
            table, key, row = entries.pop()
            table._restore(key, row)

    def forget(self) -> None:
        """Keep what changed: there is no way back any more."""
        self.entries.clear()


class Table(Generic[K, R]):
    """Rows by key. Declared in the body of a State; each State instance has its own rows.

    Args:
        row: the row type: a frozen msgspec.Struct of immutable fields, at every depth.
        key: the field, or tuple of fields, that identifies a row.
        index: named sorted indexes: the fields they sort by, for `find` and `count`.
        unique: named unique indexes: the fields that no two rows may share, for `by`. None is shared by many.

    Raises:
        DefinitionError: the row type is mutable somewhere, or a field does not exist.
    """

    def __init__(
        self,
        row: type[R],
        *,
        key: str | tuple[str, ...],
        index: Mapping[str, tuple[str, ...]] | None = None,
        unique: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.row_type = row
        self._key_fields = key
        self._index_fields = dict(index or {})
        self._unique_fields = dict(unique or {})
        _check_fields(self)
        _check_frozen(row)
        self._key_of: Callable[[Any], Any] = attrgetter(*_as_tuple(key))
        self._become_empty(UndoList())

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def _become_empty(self, undo: UndoList) -> None:
        self._undo = undo.entries
        self._rows: dict[K, R] = {}
        self._sorted = {name: _SortedIndex(self.row_type, fields) for name, fields in self._index_fields.items()}
        self._unique = {name: _UniqueIndex(name, fields) for name, fields in self._unique_fields.items()}
        self._indexes: tuple[_SortedIndex | _UniqueIndex, ...] = (*self._unique.values(), *self._sorted.values())

    def _fresh(self, undo: UndoList) -> Table[K, R]:
        """An empty table of the same declaration."""
        table: Table[K, R] = object.__new__(type(self))
        table.__dict__.update(self.__dict__)
        table._become_empty(undo)
        return table

    # What commands write.

    def put(self, row: R) -> None:
        """Insert the row, or replace the one with its key.

        Raises:
            TypeError: it is not a row of this table.
            ValueError: another row has the same value in a unique index; check with `by` in `validate`.
        """
        if type(row) is not self.row_type:
            raise TypeError(f"{self.name} holds {self.row_type.__name__} rows, not {type(row).__name__}.")
        key = self._key_of(row)
        old = self._rows.get(key, cast(R, _ABSENT))
        for unique in self._unique.values():
            unique.check(key, row)
        self._undo.append((self, key, old))
        self._replace(key, old, row)

    def delete(self, key: K) -> None:
        """Remove the row with this key.

        Raises:
            KeyError: there is none.
        """
        old = self._rows[key]
        self._undo.append((self, key, old))
        self._replace(key, old, _ABSENT)

    def _restore(self, key: K, row: R) -> None:
        self._replace(key, self._rows.get(key, _ABSENT), row)

    def _replace(self, key: K, old: R, new: R) -> None:
        for index in self._indexes:
            index.replace(key, old, new)
        if new is _ABSENT:
            del self._rows[key]
        else:
            self._rows[key] = new

    # What commands and queries read.

    def get(self, key: K) -> R | None:
        """The row with this key, or None."""
        return self._rows.get(key)

    def __getitem__(self, key: K) -> R:
        return self._rows[key]

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[R]:
        """All rows in key order. Sorts all keys: for more than a glance, declare an index."""
        rows = self._rows
        return (rows[key] for key in sorted(rows))  # type: ignore[type-var]  # keys are strings, ints or tuples of them

    def by(self, unique: str, *values: object) -> R | None:
        """The one row with these values in the unique index, or None."""
        key = self._unique[unique].keys.get(values, _ABSENT)
        return None if key is _ABSENT else self._rows[key]

    def find(
        self, index: str, *values: object, reverse: bool = False, offset: int = 0, limit: int | None = None
    ) -> list[R]:
        """Rows whose first index fields have these values, sorted by the index's other fields and then by key.

        Finding costs the logarithm of the table's size, plus the rows returned.
        """
        return list(self.scan(index, *values, reverse=reverse, offset=offset, limit=limit))

    def scan(
        self, index: str, *values: object, reverse: bool = False, offset: int = 0, limit: int | None = None
    ) -> Iterator[R]:
        """Like `find`, one at a time: for a search that stops early. Don't change the table meanwhile."""
        rows = self._rows
        for key in self._sorted[index].keys(values, reverse=reverse, offset=offset, limit=limit):
            yield rows[key]

    def count(self, index: str, *values: object) -> int:
        """How many rows have these values in the first index fields."""
        start, stop = self._sorted[index].span(values)
        return stop - start

    # Snapshots and comparison.

    def encode(self) -> bytes:
        """All rows in key order, as a JSON array."""
        return _encoder.encode(list(self))

    def load(self, data: bytes) -> None:
        """Replace everything by what `encode` gave. Not undone."""
        rows = msgspec.json.decode(data, type=list[self.row_type])  # type: ignore[name-defined]  # a type at run time
        undo = UndoList()
        undo.entries = self._undo
        self._become_empty(undo)
        for row in rows:
            self._replace(self._key_of(row), _ABSENT, row)


class State:
    """The tables of one feature, declared in the class body. Nothing else can be kept in it."""

    _declared: ClassVar[dict[str, Table[Any, Any]]] = {}

    #: The state of the whole application, which this is a part of.
    _app: AppState

    def __init_subclass__(cls) -> None:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, Table)}
        cls._declared = {**cls._declared, **declared}

    def __init__(self, app: AppState | None = None) -> None:
        app = app if app is not None else AppState({})
        object.__setattr__(self, "_app", app)
        for name, table in self._declared.items():
            object.__setattr__(self, name, table._fresh(app.undo))

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(
            f"{type(self).__name__}.{name} can't be set: state lives in tables, which can be undone. "
            f"Declare a Table for it."
        )

    def tables(self) -> dict[str, Table[Any, Any]]:
        """The tables by name."""
        return {name: getattr(self, name) for name in sorted(self._declared)}


class AppState:
    """All features' states: one unit, undone and compared as one."""

    __slots__ = ("features", "undo")

    def __init__(self, states: Mapping[str, type[State]]) -> None:
        self.undo = UndoList()
        self.features: dict[str, State] = {name: state(self) for name, state in states.items()}

    def hash(self) -> str:
        """A digest that is equal for two processes exactly when all their rows are."""
        digest = hashlib.blake2b(digest_size=16)
        for feature, state in sorted(self.features.items()):
            for name, table in state.tables().items():
                digest.update(f"{feature}/{name}/{len(table)}:".encode())
                digest.update(table.encode())
        return digest.hexdigest()


class _Highest:
    """Sorts after everything."""

    __slots__ = ()

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


_HIGHEST: Final = _Highest()


class _SortedIndex:
    """Tuples of (the fields' values …, key), sorted. A field that may be None is wrapped, so that None sorts first."""

    def __init__(self, row_type: type[msgspec.Struct], fields: tuple[str, ...]) -> None:
        optional = _optional_fields(row_type)
        self._values = attrgetter(*fields)
        self._single = len(fields) == 1
        self._wrapped = tuple(number for number, name in enumerate(fields) if name in optional)
        self._entries: SortedList[Any] = SortedList()

    def replace(self, key: Any, old: Any, new: Any) -> None:
        before = None if old is _ABSENT else self._entry(key, old)
        after = None if new is _ABSENT else self._entry(key, new)
        if before == after:
            return
        if before is not None:
            self._entries.remove(before)
        if after is not None:
            self._entries.add(after)

    def keys(self, values: tuple[object, ...], *, reverse: bool, offset: int, limit: int | None) -> Iterator[Any]:
        start, stop = self.span(values)
        start, stop = (start, stop - offset) if reverse else (start + offset, stop)
        entries = self._entries.islice(start, max(start, stop), reverse)
        return (entry[-1] for entry in islice(entries, limit))

    def span(self, values: tuple[object, ...]) -> tuple[int, int]:
        prefix = self._wrap(values)
        return self._entries.bisect_left(prefix), self._entries.bisect_left((*prefix, _HIGHEST))

    def _entry(self, key: Any, row: Any) -> tuple[Any, ...]:
        values = self._values(row)
        return (*self._wrap((values,) if self._single else values), key)

    def _wrap(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self._wrapped:
            return values
        wrapped = list(values)
        for number in self._wrapped:
            if number < len(wrapped):
                value = wrapped[number]
                wrapped[number] = (0,) if value is None else (1, value)
        return tuple(wrapped)


class _UniqueIndex:
    """Values to key; a row with None among its values is not in it."""

    def __init__(self, name: str, fields: tuple[str, ...]) -> None:
        self.name = name
        self.fields = fields
        self.keys: dict[tuple[Any, ...], Any] = {}

    def check(self, key: Any, row: Any) -> None:
        values = self._values(row)
        if None not in values and self.keys.get(values, key) != key:
            raise ValueError(f"{self.name} is unique, and another row has {values!r}.")

    def replace(self, key: Any, old: Any, new: Any) -> None:
        if old is not _ABSENT:
            values = self._values(old)
            if None not in values:
                del self.keys[values]
        if new is not _ABSENT:
            values = self._values(new)
            if None not in values:
                self.keys[values] = key

    def _values(self, row: Any) -> tuple[Any, ...]:
        return tuple(getattr(row, name) for name in self.fields)


def _as_tuple(fields: str | tuple[str, ...]) -> tuple[str, ...]:
    return (fields,) if isinstance(fields, str) else fields


def _check_fields(table: Table[Any, Any]) -> None:
    known = table.row_type.__struct_fields__
    wanted = [_as_tuple(table._key_fields), *table._index_fields.values(), *table._unique_fields.values()]
    for fields in wanted:
        if not isinstance(fields, tuple) or not fields:  # type: ignore[redundant-expr]  # people forget the comma
            raise DefinitionError(f"An index names its fields in a tuple, like ('status',), not {fields!r}.")
        for name in fields:
            if name not in known:
                raise DefinitionError(
                    f"{table.row_type.__name__} has no field {name!r} to index by. It has: {', '.join(known)}."
                )


def _optional_fields(row_type: type[msgspec.Struct]) -> frozenset[str]:
    info = cast(inspect.StructType, inspect.type_info(row_type))
    return frozenset(
        field.name for field in info.fields if isinstance(field.type, inspect.UnionType) and field.type.includes_none
    )


_MUTABLE = {
    inspect.ListType: "a list (use a tuple)",
    inspect.DictType: "a dict (use a table of its own, or a tuple of pairs)",
    inspect.SetType: "a set (use a frozenset)",
    inspect.ByteArrayType: "a bytearray (use bytes)",
    inspect.MemoryViewType: "a memoryview (use bytes)",
    inspect.CollectionType: "a collection of any kind (use a tuple)",
    inspect.TypedDictType: "a TypedDict (use a frozen Struct)",
    inspect.AnyType: "Any, which can be mutable (name its type)",
    inspect.CustomType: "a type that can't be checked (use a frozen Struct)",
}


def _check_frozen(row_type: type[Any]) -> None:
    """Refuse a type that could be changed in place: such a change would survive an undo."""
    info = inspect.type_info(row_type)
    if not isinstance(info, inspect.StructType):
        raise DefinitionError(f"A table's rows are frozen msgspec.Structs; {row_type!r} is none.")
    _check_type(info, row_type.__name__, seen=set())


def _check_type(info: inspect.Type, path: str, *, seen: set[type[Any]]) -> None:
    for kind, what in _MUTABLE.items():
        if isinstance(info, kind):
            raise DefinitionError(
                f"{path} is {what}: a row must be immutable at every depth, or undo would miss a change."
            )
    if isinstance(info, inspect.StructType | inspect.DataclassType):
        _check_record(info, path, seen=seen)
    for name in ("item_type", "item_types", "types"):
        inner = getattr(info, name, ())
        for item in inner if isinstance(inner, tuple) else (inner,):
            _check_type(item, path, seen=seen)
    if isinstance(info, inspect.NamedTupleType):
        for field in info.fields:
            _check_type(field.type, f"{path}.{field.name}", seen=seen)


def _check_record(info: inspect.StructType | inspect.DataclassType, path: str, *, seen: set[type[Any]]) -> None:
    if info.cls in seen:
        return
    seen.add(info.cls)
    if isinstance(info, inspect.StructType):
        frozen = info.cls.__struct_config__.frozen
    else:
        frozen = cast(Any, info.cls).__dataclass_params__.frozen
    if not frozen:
        raise DefinitionError(f"{path} ({info.cls.__name__}) is not frozen: declare it with frozen=True.")
    for field in info.fields:
        _check_type(field.type, f"{path}.{field.name}", seen=seen)

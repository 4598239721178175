"""State: tables of frozen rows, in memory, that can be undone, indexed, hashed and encoded.

All features' tables share one undo list, so a batch of commands is taken back as one. Everything a table tells is
the same in every process that applied the same messages: iteration is in key order, never in insertion order, which
an undone delete would change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Final, Generic, TypeVar, cast, get_origin

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
    """What to put back, newest last: (table, key, the row that was there). `entries` stays the same list."""

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
        key: the field, or tuple of fields, that identifies a row. Its values have an order, and are never None.
        index: named sorted indexes: the fields they sort by, for `find` and `count`. Their values have an order; None
            comes first.
        unique: named unique indexes: the fields that no two rows may share, for `by`. None is shared by many.
        sparse: names of sorted indexes that leave out rows with None in one of their fields, as unique ones do: who
            never looks for those rows need not pay for their places.

    Raises:
        DefinitionError: the row type is mutable somewhere, or a field does not exist or has no order.
    """

    def __init__(
        self,
        row: type[R],
        *,
        key: str | tuple[str, ...],
        index: Mapping[str, tuple[str, ...]] | None = None,
        unique: Mapping[str, tuple[str, ...]] | None = None,
        sparse: Collection[str] = (),
    ) -> None:
        self.row_type = row
        self._key_fields = (key,) if isinstance(key, str) else key
        self._index_fields = dict(index or {})
        self._unique_fields = dict(unique or {})
        self._sparse = frozenset(sparse)
        _check_frozen(row)
        _check_fields(self)
        self._key_of: Callable[[Any], Any] = attrgetter(*self._key_fields)
        self._decode = msgspec.json.Decoder(list[row]).decode  # type: ignore[valid-type]  # a type at run time
        self._become_empty(UndoList())

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def _become_empty(self, undo: UndoList) -> None:
        self._undo = undo
        self._note = undo.entries.append
        self._rows: dict[K, R] = {}
        self._sorted = {
            name: _SortedIndex(self.row_type, fields, sparse=name in self._sparse)
            for name, fields in self._index_fields.items()
        }
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
        """Insert the row, or replace the one with its key. What is refused changes nothing.

        Raises:
            TypeError: it is not a row of this table.
            ValueError: another row has the same value in a unique index; check with `by` in `validate`.
        """
        if type(row) is not self.row_type:
            raise TypeError(f"{self.name} holds {self.row_type.__name__} rows, not {type(row).__name__}.")
        key = self._key_of(row)
        rows = self._rows
        old: R = rows.get(key, _ABSENT)
        if self._indexes:
            self._reindex(key, old, row)
        rows[key] = row
        self._note((self, key, old))

    def delete(self, key: K) -> None:
        """Remove the row with this key.

        Raises:
            KeyError: there is none.
        """
        old = self._rows[key]
        self._reindex(key, old, _ABSENT)
        del self._rows[key]
        self._note((self, key, old))

    def _restore(self, key: K, row: R) -> None:
        self._reindex(key, self._rows.get(key, _ABSENT), row)
        if row is _ABSENT:
            del self._rows[key]
        else:
            self._rows[key] = row

    def _reindex(self, key: K, old: R, new: R) -> None:
        """Change all indexes; when one refuses the row, none. A half-changed index could never be undone."""
        done = 0
        try:
            for index in self._indexes:
                index.replace(key, old, new)
                done += 1
        except BaseException:
            for index in self._indexes[:done]:
                index.replace(key, new, old)
            raise

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
        """The one row with these values in the unique index, or None.

        Raises:
            TypeError: the index has another number of fields.
        """
        index = self._unique[unique]
        if len(values) != len(index.fields):
            raise TypeError(f"{self.name}.by({unique!r}, …) needs a value for each of {', '.join(index.fields)}.")
        key = index.keys.get(values, _ABSENT)
        return None if key is _ABSENT else self._rows[key]

    def find(
        self, index: str, *values: object, reverse: bool = False, offset: int = 0, limit: int | None = None
    ) -> list[R]:
        """Rows whose first index fields have these values, sorted by the index's other fields and then by key.

        Finding costs the logarithm of the table's size, plus the rows returned.

        Raises:
            TypeError: there are more values than the index has fields.
            ValueError: offset or limit is negative.
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

    def keys(self) -> list[K]:
        """All keys, in no order: a copy that nothing changes any more."""
        return list(self._rows)

    def items(self) -> list[tuple[K, R]]:
        """All keys with their rows, in no order: a copy that nothing changes any more."""
        return list(self._rows.items())

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The fields that make the key. One alone is the key itself, several are a tuple of them."""
        return self._key_fields

    @property
    def index_names(self) -> tuple[str, ...]:
        """The names of the sorted indexes, for `find`."""
        return tuple(self._index_fields)

    def rows(self) -> list[R]:
        """All rows, in no order: a copy that nothing changes any more."""
        return list(self._rows.values())

    def encode_rows(self, rows: list[R]) -> bytes:
        """Some rows as a JSON array that `decode_rows` takes.

        Raises:
            TypeError: a row has a value that its type does not allow, such as NaN.
        """
        data = _encoder.encode(rows)
        try:
            # As their types say, not as they were built: 1 in a field for floats is 1.0, here and once it is loaded.
            return _encoder.encode(self._decode(data))
        except msgspec.ValidationError as error:
            raise TypeError(f"{self.name} has a row that does not fit {self.row_type.__name__}: {error}") from error

    def encode(self) -> bytes:
        """All rows in key order, as a JSON array.

        Raises:
            TypeError: a row has a value that its type does not allow, such as NaN.
        """
        return self.encode_rows(list(self))

    def decode_rows(self, data: bytes) -> list[R]:
        """The rows of what `encode_rows` gave.

        Raises:
            msgspec.DecodeError: they are no rows of this table.
        """
        return self._decode(data)

    def load(self, rows: Iterable[R]) -> None:
        """Replace everything by these rows. Not undone.

        Raises:
            ValueError: two rows have the same values in a unique index, or a value has no place in an order.
        """
        self._become_empty(self._undo)
        self._rows = {self._key_of(row): row for row in rows}
        for index in self._indexes:
            index.load(self._rows)


class State:
    """The tables of one feature, declared in the class body. Nothing else can be kept in it."""

    _declared: ClassVar[dict[str, Table[Any, Any]]] = {}

    #: The state of the whole application, which this is a part of.
    _app: AppState

    def __init_subclass__(cls) -> None:
        declared = {name: value for name, value in vars(cls).items() if isinstance(value, Table)}
        for name, value in vars(cls).items():
            if isinstance(value, list | dict | set | bytearray) and not name.startswith("__"):
                raise DefinitionError(f"{cls.__name__}.{name} could change and not be undone: declare a Table for it.")
        for name in declared.keys() & vars(State).keys():
            raise DefinitionError(f"{cls.__name__}.{name}: a table can't have this name, State uses it itself.")
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
    """Tuples of (the fields' values …, key), sorted. A field that may be None is wrapped, so that None sorts first.

    In a sparse index there is no None, and so nothing to wrap.
    """

    def __init__(self, row_type: type[msgspec.Struct], fields: tuple[str, ...], *, sparse: bool) -> None:
        types = _field_types(row_type)
        bare = [_without_none(types[name]) for name in fields]
        self.fields = fields
        self._values = attrgetter(*fields)
        self._single = len(fields) == 1
        self._sparse = sparse
        self._wrapped = tuple(number for number, (_, optional) in enumerate(bare) if optional and not sparse)
        self._numbers = tuple(number for number, (kind, _) in enumerate(bare) if isinstance(kind, _NUMBERS))
        self._entries: SortedList[Any] = SortedList()

    def replace(self, key: Any, old: Any, new: Any) -> None:
        before = None if old is _ABSENT else self._entry(key, old)
        after = None if new is _ABSENT else self._entry(key, new)
        if before == after:
            return
        # What can fail goes first: a value of another type has no place among the others.
        if after is not None:
            self._entries.add(after)
        if before is not None:
            self._entries.remove(before)

    def load(self, rows: Mapping[Any, Any]) -> None:
        """Fill the empty index. All at once: to add them one by one takes several times as long."""
        entries = (self._entry(key, row) for key, row in rows.items())
        self._entries = SortedList(entry for entry in entries if entry is not None)

    def keys(self, values: tuple[object, ...], *, reverse: bool, offset: int, limit: int | None) -> Iterator[Any]:
        if offset < 0 or (limit is not None and limit < 0):
            raise ValueError(f"The offset is {offset}, the limit {limit}; neither may be negative.")
        start, stop = self.span(values)
        # The limit narrows the slice itself: a slice of the whole index costs the length of the index.
        if reverse:
            stop -= offset
            start = start if limit is None else max(start, stop - limit)
        else:
            start += offset
            stop = stop if limit is None else min(stop, start + limit)
        return (entry[-1] for entry in self._entries.islice(start, max(start, stop), reverse))

    def span(self, values: tuple[object, ...]) -> tuple[int, int]:
        if len(values) > len(self.fields):
            raise TypeError(f"{len(values)} values are given for an index of {', '.join(self.fields)}.")
        if not values:
            return 0, len(self._entries)
        if self._sparse and None in values:
            raise TypeError(f"Rows without a value are not in the sparse index of {', '.join(self.fields)}.")
        prefix = self._wrap(values)
        return self._entries.bisect_left(prefix), self._entries.bisect_left((*prefix, _HIGHEST))

    def _entry(self, key: Any, row: Any) -> tuple[Any, ...] | None:
        values = (self._values(row),) if self._single else self._values(row)
        if self._sparse and None in values:
            return None
        for number in self._numbers:
            if values[number] != values[number]:
                raise ValueError(f"{self.fields[number]} is NaN, which has no place in an order.")
        return (*self._wrap(values), key)

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
        self._values = attrgetter(*fields)
        self._single = len(fields) == 1

    def replace(self, key: Any, old: Any, new: Any) -> None:
        before = None if old is _ABSENT else self._entry(old)
        after = None if new is _ABSENT else self._entry(new)
        if before == after:
            return
        if after is not None:
            if after in self.keys:
                raise ValueError(f"{self.name} is unique, and another row has {after!r}.")
            self.keys[after] = key
        if before is not None:
            del self.keys[before]

    def load(self, rows: Mapping[Any, Any]) -> None:
        """Fill the empty index."""
        for key, row in rows.items():
            self.replace(key, _ABSENT, row)

    def _entry(self, row: Any) -> tuple[Any, ...] | None:
        values = (self._values(row),) if self._single else self._values(row)
        return None if None in values else values


# What a row type must be.

#: Types whose values, each with each, have an order.
_ORDERED = (
    inspect.StrType,
    inspect.IntType,
    inspect.BoolType,
    inspect.BytesType,
    inspect.UUIDType,
    inspect.DateType,
    inspect.TimeDeltaType,
)

#: Types that have an order but for NaN: an index refuses that one value.
_NUMBERS = (inspect.FloatType, inspect.DecimalType)


def _check_fields(table: Table[Any, Any]) -> None:
    indexes = table._index_fields.values()
    for fields in (table._key_fields, *indexes, *table._unique_fields.values()):
        _check_names(table.row_type, fields)
    types = _field_types(table.row_type)
    for name in table._key_fields:
        if not _is_ordered(types[name]):
            raise DefinitionError(_NO_ORDER.format(table.row_type.__name__, name, "a key"))
    if unknown := table._sparse - table._index_fields.keys():
        raise DefinitionError(f"{table.row_type.__name__} has no sorted index {min(unknown)} that could be sparse.")
    for name in (name for fields in indexes for name in fields):
        kind, _ = _without_none(types[name])
        if not (_is_ordered(kind) or isinstance(kind, _NUMBERS)):
            raise DefinitionError(_NO_ORDER.format(table.row_type.__name__, name, "an index"))


_NO_ORDER: Final = (
    "{}.{} can't be in {}: not all its values have an order. Use str, int, a StrEnum, date, datetime with "
    "Meta(tz=True), or tuples of these; None and float in an index only."
)


def _check_names(row_type: type[msgspec.Struct], fields: object) -> None:
    known = row_type.__struct_fields__
    if not isinstance(fields, tuple) or not fields:
        raise DefinitionError(f"An index names its fields in a tuple, like ('status',), not {fields!r}.")
    for name in fields:
        if name not in known:
            raise DefinitionError(f"{row_type.__name__} has no field {name!r} to index by. It has: {', '.join(known)}.")


def _field_types(row_type: type[msgspec.Struct]) -> dict[str, inspect.Type]:
    info = cast(inspect.StructType, inspect.type_info(row_type))
    return {field.name: field.type for field in info.fields}


def _without_none(info: inspect.Type) -> tuple[inspect.Type, bool]:
    """The type of the values that are not None, and whether None is one."""
    if isinstance(info, inspect.Metadata):
        return _without_none(info.type)
    if isinstance(info, inspect.UnionType) and info.includes_none:
        types = tuple(kind for kind in info.types if not isinstance(kind, inspect.NoneType))
        return (types[0] if len(types) == 1 else inspect.UnionType(types)), True
    if isinstance(info, inspect.LiteralType) and None in info.values:
        return inspect.LiteralType(tuple(value for value in info.values if value is not None)), True
    return info, False


def _is_ordered(info: inspect.Type) -> bool:
    """Whether any two values of the type can be compared, so that they have one order in every process."""
    match info:
        case inspect.Metadata():
            return _is_ordered(info.type)
        case inspect.DateTimeType() | inspect.TimeType():
            return info.tz is not None  # one with and one without a zone can't be compared
        case inspect.EnumType():
            return issubclass(info.cls, str | int)
        case inspect.LiteralType():
            return len({type(value) for value in info.values}) == 1
        case inspect.TupleType():
            return all(map(_is_ordered, info.item_types))
        case inspect.VarTupleType():
            return _is_ordered(info.item_type)
    return isinstance(info, _ORDERED)


_MUTABLE: Final[Mapping[type[inspect.Type], str]] = {
    inspect.ListType: "a list (use a tuple)",
    inspect.DictType: "a dict (use a table of its own, or a tuple of pairs)",
    inspect.SetType: "a set (use a frozenset)",
    inspect.ByteArrayType: "a bytearray (use bytes)",
    inspect.MemoryViewType: "a memoryview (use bytes)",
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


def _check_type(info: inspect.Type, path: str, *, seen: set[Any]) -> None:
    # By the type itself: the frozen collections and the others are subclasses of one.
    if what := _MUTABLE.get(type(info)):
        raise DefinitionError(f"{path} is {what}: a row must be immutable at every depth, or undo would miss a change.")
    if isinstance(info, inspect.FrozenSetType) and not _is_ordered(info.item_type):
        raise DefinitionError(f"{path} is a frozenset of what has no order, so processes can't be compared by it.")
    if isinstance(info, inspect.StructType | inspect.DataclassType | inspect.NamedTupleType):
        _check_record(info, path, seen=seen)
        return
    for inner in _inner_types(info):
        _check_type(inner, path, seen=seen)


def _inner_types(info: inspect.Type) -> Iterator[inspect.Type]:
    """The types that a type is made of: items, members of a union, what Annotated annotates."""
    for name in info.__struct_fields__:
        value = getattr(info, name)
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, inspect.Type):
                yield inner


def _check_record(
    info: inspect.StructType | inspect.DataclassType | inspect.NamedTupleType, path: str, *, seen: set[Any]
) -> None:
    if info.cls in seen:
        return
    seen.add(info.cls)
    # A generic class comes with its parameters, Box[int], and may be seen again with others.
    cls: Any = get_origin(info.cls) or info.cls
    if not _is_frozen(cls):
        raise DefinitionError(f"{path} ({cls.__name__}) is not frozen: declare it with frozen=True.")
    for field in info.fields:
        _check_type(field.type, f"{path}.{field.name}", seen=seen)


def _is_frozen(cls: Any) -> bool:
    if issubclass(cls, tuple):
        return True
    if issubclass(cls, msgspec.Struct):
        return bool(cls.__struct_config__.frozen)
    # None is for classes of attrs, which don't tell.
    return bool(getattr(getattr(cls, "__dataclass_params__", None), "frozen", False))

"""A table is what its rows say and nothing else: not how they came in, and nothing of what was undone."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import Meta as Constraint

from journeyman.errors import DefinitionError
from journeyman.tables import AppState, State, Table

T = TypeVar("T")


class Row(msgspec.Struct, frozen=True):
    shelf: str
    number: int
    status: Literal["draft", "published"] | None = None
    score: float = 0.0
    slug: str | None = None
    tags: frozenset[str] = frozenset()


class Shelves(State):
    rows: Table[tuple[str, int], Row] = Table(
        Row,
        key=("shelf", "number"),
        index={"status": ("status", "score"), "shelf": ("shelf",), "written": ("status", "slug", "score")},
        unique={"slug": ("slug",), "place": ("shelf", "status", "slug")},
        sparse=["written"],
    )


class Name(msgspec.Struct, frozen=True):
    name: str


class Names(State):
    names: Table[str, Name] = Table(Name, key="name")


def make_state() -> tuple[AppState, Shelves, Names]:
    app = AppState({"shelves": Shelves, "names": Names})
    shelves, names = app.features["shelves"], app.features["names"]
    assert isinstance(shelves, Shelves)
    assert isinstance(names, Names)
    return app, shelves, names


rows = st.builds(
    Row,
    shelf=st.sampled_from("ab"),
    number=st.integers(0, 3),
    status=st.sampled_from(["draft", "published", None]),
    score=st.sampled_from([0, 0.5, 1]),
    slug=st.none() | st.sampled_from("xyz"),
    tags=st.frozensets(st.sampled_from("pqr")),
)

Key = tuple[str, int]


class AgainstAModel(RuleBasedStateMachine):
    """Two tables of two features and their indexes, beside two dicts that are copied at each mark."""

    @initialize()
    def begin(self) -> None:
        self.app, self.shelves, self.names = make_state()
        self.model: dict[Key, Row] = {}
        self.model_names: set[str] = set()
        self.marks: list[tuple[int, dict[Key, Row], set[str]]] = [(0, {}, set())]

    @rule(row=rows)
    def put(self, row: Row) -> None:
        key = (row.shelf, row.number)
        if any(other.slug == row.slug is not None for at, other in self.model.items() if at != key):
            with pytest.raises(ValueError, match="unique"):
                self.shelves.rows.put(row)
        else:
            self.shelves.rows.put(row)
            self.model[key] = row

    @rule(shelf=st.sampled_from("ab"), number=st.integers(0, 3))
    def delete(self, shelf: str, number: int) -> None:
        key = (shelf, number)
        if key in self.model:
            self.shelves.rows.delete(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.shelves.rows.delete(key)

    @rule(name=st.sampled_from("mn"))
    def name(self, name: str) -> None:
        self.names.names.put(Name(name))
        self.model_names.add(name)

    @rule()
    def mark(self) -> None:
        self.marks.append((self.app.undo.mark(), self.model.copy(), self.model_names.copy()))

    @rule(back=st.integers(0, 3))
    def undo(self, back: int) -> None:
        back = min(back, len(self.marks) - 1)
        del self.marks[len(self.marks) - back :]
        mark, model, names = self.marks[-1]
        self.app.undo.undo(mark)
        self.model, self.model_names = model.copy(), names.copy()

    @rule()
    def forget(self) -> None:
        self.app.undo.forget()
        self.marks = [(0, self.model.copy(), self.model_names.copy())]

    @invariant()
    def rows_are_the_models_in_key_order(self) -> None:
        table = self.shelves.rows
        assert list(table) == [self.model[key] for key in sorted(self.model)]
        assert len(table) == len(self.model)
        assert [one.name for one in self.names.names] == sorted(self.model_names)
        for shelf in "ab":
            for number in range(4):
                assert table.get((shelf, number)) == self.model.get((shelf, number))
                assert ((shelf, number) in table) == ((shelf, number) in self.model)

    @invariant()
    def indexes_find_what_a_search_through_all_rows_finds(self) -> None:
        table = self.shelves.rows
        for status in ("draft", "published", None):
            wanted = sorted(
                (row for row in self.model.values() if row.status == status),
                key=lambda row: (row.score, row.shelf, row.number),
            )
            assert table.find("status", status) == wanted
            assert table.find("status", status, reverse=True) == wanted[::-1]
            assert table.find("status", status, offset=1, limit=2) == wanted[1:3]
            assert table.find("status", status, reverse=True, offset=1, limit=2) == wanted[::-1][1:3]
            assert table.count("status", status) == len(wanted)
            assert table.count("status", status, 0.5) == sum(row.score == 0.5 for row in wanted)
        everything = sorted(self.model.values(), key=lambda row: (row.status or "", row.score, row.shelf, row.number))
        assert table.find("status") == everything

    @invariant()
    def a_sparse_index_has_the_rows_in_which_nothing_of_it_is_none(self) -> None:
        table = self.shelves.rows
        written = [row for row in self.model.values() if row.status is not None and row.slug is not None]
        written.sort(key=lambda row: (row.status, row.slug))  # A slug is one row's: what follows decides nothing.
        assert table.find("written") == written
        for status in ("draft", "published"):
            wanted = [row for row in written if row.status == status]
            assert table.find("written", status) == wanted
            assert table.count("written", status, "x") == sum(row.slug == "x" for row in wanted)

    @invariant()
    def unique_indexes_give_the_one_row(self) -> None:
        by_slug = {row.slug: row for row in self.model.values() if row.slug is not None}
        for slug in ("x", "y", "z"):
            assert self.shelves.rows.by("slug", slug) == by_slug.get(slug)
        assert self.shelves.rows.by("slug", None) is None

    @invariant()
    def the_hash_is_that_of_the_same_rows_put_in_another_order(self) -> None:
        app, shelves, names = make_state()
        for row in reversed(self.model.values()):
            shelves.rows.put(row)
        for name in sorted(self.model_names, reverse=True):
            names.names.put(Name(name))
        assert self.app.hash() == app.hash()

    @invariant()
    def a_snapshot_loads_to_an_equal_hash(self) -> None:
        app, shelves, names = make_state()
        shelves.rows.load(shelves.rows.decode_rows(self.shelves.rows.encode()))
        names.names.load(names.names.decode_rows(self.names.names.encode()))
        assert app.hash() == self.app.hash()
        assert list(shelves.rows) == list(self.shelves.rows)
        for index in ("status", "written"):
            assert shelves.rows.find(index) == self.shelves.rows.find(index)


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_an_undone_delete_is_as_if_it_had_never_been() -> None:
    app, shelves, _ = make_state()
    for number in range(3):
        shelves.rows.put(Row("a", number, slug=f"s{number}"))
    before, mark = app.hash(), app.undo.mark()
    shelves.rows.delete(("a", 0))
    shelves.rows.delete(("a", 2))
    app.undo.undo(mark)
    assert app.hash() == before
    assert [row.number for row in shelves.rows] == [0, 1, 2]
    assert [row.number for row in shelves.rows.find("shelf", "a")] == [0, 1, 2]
    assert shelves.rows.by("slug", "s0") == shelves.rows["a", 0]


# What a put may not do.


def test_what_a_unique_index_refuses_changes_nothing_and_can_be_gone_on_from() -> None:
    app, shelves, _ = make_state()
    shelves.rows.put(Row("a", 1, "draft", slug="x"))
    shelves.rows.put(Row("a", 2, "draft", slug="y"))
    before, mark = app.hash(), app.undo.mark()
    with pytest.raises(ValueError, match=r"another row has \('x',\)"):
        shelves.rows.put(Row("a", 2, "published", slug="x"))
    assert (app.hash(), app.undo.mark()) == (before, mark)
    assert [row.number for row in shelves.rows.find("status", "draft")] == [1, 2]
    app.undo.undo()
    assert len(shelves.rows) == 0


@pytest.mark.parametrize("score", [math.nan, "high"])
def test_what_a_sorted_index_refuses_changes_no_index(score: Any) -> None:
    app, shelves, _ = make_state()
    shelves.rows.put(Row("a", 1, "draft", slug="x"))
    shelves.rows.put(Row("a", 2, "draft", slug="y"))
    before = app.hash()
    with pytest.raises((TypeError, ValueError)):
        shelves.rows.put(Row("a", 1, "draft", score, slug="z"))
    assert shelves.rows.by("slug", "z") is None
    assert shelves.rows.by("slug", "x") == Row("a", 1, "draft", slug="x")
    assert app.hash() == before
    app.undo.undo()
    assert len(shelves.rows) == 0
    assert shelves.rows.by("slug", "x") is None


def test_a_row_of_another_type_is_refused() -> None:
    _, shelves, names = make_state()
    with pytest.raises(TypeError, match="rows holds Row rows, not Name"):
        shelves.rows.put(Name("n"))  # type: ignore[arg-type]
    names.names.put(Name("n"))
    assert names.names["n"] == Name("n")


def test_a_question_with_other_fields_than_the_index_has_is_refused() -> None:
    _, shelves, _ = make_state()
    with pytest.raises(TypeError, match="a value for each of shelf, status, slug"):
        shelves.rows.by("place", "a")
    with pytest.raises(TypeError, match="2 values"):
        shelves.rows.find("shelf", "a", 1)
    with pytest.raises(TypeError, match="without a value are not in the sparse index of status, slug, score"):
        shelves.rows.find("written", "draft", None)
    with pytest.raises(ValueError, match="offset"):
        shelves.rows.find("shelf", "a", offset=-1)
    with pytest.raises(ValueError, match="limit"):
        shelves.rows.find("shelf", "a", limit=-1)


def test_only_a_sorted_index_that_is_there_can_be_sparse() -> None:
    with pytest.raises(DefinitionError, match="Row has no sorted index slug that could be sparse"):
        Table(Row, key=("shelf", "number"), unique={"slug": ("slug",)}, sparse=["slug"])


def test_rows_may_be_deleted_while_all_are_looked_at() -> None:
    _, shelves, _ = make_state()
    for number in range(4):
        shelves.rows.put(Row("a", number))
    for row in shelves.rows:
        shelves.rows.delete((row.shelf, row.number))
    assert len(shelves.rows) == 0


def test_numbers_count_as_their_field_says_before_and_after_a_snapshot() -> None:
    app, shelves, _ = make_state()
    shelves.rows.put(Row("a", 1, score=1))
    other, other_shelves, _ = make_state()
    other_shelves.rows.put(Row("a", 1, score=1.0))
    assert app.hash() == other.hash()


def test_a_row_that_does_not_fit_its_type_is_never_in_a_snapshot() -> None:
    _, shelves, _ = make_state()
    shelves.rows.put(Row("a", 1, slug=7))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rows has a row that does not fit Row: Expected `str \| null`, got `int`"):
        shelves.rows.encode()


@given(st.lists(rows, max_size=4), st.lists(rows, max_size=4))
def test_hashes_differ_where_rows_do(some: list[Row], others: list[Row]) -> None:
    app, shelves, _ = make_state()
    other_app, other_shelves, _ = make_state()
    for table, many in ((shelves.rows, some), (other_shelves.rows, others)):
        for row in many:
            table.put(msgspec.structs.replace(row, slug=None))
    assert (app.hash() == other_app.hash()) == (list(shelves.rows) == list(other_shelves.rows))


# What may be declared.


class Frozen(msgspec.Struct, frozen=True):
    value: int
    next: Frozen | None = None


class Unfrozen(msgspec.Struct):
    value: int


class Box(msgspec.Struct, Generic[T], frozen=True):
    value: T


class HoldsList(msgspec.Struct, frozen=True):
    value: tuple[list[int], ...]


@dataclasses.dataclass(frozen=True)
class FrozenData:
    value: int


@dataclasses.dataclass
class UnfrozenData:
    value: int


class Pair(NamedTuple):
    left: int
    right: list[int]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.StrEnum):
    SMALL = "small"
    LARGE = "large"


def row_type(field: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct("Made", [("id", str), ("field", field)], frozen=True)


@pytest.mark.parametrize(
    "field",
    [
        int,
        str | None,
        tuple[int, ...],
        tuple[tuple[str, float], ...],
        frozenset[str],
        frozenset[Size],
        Frozen,
        Box[int] | None,
        FrozenData,
        Colour,
        Literal["a", 1],
        Annotated[str, Constraint(title="T")],
        datetime,
    ],
)
def test_immutable_fields_are_taken(field: Any) -> None:
    Table(row_type(field), key="id")


@pytest.mark.parametrize(
    "field",
    [
        list[int],
        dict[str, int],
        set[int],
        bytearray,
        Sequence[int],
        Any,
        object,
        Unfrozen,
        UnfrozenData,
        HoldsList,
        Pair,
        Box[list[int]],
        tuple[Box[int], Box[dict[str, int]]],
        tuple[int, list[int]],
        tuple[tuple[Unfrozen, ...], ...],
        frozenset[tuple[int, Any]],
        Frozen | list[int] | None,
        Annotated[list[int], Constraint(title="T")],
        Annotated[tuple[Annotated[list[int], Constraint(description="D")], ...], Constraint(title="T")],
        frozenset[Colour],
    ],
)
def test_a_field_that_can_change_in_place_is_refused_at_any_depth(field: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made\.field"):
        Table(row_type(field), key="id")


def test_rows_are_frozen_structs() -> None:
    with pytest.raises(DefinitionError, match="Unfrozen"):
        Table(Unfrozen, key="value")
    with pytest.raises(DefinitionError, match="frozen msgspec"):
        Table(FrozenData, key="value")  # type: ignore[type-var]
    Table(Frozen, key="value")


@pytest.mark.parametrize(
    "field", [int, str, Size, Literal["a", "b"], tuple[str, int], Annotated[int, Constraint(ge=1)]]
)
def test_a_key_is_made_of_what_has_an_order(field: Any) -> None:
    Table(row_type(field), key=("id", "field"), index={"field": ("field",)})


@pytest.mark.parametrize("field", [str | None, float, Literal["a", None], Frozen, int | str, tuple[float, ...]])
def test_a_key_of_what_has_no_order_is_refused(field: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made\.field can't be in a key"):
        Table(row_type(field), key=("id", "field"))


@pytest.mark.parametrize(
    "field",
    [
        float,
        Decimal,
        Size | None,
        Literal["a", None],
        Annotated[str | None, Constraint(title="T")],
        Annotated[datetime, Constraint(tz=True)],
    ],
)
def test_an_index_takes_none_and_numbers_too(field: Any) -> None:
    Table(row_type(field), key="id", index={"field": ("field",)})


@pytest.mark.parametrize(
    "field", [Colour, datetime, int | str, Literal["a", 1], Frozen, FrozenData | None, tuple[Colour]]
)
def test_an_index_of_what_has_no_order_is_refused(field: Any) -> None:
    with pytest.raises(DefinitionError, match=r"Made\.field can't be in an index"):
        Table(row_type(field), key="id", index={"field": ("field",)})


def test_none_sorts_first_however_the_field_says_that_it_may_be_none() -> None:
    for field in (Literal["a", None], Annotated[str | None, Constraint(title="T")], Literal["a"] | None):
        made = row_type(field)
        table: Table[str, Any] = Table(made, key="id", index={"field": ("field",)})
        table.put(made("1", "a"))
        table.put(made("2", None))
        assert [row.id for row in table.find("field")] == ["2", "1"]
        assert table.count("field", None) == 1


@pytest.mark.parametrize(
    "declared",
    [{"key": "absent"}, {"key": ()}, {"key": "id", "index": {"a": ("x",)}}, {"key": "id", "unique": {"a": ()}}],
)
def test_a_field_that_is_not_there_is_refused(declared: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        Table(row_type(int), **declared)


def test_a_forgotten_comma_is_told() -> None:
    with pytest.raises(DefinitionError, match="in a tuple"):
        Table(row_type(int), key="id", index={"field": "field"})  # type: ignore[dict-item]


# State.


def test_state_lives_in_tables_only() -> None:
    _, shelves, _ = make_state()
    with pytest.raises(TypeError, match="Declare a Table"):
        shelves.seen = 1
    leaks: list[Any] = [[], {}, set(), bytearray()]
    for value in leaks:
        with pytest.raises(DefinitionError, match="declare a Table"):
            type("Leaky", (State,), {"seen": value})
    type("Tight", (State,), {"LIMIT": 3, "WORDS": ("a", "b")})


def test_a_table_is_not_named_like_a_part_of_state() -> None:
    with pytest.raises(DefinitionError, match="can't have this name"):
        type("Shadowing", (State,), {"tables": Table(Name, key="name")})


def test_each_state_has_rows_of_its_own_and_inherits_tables() -> None:
    class More(Names):
        others: Table[str, Name] = Table(Name, key="name")

    one, two = More(), More()
    one.names.put(Name("n"))
    one.others.put(Name("o"))
    assert list(one.tables()) == ["names", "others"]
    assert (len(two.names), len(two.others), len(Names().names)) == (0, 0, 0)

"""A table is paged through in key order or by an index without a gap, whatever its keys are; and a row is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from msgspec import Struct

from journeyman import NotFound, State, Table
from journeyman.doors.console import browsing
from journeyman.doors.console.browsing import (
    PAGE_ROWS,
    Look,
    facts_of,
    page_by_index,
    page_by_key,
    row_at,
    write_key,
)
from journeyman.tables import AppState

T = TypeVar("T")


class Text(Struct, frozen=True):
    key: str
    shade: str = ""


class Number(Struct, frozen=True):
    key: int


class Pair(Struct, frozen=True):
    worker: str
    number: int


class ShelfState(State):
    texts: Table[str, Text] = Table(Text, key="key", index={"shade": ("shade",)})
    numbers: Table[int, Number] = Table(Number, key="key")
    pairs: Table[tuple[str, int], Pair] = Table(Pair, key=("worker", "number"))


def shelf(count: int) -> tuple[ShelfState, Look]:
    app = AppState({"shelf": ShelfState})
    state = app.features["shelf"]
    assert isinstance(state, ShelfState)
    order = list(range(count))
    random.Random(1).shuffle(order)
    for number in order:
        state.texts.put(Text(f"{number:05}\u202e\"'", "light" if number % 2 else "dark"))
        state.numbers.put(Number(number))
        state.pairs.put(Pair(f"w{number % 3}", number))

    async def look(question: Callable[[AppState], T], /) -> T:
        return question(app)

    return state, look


class Compared(int):
    """A key that counts how often it is compared."""

    count = 0

    def __lt__(self, other: int) -> bool:
        Compared.count += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Compared.count += 1
        return int(self) > int(other)


@pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
@pytest.mark.parametrize(("after", "before"), [(None, None), (9_999, None), (None, 10_000), (None, 99_999)])
def test_keys_are_chosen_by_few_comparisons_in_whatever_order_they_come(
    order: str, after: int | None, before: int | None
) -> None:
    """A heap compares each of them up to ten times, where each is the greatest so far."""
    keys = [Compared(number) for number in range(20_000)]
    expected = [key for key in keys if (after is None or key > after) and (before is None or key < before)]
    if order == "falling":
        keys.reverse()
    elif order == "mixed":
        random.Random(1).shuffle(keys)
    Compared.count = 0
    chosen, more = browsing._choose(keys, after, before)

    assert Compared.count < 4 * 20_000
    assert chosen == (expected[:PAGE_ROWS] if before is None else expected[-PAGE_ROWS:])
    assert more
    assert keys == [], "they are let go of on the way"


@pytest.mark.parametrize("table", ["texts", "numbers", "pairs"])
@pytest.mark.parametrize("count", [0, 1, PAGE_ROWS, PAGE_ROWS + 1, 3 * PAGE_ROWS + 7])
async def test_pages_by_key_have_each_row_once_forward_and_backward(table: str, count: int) -> None:
    state, look = shelf(count)
    expected = sorted(state.tables()[table].keys())
    forward: list[Any] = []
    page = await page_by_key(look, "shelf", table)
    assert page.previous is None
    while True:
        forward += [key for key, _ in page.rows]
        if page.next is None:
            break
        page = await page_by_key(look, "shelf", table, after=page.next)
    assert forward == expected
    backward = [key for key, _ in page.rows]
    while page.previous is not None and page.rows:
        page = await page_by_key(look, "shelf", table, before=page.previous)
        backward = [key for key, _ in page.rows] + backward
    assert backward == expected


async def test_pages_by_an_index_have_its_order() -> None:
    state, look = shelf(3 * PAGE_ROWS + 7)
    found: list[Any] = []
    offset: str | None = "0"
    while offset is not None:
        page = await page_by_index(look, "shelf", "texts", "shade", offset=int(offset))
        found += [row for _, row in page.rows]
        offset = page.next
    assert found == state.texts.find("shade")
    with pytest.raises(NotFound, match="no index"):
        await page_by_index(look, "shelf", "texts", "weight", offset=0)


async def test_a_row_is_found_by_its_key_as_json_or_as_it_is() -> None:
    state, look = shelf(5)
    for table in ("texts", "numbers", "pairs"):
        for key, row in state.tables()[table].items():
            assert await row_at(look, "shelf", table, write_key(key)) == (key, row)
    state.texts.put(Text("plain"))
    assert (await row_at(look, "shelf", "texts", "plain"))[1] == Text("plain")


@pytest.mark.parametrize(
    ("table", "key"),
    [("texts", "no such"), ("numbers", "seven"), ("numbers", "77"), ("pairs", '["w1"]'), ("none", "1")],
)
async def test_what_is_no_row_is_not_found(table: str, key: str) -> None:
    _, look = shelf(5)

    with pytest.raises(NotFound):
        await row_at(look, "shelf", table, key)


def test_facts_name_the_features_own_tables_first() -> None:
    app = AppState({"journeyman/jobs": ShelfState, "shelf": ShelfState})

    facts = facts_of(app)

    assert [one.feature for one in facts][::3] == ["shelf", "journeyman/jobs"]
    assert facts[2].name == "texts"
    assert facts[2].indexes == ("shade",)

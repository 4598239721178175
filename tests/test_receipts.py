"""A key and its command get one receipt for ever, as far as the newest keyed commands are remembered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import KeyReused
from journeyman.message import Message, Record
from journeyman.receipts import KEYED_COMMANDS_MAX, Receipt, Receipts, ReceiptsState, receipts
from journeyman.tables import AppState
from journeyman.testing.records import make_records


def make_state() -> AppState:
    return AppState({receipts.name: ReceiptsState})


def keyed(position: int, key: str | None, *, body: bytes = b"{}") -> Message[Any]:
    record: Record = make_records(1, after=position - 1, body=body)[0]
    return Message(msgspec.structs.replace(record, idempotency_key=key), None)


def find(
    memory: Receipts, state: AppState, key: str, *, name: str = "testing/do-something", body: bytes = b"{}"
) -> Any:
    return memory.find(state, key=key, name=name, body=body)


def test_the_same_key_and_command_get_the_first_receipt() -> None:
    memory, state = Receipts(), make_state()
    assert find(memory, state, "k") is None
    first = keyed(3, "k")
    memory.record(state, first)
    memory.record(state, keyed(4, "other"))
    assert find(memory, state, "k") == Receipt(3, first.id, repeated=True)


@pytest.mark.parametrize(
    "other", [{"name": "testing/do-other"}, {"body": b'{"a":1}'}, {"name": "testing/do-something\0", "body": b"{"}]
)
def test_the_same_key_with_another_command_is_refused(other: dict[str, Any]) -> None:
    memory, state = Receipts(), make_state()
    memory.record(state, keyed(3, "k"))
    with pytest.raises(KeyReused, match="'k' belongs to another command, at position 3"):
        find(memory, state, "k", **other)


def test_commands_without_a_key_are_not_remembered() -> None:
    memory, state = Receipts(), make_state()
    memory.record(state, keyed(1, None))
    assert state.hash() == make_state().hash()


def test_the_newest_hundred_thousand_are_kept() -> None:
    assert KEYED_COMMANDS_MAX == 100_000
    assert Receipts()._keyed_commands_max == KEYED_COMMANDS_MAX


@given(st.lists(st.none() | st.integers(0, 30), max_size=40), st.integers(1, 8))
def test_the_keys_kept_are_the_newest_by_position(numbers: list[int | None], most: int) -> None:
    memory, state = Receipts(keyed_commands_max=most), make_state()
    newest: dict[str, int] = {}
    for position, number in enumerate(numbers, start=1):
        key = None if number is None else f"k{number}"
        memory.record(state, keyed(position, key))
        if key is not None:
            newest.pop(key, None)
            newest[key] = position
    kept = dict(list(newest.items())[-most:])
    for number in range(31):
        receipt = find(memory, state, f"k{number}")
        assert (receipt and receipt.position) == kept.get(f"k{number}")


def test_an_undo_brings_back_what_was_dropped_for_a_newer_one() -> None:
    memory, state = Receipts(keyed_commands_max=1), make_state()
    memory.record(state, keyed(1, "first"))
    before, mark = state.hash(), state.undo.mark()
    memory.record(state, keyed(2, "second"))
    assert find(memory, state, "first") is None
    state.undo.undo(mark)
    assert find(memory, state, "first").position == 1
    assert state.hash() == before

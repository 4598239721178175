"""Receipts: what a caller gets for a command, and the memory of idempotency keys."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from journeyman.errors import KeyReused
from journeyman.feature import InternalFeature
from journeyman.message import Message
from journeyman.tables import AppState, State, Table

#: How many keyed commands are remembered: the newest ones, counted by position, the same in every process.
KEYED_COMMANDS_MAX: Final = 100_000


class Receipt(msgspec.Struct, frozen=True):
    """A command was recorded: its message's position and id. `repeated` when an earlier call had recorded it."""

    position: int
    message_id: str
    repeated: bool = False


class KeyedCommand(msgspec.Struct, frozen=True):
    """The first command that came with an idempotency key. `digest` is of its name and body."""

    key: str
    position: int
    message_id: str
    digest: str


class ReceiptsState(State):
    """The idempotency keys of the newest keyed commands."""

    keyed: Table[str, KeyedCommand] = Table(KeyedCommand, key="key", index={"oldest": ("position",)})


receipts = InternalFeature("receipts", state=ReceiptsState)


class Receipts:
    """Remembers keyed commands: part of the state, so that a key holds across crashes and processes."""

    def __init__(self, *, keyed_commands_max: int = KEYED_COMMANDS_MAX) -> None:
        self._keyed_commands_max = keyed_commands_max

    def find(self, state: AppState, *, key: str, name: str, body: bytes) -> Receipt | None:
        """The receipt that was given for this key, or None when the key is new.

        Raises:
            KeyReused: it was given for another command.
        """
        row = self._table(state).get(key)
        if row is None:
            return None
        if row.digest != _digest(name, body):
            raise KeyReused(
                f"The idempotency key {key!r} belongs to another command, at position {row.position}. Use a new key."
            )
        return Receipt(row.position, row.message_id, repeated=True)

    def record(self, state: AppState, message: Message[Any]) -> None:
        """Remember a message that has a key, and forget the oldest when there are too many."""
        record = message.record
        if record.idempotency_key is None:
            return
        table = self._table(state)
        table.put(KeyedCommand(record.idempotency_key, record.position, record.id, _digest(record.name, record.body)))
        if len(table) > self._keyed_commands_max:
            table.delete(table.find("oldest", limit=1)[0].key)

    @staticmethod
    def _table(state: AppState) -> Table[str, KeyedCommand]:
        found = state.features[receipts.name]
        assert isinstance(found, ReceiptsState)
        return found.keyed


def _digest(name: str, body: bytes) -> str:
    # No name has a zero byte, so that no other name and body give the same input.
    return hashlib.blake2b(name.encode() + b"\0" + body, digest_size=12).hexdigest()

"""What a store must do: a message log and a small key-value table.

The contract suite in `journeyman.testing.store_contract` tests every sentence here against every backend.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from journeyman.message import Record

#: The most records that one append may carry; the smallest limit of all backends (JetStream's atomic batch).
BATCH_RECORDS_MAX = 1000

#: The most bytes of bodies that one append may carry. A batch may always hold one body of the greatest size.
BATCH_BYTES_MAX = 4 * 1024 * 1024

#: The longest key, in characters, and the largest value, in bytes, of the key-value table.
KEY_LENGTH_MAX = 200
VALUE_BYTES_MAX = 64 * 1024


class MessageLog(Protocol):
    """The append-only, totally ordered sequence of messages: positions 1, 2, 3 … without gaps.

    All readers, in all processes, see the same records in the same order, and never position n+1 before n.
    """

    async def head(self) -> int:
        """The last position; 0 when the log is empty.

        Raises:
            NotReady: the store can't be read now.
        """
        ...

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        """At most `limit` records with positions above `after`, in order; fewer only at the head.

        With `name`, only records of that message name, found without reading the others where the backend can.

        Raises:
            NotReady: the store can't be read now.
            Corrupt: what is stored is damaged.
        """
        ...

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        """Write the batch whole, at after+1 …, if and only if the head is `after`; return when it is durable.

        Idempotent: if the records at after+1 … already have this batch's ids, it succeeds. So after a lost reply the
        identical call settles what happened. An empty batch only checks that the head is `after`.

        Raises:
            ValueError: the positions are not after+1, after+2 …; a defect of the caller.
            Conflict: a *different* id was read at one of the batch's positions.
            TooLarge: a body is over BODY_BYTES_MAX, the batch over BATCH_RECORDS_MAX or BATCH_BYTES_MAX. Not written.
            NotReady: surely not written.
            OutcomeUnknown: perhaps written, perhaps later. Make the identical call again.
            WrongLog: the head is below `after`.
        """
        ...

    async def wait(self, after: int, timeout_s: float) -> None:
        """Return when the head may be above `after`, or after `timeout_s`. It may wake for nothing.

        Appends of this and, within the backend's wake-up time, of other processes wake it. It gives way to other
        tasks at least once.
        """
        ...

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Hold the writer's turn: while it is held, appends of others wait, where the backend can make them.

        For a writer that lost several conflicts in a row. A backend without turns returns a context that does
        nothing. The holder appends as usual.
        """
        ...


@runtime_checkable
class Scannable(Protocol):
    """A log that can also be read in place, in a thread of the caller's: a backend may offer it beside `read`."""

    def scan(self, after: int, batch: int) -> Generator[list[Record]]:
        """All records above `after` that are there now, in order, `batch` at a time. It blocks; close it in its thread.

        Raises:
            NotReady, Corrupt: as `MessageLog.read`, from the iterator.
        """
        ...


@runtime_checkable
class InFile(Protocol):
    """A store in a file, beside which other files may be kept that belong to it."""

    @property
    def path(self) -> str:
        """The file."""
        ...


class Entry(msgspec.Struct, frozen=True):
    """A value of the key-value table. Its revision grows with each put and is never 0."""

    value: bytes
    revision: int


class KeyValue(Protocol):
    """A small table for heartbeats and settings: never for what the state is built from.

    Keys have at most KEY_LENGTH_MAX characters, values at most VALUE_BYTES_MAX bytes.
    """

    async def get(self, key: str) -> Entry | None:
        """The entry, or None."""
        ...

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        """Set the value and return its new revision; None, and nothing changed, when `expect` does not match.

        `expect` is the revision the key must have now: 0 for a key that must not exist, None for whatever it has.

        Raises:
            TooLarge: the key or the value is over its limit.
        """
        ...

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """Remove the key. False, and nothing changed, when it is not there or `expect` does not match."""
        ...

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys that start with `prefix`, sorted."""
        ...


class Blobs(Protocol):
    """Large values that can be made again at any time, like snapshots: losing one costs time, and nothing else.

    Raises:
        NotReady: the store can't be used now.
    """

    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        """Keep the parts, one after the other, under a name; whole, or not at all. An old value is replaced.

        They are iterated in another thread.
        """
        ...

    async def load(self, name: str) -> bytes | None:
        """The value, or None."""
        ...

    async def delete(self, name: str) -> None:
        """Remove the value. Harmless when it is not there."""
        ...

    async def sizes(self) -> dict[str, int]:
        """The sizes in bytes, by name, sorted by name."""
        ...


class Check(msgspec.Struct, frozen=True):
    """One thing that a store rests on: what was found, and, where that is wrong, what mends it."""

    name: str
    ok: bool
    found: str
    fix: str = ""


class Examination(msgspec.Struct, frozen=True):
    """What an operator may want to know of a store: whether all is as it must be, and facts about it, by name."""

    checks: tuple[Check, ...]
    facts: dict[str, str | int]


class Store(Protocol):
    """Where an application lives. Opened by `journeyman.store.open_store` from a URL."""

    #: The URL it was opened by, without passwords.
    url: str
    #: What "durable" means here, for people: for example "SQLite WAL, synchronous=FULL".
    durability: str
    log: MessageLog
    keys: KeyValue
    blobs: Blobs

    async def claim(self, role: str) -> bool:
        """Take a role that one process at a time may have; False when another live process has it, or may have it.

        Held until `release` or `close`, or until the process dies, however it dies. Claiming a role that one holds is
        True.
        """
        ...

    async def release(self, role: str) -> None:
        """Give a role back, for others to claim. Harmless when it is not held."""
        ...

    async def examine(self) -> Examination:
        """Look whether everything is as durability and order need it.

        Raises:
            NotReady: it can't be looked at now.
        """
        ...

    async def open_again(self) -> Store:
        """Another handle on the same store, for the event loop of another thread. The caller closes it.

        Raises:
            NotReady: it can't be opened now.
        """
        ...

    async def close(self) -> None:
        """Release everything. Closing twice is harmless; a call under way may fail with NotReady."""
        ...

"""Snapshots: the state at a position, kept beside the log so that a start need not apply everything again.

A snapshot is never trusted over the log. It is taken only if its own bytes are whole, the same code has built it, the
log has the same first message and the same message at its position, and the same messages are set aside. Else it is
deleted, or left to the code that it belongs to, and the log is applied from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

import msgspec

from journeyman.errors import NotReady
from journeyman.feature import Catalog
from journeyman.message import Record
from journeyman.store.base import Store
from journeyman.tables import AppState, Table
from journeyman.threads import in_thread

logger = logging.getLogger(__name__)

#: The layout of a snapshot. Another one is not read.
LAYOUT: Final = 1

#: How many rows are encoded at a time: what is done without a pause for other threads.
PART_ROWS: Final = 200

#: How many snapshots are kept, the newest ones: two codes side by side, as in a rolling deploy, keep two each.
KEPT: Final = 4

_PREFIX: Final = "snapshot-"


class Capture(msgspec.Struct, frozen=True):
    """The state at a position, as it was in one moment: copies that nothing changes any more."""

    position: int
    message_id: str
    set_asides: frozenset[int]
    rows: list[tuple[str, str, Table[Any, Any], list[Any]]]


class TableHead(msgspec.Struct, frozen=True):
    """A table of a snapshot: its lines follow in the order of these heads."""

    feature: str
    table: str
    rows: int
    lines: int


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a snapshot. The last one is a digest of all before it."""

    layout: int
    fingerprint: str
    position: int
    message_id: str
    first_id: str
    set_asides: tuple[int, ...]
    tables: tuple[TableHead, ...]


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that is there. `current` when the code at hand has built it."""

    name: str
    position: int
    size_bytes: int
    current: bool


class Restored(msgspec.Struct, frozen=True):
    """State from a snapshot."""

    state: AppState
    position: int
    message_id: str


class NotUsable(Exception):
    """Why a snapshot is not used."""


class Snapshots:
    """The snapshots of one store, for one code."""

    def __init__(self, store: Store, catalog: Catalog, *, fingerprint: str) -> None:
        self._blobs = store.blobs
        self._log = store.log
        self._catalog = catalog
        self._fingerprint = fingerprint

    async def list(self) -> list[SnapshotInfo]:
        """All of them, oldest position first."""
        return [
            SnapshotInfo(name=name, position=position, size_bytes=size, current=code == self._code)
            for name, size in (await self._blobs.sizes()).items()
            for position, code in _parsed(name)
        ]

    async def take(self, capture: Capture) -> SnapshotInfo:
        """Keep the state, and delete what is older than the last KEPT.

        Raises:
            NotReady: the store can't be used.
            TypeError: a row does not come back as it is: its class allows what its types do not.
        """
        name = f"{_PREFIX}{capture.position:020d}-{self._code}"
        [first] = await self._log.read(0, 1)
        await self._blobs.save(name, self._lines(capture, first.id))
        found = await self.list()
        for old in found[:-KEPT]:
            await self._blobs.delete(old.name)
        return next(info for info in found if info.name == name)

    async def restore(self, set_asides: frozenset[int], *, up_to: int | None = None) -> Restored | None:
        """The newest state that can be used, or None. One that can't be is deleted: the log has everything.

        Args:
            up_to: not newer than of this position; None for whatever is the newest.
        """
        try:
            for info in reversed(await self.list()):
                if up_to is not None and info.position > up_to:
                    continue
                if info.current and (restored := await self._try(info, set_asides)) is not None:
                    return restored
        except NotReady as error:
            logger.warning("snapshots can't be read, so the log is applied from its beginning: %s", error)
        return None

    async def _try(self, info: SnapshotInfo, set_asides: frozenset[int]) -> Restored | None:
        try:
            return await self.load(info, set_asides)
        except NotUsable as why:
            logger.warning("the snapshot at position %d is not used, and deleted: %s", info.position, why)
            await self._blobs.delete(info.name)
            return None

    async def load(self, info: SnapshotInfo, set_asides: frozenset[int]) -> Restored:
        """The state of one snapshot.

        Raises:
            NotUsable: it does not belong to this log, or is damaged.
            NotReady, Corrupt: the store can't be read.
        """
        data = await self._blobs.load(info.name)
        if data is None:
            raise NotUsable("it is not there any more")
        # In a thread: the loop of this process may be another application's, too.
        head, state = await in_thread(lambda: self._decoded(data), name="journeyman: snapshot")
        await self._check(head, set_asides)
        return Restored(state, head.position, head.message_id)

    async def delete(self, info: SnapshotInfo) -> None:
        await self._blobs.delete(info.name)

    @property
    def _code(self) -> str:
        return self._fingerprint[:8]

    # Out.

    def _lines(self, capture: Capture, first_id: str) -> Iterator[bytes]:
        heads = tuple(
            TableHead(feature, name, len(rows), -(-len(rows) // PART_ROWS)) for feature, name, _, rows in capture.rows
        )
        head = Head(
            layout=LAYOUT,
            fingerprint=self._fingerprint,
            position=capture.position,
            message_id=capture.message_id,
            first_id=first_id,
            set_asides=tuple(sorted(capture.set_asides)),
            tables=heads,
        )
        digest = hashlib.blake2b()
        parts = (_encoded(table, rows) for _, _, table, rows in capture.rows)
        for line in chain([msgspec.json.encode(head)], *parts):
            digest.update(line + b"\n")
            yield line + b"\n"
        yield digest.hexdigest().encode()

    # In.

    def _decoded(self, data: bytes) -> tuple[Head, AppState]:
        body, _, digest = data.rpartition(b"\n")
        if hashlib.blake2b(body + b"\n").hexdigest().encode() != digest:
            raise NotUsable("its bytes are damaged")
        lines = iter(body.split(b"\n"))
        try:
            head = msgspec.json.decode(next(lines), type=Head)
            if (head.layout, head.fingerprint) != (LAYOUT, self._fingerprint):
                raise NotUsable("other code has built it")
            return head, self._state(head, lines)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            raise NotUsable(f"it does not fit the tables: {error}") from error

    def _state(self, head: Head, lines: Iterator[bytes]) -> AppState:
        state = self._catalog.new_state()
        for one in head.tables:
            table = state.features[one.feature].tables()[one.table]
            rows = [row for line in islice(lines, one.lines) for row in table.decode_rows(line)]
            if len(rows) != one.rows:
                raise NotUsable(f"{one.table} has {len(rows)} rows instead of {one.rows}")
            table.load(rows)
        return state

    async def _check(self, head: Head, set_asides: frozenset[int]) -> None:
        first, last = await self._record(1), await self._record(head.position)
        if first is None or last is None or (first.id, last.id) != (head.first_id, head.message_id):
            raise NotUsable("it is of another log")
        if {position for position in set_asides if position <= head.position} != set(head.set_asides):
            raise NotUsable("other messages were set aside")

    async def _record(self, position: int) -> Record | None:
        found = await self._log.read(position - 1, 1)
        return found[0] if found else None


def _encoded(table: Table[Any, Any], rows: list[Any]) -> Iterator[bytes]:
    """The rows, a part on each line: what is read back is what was there, or nothing is kept."""
    for start in range(0, len(rows), PART_ROWS):
        part = rows[start : start + PART_ROWS]
        line = table.encode_rows(part)
        if table.decode_rows(line) != part:
            raise TypeError(f"{table.name} has rows that do not come back as they are.")
        yield line


def _parsed(name: str) -> Iterator[tuple[int, str]]:
    """The position and the code that a blob's name tells, if it is a snapshot's."""
    position, _, code = name.removeprefix(_PREFIX).partition("-")
    if name.startswith(_PREFIX) and position.isdigit() and code:
        yield int(position), code

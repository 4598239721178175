"""The load on a log counts what was lost, doubled, left out or read differently: each log here does one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import pytest

from journeyman.errors import OutcomeUnknown
from journeyman.message import Record
from journeyman.store import Store
from journeyman.store.memory import MemoryLog, MemoryStore
from tests.log_load import Counted, Load

#: After how many appends it happens.
NTH = 20


class Faithful(MemoryLog):
    def __init__(self) -> None:
        super().__init__()
        self.appends = 0

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        await super().append(records, after=after)
        self.appends += 1
        if self.appends == NTH:
            self.break_a_promise()

    def break_a_promise(self) -> None:
        """Once."""


class Forgetful(Faithful):
    """Loses what it has acknowledged, and puts something else there."""

    def break_a_promise(self) -> None:
        self._records[-1] = msgspec.structs.replace(self._records[-1], id="another")


class Doubling(Faithful):
    """Keeps what an append without a reply had brought, although it was made again."""

    def break_a_promise(self) -> None:
        again = msgspec.structs.replace(self._records[-1], position=len(self._records) + 1)
        self._records.append(again)


class Skipping(Faithful):
    """Leaves a position out."""

    def break_a_promise(self) -> None:
        self._records[:] = [
            msgspec.structs.replace(record, position=record.position + (record.position > 10))
            for record in self._records
        ]

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return [record for record in self._records if record.position > after][:limit]


class TwoFaced(Faithful):
    """Shows one of its readers another record."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = 0

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records = await super().read(after, limit, name=name)
        if after == 0 and records and self._shown == 0:
            self._shown += 1
            records = [msgspec.structs.replace(records[0], id="another"), *records[1:]]
        return records


class Unsure(Faithful):
    """Loses each third reply, and keeps every promise."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        await super().append(records, after=after)
        if self.appends % 3 == 0:
            raise OutcomeUnknown("no reply")


async def counted(log: Faithful) -> Counted:
    store = MemoryStore()
    store.log = log

    async def open_one() -> Store:
        return await store.open_again()

    load = Load(open_one)
    async with load.running(), asyncio.timeout(30):
        while log.appends < 2 * NTH:
            with suppress(TimeoutError):
                await load.until_all_go_on()
    return await load.counted()


@pytest.mark.parametrize("log", [Faithful, Unsure])
async def test_a_log_that_keeps_its_promises_breaks_none(log: type[Faithful]) -> None:
    found = await counted(log())
    assert not found.broken
    assert found.acknowledged >= NTH
    assert (found.unknown > 0) == (log is Unsure)


@pytest.mark.parametrize(("log", "broken"), [(Forgetful, "lost"), (Doubling, "doubled"), (TwoFaced, "read")])
async def test_a_broken_promise_is_counted(log: type[Faithful], broken: str) -> None:
    found = await counted(log())
    assert found.broken.get(broken, 0) > 0, found


async def test_a_reader_that_meets_a_gap_says_so() -> None:
    with pytest.raises(ExceptionGroup) as met:
        await counted(Skipping())
    assert met.group_contains(AssertionError, match="came after")

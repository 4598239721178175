"""A log in trouble, for the tests of to-do workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from journeyman import OutcomeUnknown, Record
from journeyman.store.base import MessageLog


class Troubled:
    """A log that fails appends of some names, for so many times: before they are written, or after."""

    def __init__(self, log: MessageLog) -> None:
        self.log = log
        self.failures: dict[str, list[Exception]] = {}
        self.lost: dict[str, int] = {}
        self.hold: dict[str, tuple[asyncio.Event, asyncio.Event]] = {}
        #: The same for reads, by the position behind which they begin, and their limit.
        self.hold_read: dict[tuple[int, int], tuple[asyncio.Event, asyncio.Event]] = {}
        #: Another process's record of a name, that comes before the first append of the name.
        self.foreign: dict[str, Record] = {}
        #: The names of the records of each append that was done.
        self.appends: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        if (after, limit) in self.hold_read:
            reached, go = self.hold_read.pop((after, limit))
            reached.set()
            await go.wait()
        return await self.log.read(after, limit, name=name)

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        written = {record.name for record in records}
        for name in written & self.hold.keys():
            reached, go = self.hold.pop(name)
            reached.set()
            await go.wait()
        for name in written & self.foreign.keys():
            await self.log.append([self.foreign.pop(name)], after=after)
        for name in written & self.failures.keys():
            if self.failures[name]:
                raise self.failures[name].pop(0)
        await self.log.append(records, after=after)
        if records:
            self.appends.append([record.name for record in records])
        for name in written & self.lost.keys():
            if self.lost[name] > 0:
                self.lost[name] -= 1
                raise OutcomeUnknown("the reply was lost")

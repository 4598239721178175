"""Writers and readers of one log, while a test breaks what is below it, and the count of what must not have happened.

It knows nothing of any backend: what it has, a writer knows whose append was acknowledged, and a reader who follows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from journeyman.errors import Conflict, NotReady, OutcomeUnknown
from journeyman.message import Record
from journeyman.store.base import Store
from journeyman.testing.records import make_records

#: How long anything may take that must come, in seconds.
PATIENCE_S: Final = 60.0

#: The pause of a writer that was told to try again, in seconds.
PAUSE_S: Final = 0.02


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. The first four are broken promises."""

    lost: int
    doubled: int
    gaps: int
    read_differently: int
    acknowledged: int
    unknown: int
    stalls_s: list[float]

    @property
    def broken(self) -> dict[str, int]:
        counts = {"lost": self.lost, "doubled": self.doubled, "gaps": self.gaps, "read": self.read_differently}
        return {name: count for name, count in counts.items() if count}


class Load:
    """Appends by several writers at once, each over a handle of its own, and readers that follow.

    `unknown` counts how often a writer was not told whether its append was done. `acknowledged` has the ids by
    position.
    """

    def __init__(self, open_one: Callable[[], Awaitable[Store]], *, writers: int = 3, readers: int = 2) -> None:
        self.acknowledged: list[tuple[int, str]] = []
        self.unknown = 0
        self.stalls_s: list[float] = []
        self._open = open_one
        self._writers, self._readers = writers, readers
        #: How often each writer was acknowledged.
        self._times = [0] * writers
        self._seen: list[list[str]] = [[] for _ in range(readers)]
        self._stopping = self._written = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the block runs, so do the writers and readers; then the readers read to the end."""
        async with asyncio.TaskGroup() as readers:
            for reader in range(self._readers):
                readers.create_task(self._follow(self._seen[reader]))
            async with asyncio.TaskGroup() as writers:
                for writer in range(self._writers):
                    writers.create_task(self._write(writer))
                await self.until_all_go_on()
                yield
                await self.until_all_go_on()
                self._stopping = True
            self._written = True

    async def until_all_go_on(self) -> float:
        """Return when each writer was acknowledged again, with how long that took, in seconds."""
        before, since = list(self._times), time.monotonic()
        async with asyncio.timeout(PATIENCE_S):
            while any(now == then for now, then in zip(self._times, before, strict=True)):  # noqa: ASYNC110  # a count
                await asyncio.sleep(0.005)
        return time.monotonic() - since

    async def stall(self) -> None:
        """Wait until all go on, and keep how long it took."""
        self.stalls_s.append(await self.until_all_go_on())

    async def counted(self) -> Counted:
        """What stands in the log, and what was acknowledged, and read."""
        store = await self._open()
        try:
            records = await everything(store)
        finally:
            await store.close()
        ids = [record.id for record in records]
        return Counted(
            lost=sum(position > len(ids) or ids[position - 1] != id for position, id in self.acknowledged),
            doubled=sum(count - 1 for count in Counter(ids).values()),
            gaps=sum(record.position != number for number, record in enumerate(records, start=1)),
            read_differently=sum(seen != ids for seen in self._seen),
            acknowledged=len(self.acknowledged),
            unknown=self.unknown,
            stalls_s=self.stalls_s,
        )

    async def _write(self, writer: int) -> None:
        store = await self._open()
        try:
            chance = random.Random(writer)
            while not self._stopping:
                await self._append(store, make_records(chance.choice((1, 1, 3, 20))))
                self._times[writer] += 1
        finally:
            await store.close()

    async def _append(self, store: Store, records: Sequence[Record]) -> None:
        """Append the records, at the head wherever that is by then; the identical call until it is known."""
        after: int | None = None
        while True:
            try:
                if after is None:
                    after = await store.log.head()
                    records = _placed(records, after)
                await store.log.append(records, after=after)
                break
            except Conflict:
                after = None
            except OutcomeUnknown:
                self.unknown += 1
                await asyncio.sleep(PAUSE_S)
            except NotReady:
                await asyncio.sleep(PAUSE_S)
        self.acknowledged += [(record.position, record.id) for record in records]

    async def _follow(self, seen: list[str]) -> None:
        store = await self._open()
        try:
            while not (self._written and self._has_all(seen)):
                try:
                    await store.log.wait(len(seen), 0.2)
                    for record in await store.log.read(len(seen), 1000):
                        assert record.position == len(seen) + 1, f"{record.position} came after {len(seen)}"
                        seen.append(record.id)
                except NotReady:
                    await asyncio.sleep(PAUSE_S)
        finally:
            await store.close()

    def _has_all(self, seen: list[str]) -> bool:
        return len(seen) >= max((position for position, _ in self.acknowledged), default=0)


async def everything(store: Store) -> list[Record]:
    """The whole log, once the store can be read."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await store.log.read(0, 10**6)
            except NotReady:
                await asyncio.sleep(PAUSE_S)


def _placed(records: Sequence[Record], after: int) -> list[Record]:
    return [msgspec.structs.replace(record, position=number) for number, record in enumerate(records, start=after + 1)]

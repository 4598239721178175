"""Writers that go on through faults, as the executor does, and what they must leave in the log."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

from journeyman.errors import Conflict, NotReady, OutcomeUnknown
from journeyman.message import Record
from journeyman.store import Store
from journeyman.testing.records import make_records

#: How long anything may take that must come, in seconds.
PATIENCE_S: Final = 60.0

#: The pause before another try, in seconds.
PAUSE_S: Final = 0.01


class Load(msgspec.Struct):
    """What was told to writers. `unknown` and `refused` count the appends that came back so."""

    told: Counter[str] = msgspec.field(default_factory=Counter)
    unknown: int = 0
    refused: int = 0

    async def write(self, store: Store, name: str, *, go_on: Callable[[], bool]) -> None:
        """Append one batch of three about a new subject after the other, each until it is told."""
        number = 0
        while go_on():
            number += 1
            subject = f"{name}-{number}"
            await self._append(store, subject)
            self.told[subject] += 3

    async def _append(self, store: Store, subject: str) -> None:
        while True:
            try:
                after = await store.log.head()
                batch = make_records(3, after=after, subject=subject)
                await self._settle(store, batch, after)
                return
            except (Conflict, NotReady) as error:
                # Surely not written: other records, with other ids, may take its place.
                self.refused += isinstance(error, NotReady)
                await asyncio.sleep(PAUSE_S)

    async def _settle(self, store: Store, batch: list[Record], after: int) -> None:
        """Make the identical call until its outcome is known: once one may have been done, NotReady says nothing."""
        unknown = False
        while True:
            try:
                return await store.log.append(batch, after=after)
            except OutcomeUnknown:
                unknown = True
                self.unknown += 1
            except NotReady:
                if not unknown:
                    raise
            await asyncio.sleep(PAUSE_S)

    async def faults(self, store: Store) -> dict[str, int]:
        """What is wrong with the log: gaps, subjects that were told and are lost, subjects recorded twice."""
        records = await store.log.read(0, 10**6)
        found = Counter(record.subject or "" for record in records)
        return {
            "gaps": sum(record.position != number for number, record in enumerate(records, 1)),
            "lost": sum(found[subject] < count for subject, count in self.told.items()),
            "doubled": sum(count > 3 for count in found.values()),
            "torn": sum(count % 3 != 0 for count in found.values()),
        }


NO_FAULTS: Final = {"gaps": 0, "lost": 0, "doubled": 0, "torn": 0}


@asynccontextmanager
async def writing(load: Load, stores: list[Store]) -> AsyncIterator[None]:
    """While the block runs, one writer writes to each store; at its end they are done with what they do."""
    ended = False
    tasks = [
        asyncio.create_task(load.write(store, str(number), go_on=lambda: not ended))
        for number, store in enumerate(stores)
    ]
    try:
        yield
        ended = True
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return when it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)

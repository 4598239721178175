"""The store in memory keeps the contract, also for several users of one object."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path

from journeyman.errors import Conflict
from journeyman.store import Store, open_store
from journeyman.store.memory import MemoryStore
from journeyman.testing.contract import fill
from journeyman.testing.records import make_records
from journeyman.testing.store_contract import StoreContract


class TestMemoryStore(StoreContract):
    has_turns = True

    @cached_property
    def one(self) -> MemoryStore:
        return MemoryStore()

    async def open(self, place: Path) -> Store:
        return await self.one.open_again()


async def test_each_open_is_a_fresh_store() -> None:
    one, two = await open_store("memory:"), await open_store("memory:")
    await fill(one, 3)
    assert await two.log.head() == 0


async def test_no_task_that_appends_in_a_loop_starves_another() -> None:
    store, appended = MemoryStore(), {"a": 0, "b": 0}

    async def write(name: str) -> None:
        while sum(appended.values()) < 100:
            after = await store.log.head()
            try:
                await store.log.append(make_records(1, after=after), after=after)
                appended[name] += 1
            except Conflict:
                continue

    await asyncio.gather(write("a"), write("b"))
    assert min(appended.values()) > 40


async def test_tasks_that_the_holder_of_the_turn_starts_append_on_its_behalf() -> None:
    store = MemoryStore()
    async with store.log.turn():
        await asyncio.create_task(store.log.append(make_records(1), after=0))
    assert await store.log.head() == 1

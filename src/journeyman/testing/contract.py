"""What the parts of the contract suite have in common: how a test gets its store, and how it fills one."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest_asyncio

from journeyman.errors import Conflict
from journeyman.message import Record
from journeyman.store.base import Store
from journeyman.testing.records import make_records

#: More than any reading needs here.
EVERYTHING = 100_000


class Contract:
    """Where the tests of every part find their stores."""

    #: Whether other processes can open the same store by its URL.
    shared_between_processes = False

    #: Whether appends of others really wait while the writer's turn is held.
    has_turns = False

    #: How another process opens the store from its URL: `module:function`, a coroutine function.
    opener = "journeyman.store:open_store"

    #: How long anything may take before it counts as hanging, in seconds. Nothing is ever this slow by itself.
    patience_s = 30.0

    async def open(self, place: Path) -> Store:
        """Open a handle on the store at `place`, an empty folder at first; a second call opens the same store."""
        raise NotImplementedError

    def url_for_process(self, store: Store) -> str:
        """The URL that another process opens the same store by. Add the password here, if there is one."""
        return store.url

    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        """A handle on a fresh store."""
        store = await self.open(tmp_path)
        yield store
        await store.close()

    @pytest_asyncio.fixture
    async def other(self, store: Store, tmp_path: Path) -> AsyncIterator[Store]:
        """Another handle on the same store."""
        other = await self.open(tmp_path)
        yield other
        await other.close()


async def fill(store: Store, count: int, *, after: int = 0, name: str = "testing/do-something") -> list[Record]:
    """Append a batch of new records, and return it."""
    records = make_records(count, after=after, name=name)
    await store.log.append(records, after=after)
    return records


async def append_one(store: Store, subject: str) -> None:
    """Append one new record, after as many conflicts as it takes."""
    while True:
        after = await store.log.head()
        with suppress(Conflict):
            return await store.log.append(make_records(1, after=after, subject=subject), after=after)


async def everything(store: Store) -> list[Record]:
    """The whole log."""
    return await store.log.read(0, EVERYTHING)


async def turn_the_loop(turns: int) -> None:
    """Let every other task run that many times."""
    for _ in range(turns):
        await asyncio.sleep(0)


def revision_of(put: int | None) -> int:
    """The revision that a put returned, which must not have been refused."""
    assert put is not None
    return put


def go(*processes: Process) -> None:
    """Let the processes begin, all at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")

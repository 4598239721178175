"""The contract between several processes that use one store, as tests."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

import pytest

from journeyman.store.base import Store
from journeyman.testing.contract import Contract, everything, fill, go


@pytest.mark.asyncio
class ProcessContract(Contract):
    """What every store must do for several handles and processes: roles, wake-ups, fairness."""

    # The store.

    async def test_a_store_says_what_it_is(self, store: Store) -> None:
        assert store.url
        assert store.durability

    async def test_a_claimed_role_can_be_claimed_again_by_its_holder(self, store: Store) -> None:
        assert await store.claim("workers") is True
        assert await store.claim("workers") is True
        assert await store.claim("posts/other role?") is True

    async def test_a_role_is_of_one_handle_at_a_time_until_it_is_released(self, store: Store, other: Store) -> None:
        assert await store.claim("workers") is True
        assert await other.claim("workers") is False
        await other.release("workers")
        assert await other.claim("workers") is False
        await store.release("workers")
        await store.release("workers")
        assert await other.claim("workers") is True
        assert await store.claim("workers") is False

    async def test_a_handle_for_another_thread_opens_the_same_store(self, store: Store) -> None:
        def in_another_thread() -> None:
            async def use() -> None:
                again = await store.open_again()
                assert await again.keys.get("a") is not None
                await again.keys.put("b", b"2")
                assert await again.claim("workers") is True
                await again.close()

            asyncio.run(use())

        await store.keys.put("a", b"1")
        await asyncio.to_thread(in_another_thread)
        assert await store.keys.keys() == ["a", "b"]
        assert await store.claim("workers") is True

    async def test_closing_gives_up_what_was_claimed(self, store: Store, other: Store) -> None:
        assert await store.claim("workers") is True
        await store.close()
        assert await other.claim("workers") is True

    async def test_closing_twice_is_harmless_and_keeps_the_content(self, store: Store, tmp_path: Path) -> None:
        records = await fill(store, 3)
        revision = await store.keys.put("a", b"1")
        await store.close()
        await store.close()
        again = await self.open(tmp_path)
        try:
            assert await everything(again) == records
            entry = await again.keys.get("a")
            assert entry is not None
            assert entry.revision == revision
        finally:
            await again.close()

    # Several processes.

    @asynccontextmanager
    async def _process(self, store: Store, *action: str) -> AsyncIterator[Process]:
        """A process that has opened the store and waits for its line; killed at the end."""
        if not self.shared_between_processes:
            pytest.skip("other processes can't open this store")
        command = (sys.executable, "-m", "journeyman.testing.store_process", self.opener, self.url_for_process(store))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = await asyncio.create_subprocess_exec(*command, *action, stdin=PIPE, stdout=PIPE, env=environment)
        try:
            assert await self._line(process) == "ready"
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def _line(self, process: Process) -> str:
        assert process.stdout is not None
        async with asyncio.timeout(self.patience_s):
            return (await process.stdout.readline()).decode().rstrip("\n")

    async def test_writers_in_many_processes_leave_no_gap_for_any_reader(self, store: Store) -> None:
        async with (
            self._process(store, "follow", "150") as follower,
            self._process(store, "write", "a", "50") as a,
            self._process(store, "write", "b", "50") as b,
            self._process(store, "write", "c", "50") as c,
        ):
            go(follower, a, b, c)
            assert [await self._line(writer) for writer in (a, b, c)] == ["50", "50", "50"]
            records = await everything(store)
            assert [record.position for record in records] == list(range(1, 151))
            assert Counter(record.subject for record in records) == {"a": 50, "b": 50, "c": 50}
            ids = sha256("".join(record.id for record in records).encode()).hexdigest()
            assert await self._line(follower) == ids

    async def test_no_writer_starves_another(self, store: Store) -> None:
        """When the first of several processes is done, each of the others has written a fair part of its own share."""
        share = 200
        async with (
            self._process(store, "write", "a", str(share)) as a,
            self._process(store, "write", "b", str(share)) as b,
            self._process(store, "write", "c", str(share)) as c,
        ):
            go(a, b, c)
            for writer in (a, b, c):
                assert await self._line(writer) == str(share)
        written: Counter[str | None] = Counter()
        for record in await everything(store):
            written[record.subject] += 1
            if written[record.subject] == share:
                break
        assert min(written[subject] for subject in "abc") >= share // 10, written

    async def test_an_append_of_another_process_wakes_who_waits(self, store: Store) -> None:
        async with self._process(store, "write", "a", "1") as writer:
            waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * self.patience_s))
            go(writer)
            async with asyncio.timeout(self.patience_s):
                while await store.log.head() == 0:
                    await waiting
                    waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * self.patience_s))
                await waiting

    async def test_a_role_is_refused_while_another_process_has_it_and_free_when_it_is_killed(
        self, store: Store
    ) -> None:
        async with self._process(store, "claim", "workers") as holder:
            go(holder)
            assert await self._line(holder) == "True"
            assert await store.claim("workers") is False
            assert await store.claim("something else") is True
            holder.kill()
            await holder.wait()
            # A server has to notice, and may give one who was only cut off a moment to come back.
            async with asyncio.timeout(self.patience_s):
                while not await store.claim("workers"):  # noqa: ASYNC110  # a death sets no event here
                    await asyncio.sleep(0.01)

"""The contract of a message log, as tests."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from contextlib import closing, suppress

import msgspec
import pytest

from journeyman.errors import Conflict, TooLarge, WrongLog
from journeyman.message import BODY_BYTES_MAX, Record
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Scannable, Store
from journeyman.testing.contract import EVERYTHING, Contract, append_one, everything, fill, turn_the_loop
from journeyman.testing.records import make_records

SET_ASIDE = "journeyman/message-set-aside"

#: In how many turns of the event loop a race is tried: each falls at another place of the code that is raced against.
TURNS_OF_THE_LOOP = (0, 1, 2, 3, 5, 8, 13, 34, 89, 233)


@pytest.mark.asyncio
class LogContract(Contract):
    """What every message log must do, and the turn of its writers."""

    # The log: head and read.

    async def test_the_head_of_an_empty_log_is_0(self, store: Store) -> None:
        assert await store.log.head() == 0
        assert await store.log.read(0, 10) == []

    async def test_the_head_is_the_last_position(self, store: Store, other: Store) -> None:
        await fill(store, 3)
        assert await store.log.head() == 3
        assert await other.log.head() == 3

    async def test_records_come_in_order_without_gaps(self, store: Store, other: Store) -> None:
        first = await fill(store, 3)
        second = await fill(other, 2, after=3)
        assert await everything(store) == first + second
        assert await everything(other) == first + second
        assert [record.position for record in await everything(store)] == [1, 2, 3, 4, 5]

    async def test_read_begins_above_after(self, store: Store) -> None:
        records = await fill(store, 5)
        assert await store.log.read(2, 10) == records[2:]
        assert await store.log.read(5, 10) == []
        assert await store.log.read(9, 10) == []

    async def test_read_gives_at_most_limit_records(self, store: Store) -> None:
        records = await fill(store, 5)
        assert await store.log.read(0, 3) == records[:3]
        assert await store.log.read(2, 1) == records[2:3]
        assert await store.log.read(0, 0) == []

    async def test_read_gives_fewer_than_limit_only_at_the_head(self, store: Store) -> None:
        """However many are asked for: a backend may read in chunks, a caller need not know."""
        records: list[Record] = []
        for _ in range(5):
            records += await fill(store, BATCH_RECORDS_MAX, after=len(records))
        assert await store.log.read(0, 4500) == records[:4500]
        assert await store.log.read(0, 5000) == records
        assert await store.log.read(0, 5001) == records

    async def test_a_scan_gives_all_that_is_there_in_batches(self, store: Store) -> None:
        """Where the backend offers it. Others may append meanwhile, which may be seen or not."""
        log = store.log
        if not isinstance(log, Scannable):
            pytest.skip("this log offers no scan")
        records = await fill(store, 5)
        scanned = await asyncio.to_thread(lambda: list(log.scan(1, 2)))
        assert scanned == [records[1:3], records[3:5]]
        assert await asyncio.to_thread(_scan_and_leave, log, 0) == records[:3]
        await fill(store, 1, after=5)
        assert await asyncio.to_thread(_scan_and_leave, log, 5) == (await everything(store))[5:]
        assert await asyncio.to_thread(_scan_and_leave, log, 6) == []

    async def test_read_by_name_gives_only_that_name(self, store: Store) -> None:
        for name in ("posts/create", SET_ASIDE):
            await self._check_reading_by_name(store, name)

    async def _check_reading_by_name(self, store: Store, name: str) -> None:
        start = await store.log.head()
        for number in range(12):
            await fill(store, 1, after=start + number, name=name if number % 3 == 1 else "posts/other")
        named = [record for record in await store.log.read(start, EVERYTHING) if record.name == name]
        assert await store.log.read(start, 10, name=name) == named
        assert await store.log.read(start, 2, name=name) == named[:2]
        assert await store.log.read(named[0].position, 2, name=name) == named[1:3]
        assert await store.log.read(named[-1].position, 2, name=name) == []
        assert await store.log.read(start, 10, name="posts/never-used") == []

    async def test_every_field_comes_back_as_it_was_written(self, store: Store, other: Store) -> None:
        [bare] = make_records(1)
        full = msgspec.structs.replace(
            bare,
            position=2,
            name="straßen/öffnen",
            version=7,
            subject="文章 🦉 e\u0301",
            body='{"title": "naïve \\u0000 🦉"}'.encode(),
            recorded_at_us=4_102_444_800_123_456,
            correlation_id="c" * 36,
            causation_id="d" * 36,
            actor="Zoë",
            idempotency_key="key with 'quotes' and \\",
            fence=2**53 - 1,
            meta='{"traceparent":"00-…"}'.encode(),
        )
        empty = msgspec.structs.replace(full, position=3, subject="", body=b"", actor="", meta=b"", fence=0)
        octets = msgspec.structs.replace(bare, position=4, body=bytes(range(256)), recorded_at_us=0)
        written = [bare, full, empty, octets]
        await store.log.append(written, after=0)
        assert await everything(store) == written
        assert await everything(other) == written

    # The log: append.

    async def test_append_of_a_different_id_is_a_conflict(self, store: Store, other: Store) -> None:
        first = await fill(store, 3)
        for handle in (store, other):
            with pytest.raises(Conflict) as conflict:
                await handle.log.append(make_records(1, after=1), after=1)
            assert (conflict.value.expected, conflict.value.head) == (1, 3)
        assert await everything(store) == first

    async def test_append_beyond_the_head_is_the_wrong_log(self, store: Store) -> None:
        first = await fill(store, 2)
        with pytest.raises(WrongLog):
            await store.log.append(make_records(1, after=5), after=5)
        assert await everything(store) == first

    async def test_an_identical_append_succeeds_again_and_writes_once(self, store: Store, other: Store) -> None:
        for size in (1, 4):
            after = await store.log.head()
            batch = await fill(store, size, after=after)
            await store.log.append(batch, after=after)
            await other.log.append(batch, after=after)
            assert await store.log.read(after, EVERYTHING) == batch

    async def test_an_identical_append_succeeds_after_others_appended_behind_it(
        self, store: Store, other: Store
    ) -> None:
        for size in (1, 4):
            after = await store.log.head()
            batch = await fill(store, size, after=after)
            await fill(other, 3, after=after + size)
            await store.log.append(batch, after=after)
            assert await store.log.head() == after + size + 3

    async def test_a_batch_that_differs_in_one_id_is_a_conflict(self, store: Store) -> None:
        batch = await fill(store, 3)
        for changed in range(3):
            almost = [*batch]
            almost[changed] = make_records(1, after=changed)[0]
            with pytest.raises(Conflict):
                await store.log.append(almost, after=0)
        assert await everything(store) == batch

    async def test_an_empty_batch_only_checks_the_head(self, store: Store) -> None:
        await store.log.append([], after=0)
        await fill(store, 2)
        await store.log.append([], after=2)
        with pytest.raises(Conflict):
            await store.log.append([], after=1)
        with pytest.raises(WrongLog):
            await store.log.append([], after=3)
        assert await store.log.head() == 2

    async def test_wrong_positions_are_the_callers_defect(self, store: Store) -> None:
        one, two = make_records(2)
        for records in ([two], [two, one], [one, one]):
            with pytest.raises(ValueError, match="position"):
                await store.log.append(records, after=0)
        assert await store.log.head() == 0

    async def test_the_greatest_body_and_the_greatest_batches_are_taken(self, store: Store) -> None:
        largest = BATCH_BYTES_MAX // BODY_BYTES_MAX
        big = make_records(largest, body=os.urandom(BODY_BYTES_MAX))
        await store.log.append(big, after=0)
        many = await fill(store, BATCH_RECORDS_MAX, after=largest)
        assert await everything(store) == big + many

    async def test_what_is_over_a_limit_is_too_large_and_not_written(self, store: Store) -> None:
        batches = [
            make_records(1, body=bytes(BODY_BYTES_MAX + 1)),
            make_records(BATCH_RECORDS_MAX + 1),
            make_records(BATCH_BYTES_MAX // BODY_BYTES_MAX + 1, body=bytes(BODY_BYTES_MAX)),
        ]
        for batch in batches:
            with pytest.raises(TooLarge):
                await store.log.append(batch, after=0)
        assert await store.log.head() == 0

    async def test_a_batch_is_seen_whole_or_not_at_all(self, store: Store, other: Store) -> None:
        async def append() -> None:
            for number in range(20):
                await fill(store, 10, after=number * 10)

        appending = asyncio.create_task(append())
        sizes = {0}
        async with asyncio.timeout(self.patience_s):
            while max(sizes) < 200:
                sizes |= {await other.log.head(), len(await everything(other))}
        await appending
        assert {size % 10 for size in sizes} == {0}

    async def test_of_two_racing_batches_one_is_written_whole(self, store: Store, other: Store) -> None:
        for number in range(10):
            after = number * 5
            ours, theirs = make_records(5, after=after), make_records(5, after=after)
            outcomes = await asyncio.gather(
                store.log.append(ours, after=after), other.log.append(theirs, after=after), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes if outcome is not None] == [Conflict]
            assert await store.log.read(after, EVERYTHING) == (theirs if outcomes[0] else ours)

    async def test_writers_in_many_tasks_lose_and_double_nothing(self, store: Store, other: Store) -> None:
        async def write(handle: Store, subject: str) -> None:
            for _ in range(25):
                await append_one(handle, subject)

        async with asyncio.timeout(self.patience_s), asyncio.TaskGroup() as writers:
            for number in range(4):
                writers.create_task(write((store, other)[number % 2], str(number)))
        records = await everything(store)
        assert [record.position for record in records] == list(range(1, 101))
        assert Counter(record.subject for record in records) == {str(number): 25 for number in range(4)}
        assert len({record.id for record in records}) == 100
        assert await everything(other) == records

    async def test_after_a_lost_reply_the_identical_append_settles_it(self, store: Store) -> None:
        """A caller that was cancelled can't know what happened; the identical call makes it one, whatever it was."""
        written: list[Record] = []
        for turns in TURNS_OF_THE_LOOP:
            batch = make_records(3, after=len(written))
            lost = asyncio.create_task(store.log.append(batch, after=len(written)))
            await turn_the_loop(turns)
            lost.cancel()
            await store.log.append(batch, after=len(written))
            written += batch
            with suppress(asyncio.CancelledError):
                await lost
        assert await everything(store) == written

    # The log: wait.

    async def test_wait_returns_at_once_when_the_log_is_longer(self, store: Store, other: Store) -> None:
        await fill(store, 2)
        async with asyncio.timeout(self.patience_s):
            await store.log.wait(1, timeout_s=2 * self.patience_s)
            await other.log.wait(0, timeout_s=2 * self.patience_s)

    async def test_wait_gives_way_to_other_tasks_even_when_it_need_not_wait(self, store: Store) -> None:
        await fill(store, 1)
        turned = asyncio.Event()
        asyncio.get_running_loop().call_soon(turned.set)
        await store.log.wait(0, timeout_s=0)
        assert turned.is_set()

    async def test_wait_returns_after_its_timeout(self, store: Store) -> None:
        await fill(store, 1)
        async with asyncio.timeout(self.patience_s):
            await store.log.wait(1, timeout_s=0.05)
            await store.log.wait(1, timeout_s=0)

    async def test_an_append_wakes_who_waits_on_the_same_handle(self, store: Store) -> None:
        await self._check_waking(store, store)

    async def test_an_append_wakes_who_waits_on_another_handle(self, store: Store, other: Store) -> None:
        await self._check_waking(store, other)

    async def _check_waking(self, writer: Store, waiter: Store) -> None:
        async def wait_for(position: int) -> None:
            while await waiter.log.head() < position:
                await waiter.log.wait(position - 1, timeout_s=2 * self.patience_s)

        for number, turns in enumerate(TURNS_OF_THE_LOOP):
            waiting = [asyncio.create_task(wait_for(number + 1)) for _ in range(3)]
            await turn_the_loop(turns)
            await fill(writer, 1, after=number)
            async with asyncio.timeout(self.patience_s):
                await asyncio.gather(*waiting)

    async def test_a_cancelled_wait_disturbs_nobody(self, store: Store) -> None:
        for number, turns in enumerate(TURNS_OF_THE_LOOP):
            staying = asyncio.create_task(store.log.wait(number, timeout_s=2 * self.patience_s))
            leaving = asyncio.create_task(store.log.wait(number, timeout_s=2 * self.patience_s))
            await turn_the_loop(turns)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            await fill(store, 1, after=number)
            async with asyncio.timeout(self.patience_s):
                await staying

    # The writer's turn.

    async def test_the_holder_of_the_turn_appends_as_usual(self, store: Store, other: Store) -> None:
        async with store.log.turn():
            await fill(store, 2)
            await store.keys.put("a", b"1")
        async with other.log.turn():
            await fill(other, 1, after=2)
        await fill(store, 1, after=3)
        assert await store.log.head() == 4

    async def test_appends_of_others_wait_while_the_turn_is_held(self, store: Store, other: Store) -> None:
        if not self.has_turns:
            pytest.skip("this backend has no turns")
        held = asyncio.Event()

        async def append_at_1() -> None:
            await held.wait()
            await other.log.append(make_records(1), after=0)

        # Started before the turn: a task that its holder starts would append on the holder's behalf.
        rival = asyncio.create_task(append_at_1())
        async with store.log.turn():
            held.set()
            await store.log.wait(0, timeout_s=0.2)
            assert await store.log.head() == 0
            for number in range(5):
                await fill(store, 1, after=number)
            assert not rival.done()
        with pytest.raises(Conflict) as conflict:
            await rival
        assert conflict.value.head == 5

    async def test_one_holds_the_turn_at_a_time(self, store: Store, other: Store) -> None:
        if not self.has_turns:
            pytest.skip("this backend has no turns")
        holders = 0

        async def take_turns(handle: Store) -> None:
            nonlocal holders
            for _ in range(5):
                async with handle.log.turn():
                    holders += 1
                    await append_one(handle, "")
                    assert holders == 1
                    holders -= 1

        async with asyncio.timeout(self.patience_s):
            await asyncio.gather(*(take_turns(handle) for handle in (store, store, other, other)))

    async def test_a_cancelled_holder_gives_the_turn_back(self, store: Store, other: Store) -> None:
        held = asyncio.Event()

        async def hold() -> None:
            async with store.log.turn():
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        await held.wait()
        holder.cancel()
        async with asyncio.timeout(self.patience_s):
            await fill(other, 1)

    async def test_a_cancelled_wait_for_the_turn_leaves_it_to_others(self, store: Store, other: Store) -> None:
        async def take() -> None:
            async with store.log.turn():
                pass

        for number, turns in enumerate(TURNS_OF_THE_LOOP):
            waiting = asyncio.create_task(take())
            async with other.log.turn():
                await turn_the_loop(turns)
                waiting.cancel()
            async with asyncio.timeout(self.patience_s):
                await fill(other, 1, after=number)
            with suppress(asyncio.CancelledError):
                await waiting


def _scan_and_leave(log: Scannable, after: int) -> list[Record]:
    """The first batch of a scan that is closed before its end."""
    with closing(log.scan(after, 3)) as batches:
        return next(batches, [])

"""The contract of a store, sentence by sentence, as tests. A backend joins in five lines::

    class TestMyStore(StoreContract):
        shared_between_processes = True

        async def open(self, place: Path) -> Store:
            return await open_store(f"my-store:///{place}/log")

Needs pytest and pytest-asyncio. `store` and `other` are two handles on one fresh store.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from journeyman.errors import Conflict, TooLarge, WrongLog
from journeyman.message import BODY_BYTES_MAX, Record
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, KEY_LENGTH_MAX, VALUE_BYTES_MAX, Store
from journeyman.testing.records import make_records

SET_ASIDE = "journeyman/message-set-aside"

#: More than any reading needs here.
EVERYTHING = 100_000

#: In how many turns of the event loop a race is tried: each falls at another place of the code that is raced against.
TURNS_OF_THE_LOOP = (0, 1, 2, 3, 5, 8, 13, 34, 89, 233)


@pytest.mark.asyncio
class StoreContract:
    """What every store must do. Override `open`, and the attributes where they differ."""

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

    # The key-value table.

    async def test_a_key_that_was_never_put_has_no_entry(self, store: Store) -> None:
        assert await store.keys.get("a") is None
        assert await store.keys.keys() == []

    async def test_a_value_comes_back_with_its_revision(self, store: Store, other: Store) -> None:
        for value in (b"one", b"", bytes(range(256))):
            revision = await store.keys.put("a", value)
            for handle in (store, other):
                entry = await handle.keys.get("a")
                assert entry is not None
                assert (entry.value, entry.revision) == (value, revision)

    async def test_a_revision_grows_with_each_put_and_is_never_0(self, store: Store, other: Store) -> None:
        revisions = [revision_of(await handle.keys.put("a", b"same")) for handle in (store, other, store)]
        assert revisions == sorted(set(revisions))
        assert revisions[0] > 0

    async def test_put_with_expect_changes_only_that_revision(self, store: Store) -> None:
        first = revision_of(await store.keys.put("a", b"1"))
        second = revision_of(await store.keys.put("a", b"2", expect=first))
        for wrong in (0, first, second + 1):
            assert await store.keys.put("a", b"3", expect=wrong) is None
        entry = await store.keys.get("a")
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", second)

    async def test_expect_0_is_for_a_key_that_does_not_exist(self, store: Store) -> None:
        assert await store.keys.put("a", b"1", expect=5) is None
        assert await store.keys.get("a") is None
        first = await store.keys.put("a", b"1", expect=0)
        assert first
        assert await store.keys.put("a", b"2", expect=0) is None
        assert await store.keys.delete("a")
        assert await store.keys.put("a", b"3", expect=0)

    async def test_a_deleted_key_never_gets_an_old_revision_again(self, store: Store) -> None:
        """Else a writer that slept through delete and put would overwrite what it has never seen."""
        first = revision_of(await store.keys.put("a", b"1"))
        await store.keys.delete("a")
        assert revision_of(await store.keys.put("a", b"2")) > first
        assert await store.keys.put("a", b"3", expect=first) is None

    async def test_delete_removes_a_key(self, store: Store, other: Store) -> None:
        await store.keys.put("a", b"1")
        await store.keys.put("b", b"1")
        assert await other.keys.delete("a") is True
        assert await store.keys.get("a") is None
        assert await store.keys.keys() == ["b"]
        assert await store.keys.delete("a") is False

    async def test_delete_with_expect_removes_only_that_revision(self, store: Store) -> None:
        first = revision_of(await store.keys.put("a", b"1"))
        second = revision_of(await store.keys.put("a", b"2"))
        for wrong in (0, first, second + 1):
            assert await store.keys.delete("a", expect=wrong) is False
        assert await store.keys.get("a") is not None
        assert await store.keys.delete("a", expect=second) is True
        assert await store.keys.delete("a", expect=0) is False

    async def test_keys_are_those_with_the_prefix_sorted(self, store: Store) -> None:
        keys = ["a", "a/2", "a/1", "a_", "b", "a%", "B", "ä", "a/ü", "🦉"]
        for key in keys:
            await store.keys.put(key, b"")
        for prefix in ("", "a", "a/", "a_", "a%", "%", "B", "c", "🦉"):
            assert await store.keys.keys(prefix) == sorted(key for key in keys if key.startswith(prefix))

    async def test_the_longest_key_and_the_largest_value_are_taken(self, store: Store) -> None:
        key, value = "k" * KEY_LENGTH_MAX, os.urandom(VALUE_BYTES_MAX)
        assert await store.keys.put(key, value)
        entry = await store.keys.get(key)
        assert entry is not None
        assert entry.value == value

    async def test_a_key_or_value_over_its_limit_is_too_large(self, store: Store) -> None:
        with pytest.raises(TooLarge):
            await store.keys.put("k" * (KEY_LENGTH_MAX + 1), b"")
        with pytest.raises(TooLarge):
            await store.keys.put("a", bytes(VALUE_BYTES_MAX + 1))
        assert await store.keys.keys() == []

    async def test_of_many_who_expect_one_revision_one_wins(self, store: Store, other: Store) -> None:
        async def count_to_20(handle: Store) -> None:
            counted = 0
            while counted < 20:
                entry = await handle.keys.get("count")
                value, revision = (int(entry.value), entry.revision) if entry else (0, 0)
                await asyncio.sleep(0)
                counted += await handle.keys.put("count", str(value + 1).encode(), expect=revision) is not None

        async with asyncio.timeout(self.patience_s):
            await asyncio.gather(*(count_to_20(handle) for handle in (store, other, store, other)))
        entry = await store.keys.get("count")
        assert entry is not None
        assert entry.value == b"80"

    # Blobs.

    async def test_a_blob_is_what_was_saved_under_its_name_last(self, store: Store, other: Store) -> None:
        assert await store.blobs.load("a/b 1") is None
        await store.blobs.save("a/b 1", iter([b"one", b"", b"two"]))
        assert await other.blobs.load("a/b 1") == b"onetwo"
        await other.blobs.save("a/b 1", [b"three"])
        await store.blobs.save("0", [])
        assert await store.blobs.load("a/b 1") == b"three"
        assert await store.blobs.sizes() == {"0": 0, "a/b 1": 5}

    async def test_a_blob_that_is_not_whole_is_not_there(self, store: Store) -> None:
        def broken() -> Iterator[bytes]:
            yield b"half"
            raise ZeroDivisionError

        await store.blobs.save("a", [b"old"])
        with pytest.raises(ZeroDivisionError):
            await store.blobs.save("a", broken())
        assert await store.blobs.load("a") == b"old"
        assert await store.blobs.sizes() == {"a": 3}

    async def test_a_deleted_blob_is_gone(self, store: Store, other: Store) -> None:
        await store.blobs.save("a", [b"1"])
        await other.blobs.delete("a")
        await other.blobs.delete("a")
        assert await store.blobs.load("a") is None
        assert await store.blobs.sizes() == {}

    async def test_a_large_blob_holds_nobody_up(self, store: Store) -> None:
        """Its parts are made in another thread, while the log goes on."""
        go = threading.Event()

        def parts() -> Iterator[bytes]:
            assert go.wait(self.patience_s)
            yield b"x"

        saving = asyncio.create_task(store.blobs.save("a", parts()))
        try:
            async with asyncio.timeout(self.patience_s):
                await fill(store, 1)
                assert await store.log.head() == 1
        finally:
            go.set()
            await saving

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
            assert await store.claim("workers") is True


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

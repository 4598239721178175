"""The contract suite catches what it is for: each store here has one fault, and fails the test that is named."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from journeyman.errors import Conflict, StoreError, WrongLog
from journeyman.message import Record
from journeyman.store import Entry, Store, open_store
from journeyman.store.memory import MemoryBlobs, MemoryKeys, MemoryLog, MemoryStore
from journeyman.testing.store_contract import StoreContract


class AppendsAnywhere(MemoryLog):
    """Ignores `after`."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        await super().append(placed(records, await self.head()), after=await self.head())


class AppendsTwice(MemoryLog):
    """Is not idempotent: its own batch, again, is a conflict."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        head = await self.head()
        if after < head:
            raise Conflict(expected=after, head=head)
        await super().append(records, after=after)


class ForgetsItsBatchOnceOthersAppended(MemoryLog):
    """Recognises its own batch only at the end of the log."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        head = await self.head()
        if head > after + len(records):
            raise Conflict(expected=after, head=head)
        await super().append(records, after=after)


class ComparesTheFirstIdOnly(MemoryLog):
    """Takes a batch for written when its first record is."""

    def _write(self, records: Sequence[Record], after: int) -> None:
        if [record.id for record in self._records[after : after + 1]] != [record.id for record in records[:1]]:
            super()._write(records, after)


class ComparesNothing(MemoryLog):
    """Takes whatever is not at the head for written before."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        if after >= await self.head():
            await super().append(records, after=after)


class LeavesGaps(MemoryLog):
    """Appends beyond the head."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        try:
            await super().append(records, after=after)
        except WrongLog:
            self._records += records


class WritesOneByOne(MemoryLog):
    """Lets others see, and come between, the records of a batch."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        await super().append(records[:1], after=after)
        for record in records[1:]:
            await super().append([record], after=record.position - 1)


class LeavesHalfOfACancelledAppend(MemoryLog):
    """Writes a batch in two steps, and only the first when its caller goes away in between."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        if await self.head() == after:
            self._write(records[:1], after)
            await asyncio.sleep(0)
            self._records += records[1:]
        self._write(records, after)


class IgnoresItsLimits(MemoryLog):
    """Takes batches of any size."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        if [record.position for record in records] != list(range(after + 1, after + 1 + len(records))):
            raise ValueError("wrong positions")
        self._write(records, after)


class IgnoresPositions(MemoryLog):
    """Takes batches with any positions."""

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        await super().append(placed(records, after), after=after)


class ReadsBackwards(MemoryLog):
    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return (await super().read(after, limit, name=name))[::-1]


class ReadsFromAfter(MemoryLog):
    """Gives the record at `after` again."""

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return await super().read(max(0, after - 1), limit, name=name)


class SkipsARecord(MemoryLog):
    """Never shows position 4."""

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records = await super().read(after, limit, name=name)
        return [record for record in records if record.position != 4]


class ReadsShort(MemoryLog):
    """Gives at most 2000 records, however many are asked for."""

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return await super().read(after, min(limit, 2000), name=name)


class IgnoresLimit(MemoryLog):
    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return await super().read(after, 100_000, name=name)


class IgnoresName(MemoryLog):
    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return await super().read(after, limit)


class FiltersAfterTheLimit(MemoryLog):
    """Counts records of other names as read."""

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return [record for record in await super().read(after, limit) if name in (None, record.name)]


class DropsMeta(MemoryLog):
    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records = await super().read(after, limit, name=name)
        return [Record(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "meta": None}) for r in records]


class MakesEmptyNone(MemoryLog):
    """Stores an empty text as NULL, as some databases do."""

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        records = await super().read(after, limit, name=name)
        return [
            Record(**{**{f: getattr(r, f) for f in r.__struct_fields__}, "actor": r.actor or None}) for r in records
        ]


class NeverWakes(MemoryLog):
    async def wait(self, after: int, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)


class WakesOnlyOne(MemoryLog):
    """Wakes one of those who wait."""

    def _write(self, records: Sequence[Record], after: int) -> None:
        everybody = self._waiting
        self._waiting = set(list(everybody)[:1])
        super()._write(records, after)
        self._waiting = everybody


class LosesAWakeUp(MemoryLog):
    """Looks at the head, then registers, with a gap between the two that an append can fall into."""

    async def wait(self, after: int, timeout_s: float) -> None:
        if await self.head() <= after:
            await asyncio.sleep(0)
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            await asyncio.wait((waiting,), timeout=timeout_s)


class KeepsTheLoop(MemoryLog):
    """Returns without giving way, when the log is longer: who waits in a loop keeps the loop for ever."""

    async def wait(self, after: int, timeout_s: float) -> None:
        if await self.head() <= after:
            await super().wait(after, timeout_s)


class IgnoresTheTimeout(MemoryLog):
    async def wait(self, after: int, timeout_s: float) -> None:
        await super().wait(after, timeout_s=1000)


class KeepsTheTurn(MemoryLog):
    """Does not give the turn back when its holder is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._turns.release = lambda: None  # type: ignore[method-assign]


class IgnoresTurns(MemoryLog):
    async def append(self, records: Sequence[Record], *, after: int) -> None:
        self._write(records, after)


class SharesTheTurn(MemoryLog):
    """Gives the turn to everybody."""

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        yield


class IgnoresExpect(MemoryKeys):
    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        return await super().put(key, value)


class IgnoresExpectZero(MemoryKeys):
    """Takes an expectation of 0 for none."""

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        return await super().put(key, value, expect=expect or None)


class DeletesAnything(MemoryKeys):
    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        return await super().delete(key)


class BeginsAgainAfterDelete(MemoryKeys):
    """Counts revisions for each key, from 1 after a delete."""

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        if expect not in (None, self._revision(key)):
            return None
        self._entries[key] = Entry(value=value, revision=self._revision(key) + 1)
        return self._revision(key)


class ChecksThenPuts(MemoryKeys):
    """Compares and sets with a gap between the two."""

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        if expect not in (None, self._revision(key)):
            return None
        await asyncio.sleep(0)
        return await super().put(key, value)


class SortsNothing(MemoryKeys):
    async def keys(self, prefix: str = "") -> list[str]:
        return [key for key in self._entries if key.startswith(prefix)]


class MatchesAPattern(MemoryKeys):
    """Takes % and _ in a prefix for wildcards."""

    async def keys(self, prefix: str = "") -> list[str]:
        return await super().keys(prefix.rstrip("%_"))


class ForgetsAtClose(MemoryStore):
    async def close(self) -> None:
        self.log, self.keys = MemoryLog(), MemoryKeys()


class KeepsHalfABlob(MemoryBlobs):
    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        self._values[name] = b""
        for part in parts:
            self._values[name] += part


class NeverDeletesABlob(MemoryBlobs):
    async def delete(self, name: str) -> None:
        pass


class AddsToABlob(MemoryBlobs):
    async def save(self, name: str, parts: Iterable[bytes]) -> None:
        await super().save(name, [self._values.get(name, b""), *parts])


class GivesARoleTwice(MemoryStore):
    async def claim(self, role: str) -> bool:
        return True


class NeverReleases(MemoryStore):
    async def release(self, role: str) -> None:
        pass


class OpensAnother(MemoryStore):
    async def open_again(self) -> MemoryStore:
        return MemoryStore()


class KeepsClaimsWhenClosed(MemoryStore):
    async def close(self) -> None:
        pass


class RefusesItsOwnClaim(MemoryStore):
    claimed = False

    async def claim(self, role: str) -> bool:
        first, self.claimed = not self.claimed, True
        return first


CAUGHT_BY: dict[type, str] = {
    AppendsAnywhere: "test_append_of_a_different_id_is_a_conflict",
    AppendsTwice: "test_an_identical_append_succeeds_again_and_writes_once",
    ForgetsItsBatchOnceOthersAppended: "test_an_identical_append_succeeds_after_others_appended_behind_it",
    ComparesTheFirstIdOnly: "test_a_batch_that_differs_in_one_id_is_a_conflict",
    ComparesNothing: "test_append_of_a_different_id_is_a_conflict",
    LeavesGaps: "test_append_beyond_the_head_is_the_wrong_log",
    WritesOneByOne: "test_a_batch_is_seen_whole_or_not_at_all",
    LeavesHalfOfACancelledAppend: "test_after_a_lost_reply_the_identical_append_settles_it",
    IgnoresItsLimits: "test_what_is_over_a_limit_is_too_large_and_not_written",
    IgnoresPositions: "test_wrong_positions_are_the_callers_defect",
    ReadsBackwards: "test_records_come_in_order_without_gaps",
    ReadsFromAfter: "test_read_begins_above_after",
    SkipsARecord: "test_records_come_in_order_without_gaps",
    ReadsShort: "test_read_gives_fewer_than_limit_only_at_the_head",
    IgnoresLimit: "test_read_gives_at_most_limit_records",
    IgnoresName: "test_read_by_name_gives_only_that_name",
    FiltersAfterTheLimit: "test_read_by_name_gives_only_that_name",
    DropsMeta: "test_every_field_comes_back_as_it_was_written",
    MakesEmptyNone: "test_every_field_comes_back_as_it_was_written",
    KeepsTheLoop: "test_wait_gives_way_to_other_tasks_even_when_it_need_not_wait",
    NeverWakes: "test_an_append_wakes_who_waits_on_another_handle",
    WakesOnlyOne: "test_an_append_wakes_who_waits_on_the_same_handle",
    LosesAWakeUp: "test_an_append_wakes_who_waits_on_the_same_handle",
    IgnoresTheTimeout: "test_wait_returns_after_its_timeout",
    KeepsTheTurn: "test_a_cancelled_holder_gives_the_turn_back",
    IgnoresTurns: "test_appends_of_others_wait_while_the_turn_is_held",
    SharesTheTurn: "test_one_holds_the_turn_at_a_time",
    IgnoresExpect: "test_put_with_expect_changes_only_that_revision",
    IgnoresExpectZero: "test_expect_0_is_for_a_key_that_does_not_exist",
    DeletesAnything: "test_delete_with_expect_removes_only_that_revision",
    BeginsAgainAfterDelete: "test_a_deleted_key_never_gets_an_old_revision_again",
    ChecksThenPuts: "test_of_many_who_expect_one_revision_one_wins",
    SortsNothing: "test_keys_are_those_with_the_prefix_sorted",
    MatchesAPattern: "test_keys_are_those_with_the_prefix_sorted",
    ForgetsAtClose: "test_closing_twice_is_harmless_and_keeps_the_content",
    KeepsHalfABlob: "test_a_blob_that_is_not_whole_is_not_there",
    NeverDeletesABlob: "test_a_deleted_blob_is_gone",
    AddsToABlob: "test_a_blob_is_what_was_saved_under_its_name_last",
    GivesARoleTwice: "test_a_role_is_of_one_handle_at_a_time_until_it_is_released",
    NeverReleases: "test_a_role_is_of_one_handle_at_a_time_until_it_is_released",
    OpensAnother: "test_a_handle_for_another_thread_opens_the_same_store",
    KeepsClaimsWhenClosed: "test_closing_gives_up_what_was_claimed",
    RefusesItsOwnClaim: "test_a_claimed_role_can_be_claimed_again_by_its_holder",
}


#: How a test of the suite fails; anything else is a defect of the planted fault itself.
FAILURE = (AssertionError, pytest.fail.Exception, StoreError, TimeoutError)


@pytest.mark.parametrize("fault", CAUGHT_BY, ids=lambda fault: fault.__name__)
async def test_the_suite_catches(fault: type, tmp_path: Path) -> None:
    assert isinstance(await failure(InMemory(lambda: faulty(fault)), CAUGHT_BY[fault], tmp_path), FAILURE)


async def test_the_suite_passes_a_store_without_fault(tmp_path: Path) -> None:
    """The same runner finds nothing where nothing is: so what it finds above is the fault."""
    for name in sorted(set(CAUGHT_BY.values())):
        assert await failure(InMemory(MemoryStore), name, tmp_path) is None, name


def faulty(fault: type) -> MemoryStore:
    """A store with that fault, in the part that it belongs to."""
    if issubclass(fault, MemoryStore):
        return fault()
    store = MemoryStore()
    if issubclass(fault, MemoryLog):
        store.log = fault()
    if issubclass(fault, MemoryKeys):
        store.keys = fault()
    if issubclass(fault, MemoryBlobs):
        store.blobs = fault()
    return store


class InMemory(StoreContract):
    has_turns = True
    patience_s = 0.3
    opened = 0

    def __init__(self, make_store: Callable[[], MemoryStore]) -> None:
        self.one = make_store()

    async def open(self, place: Path) -> Store:
        """The one at first; then other handles on it."""
        self.opened += 1
        return self.one if self.opened == 1 or isinstance(self.one, ForgetsAtClose) else type(self.one)(same=self.one)


async def failure(suite: StoreContract, test: str, place: Path) -> BaseException | None:
    """Run one test of the suite; return what it failed with, or None."""
    method = getattr(suite, test)
    async with AsyncExitStack() as stack:
        arguments: dict[str, object] = {"tmp_path": place}
        for handle in ("store", "other"):
            arguments[handle] = store = await suite.open(place)
            stack.push_async_callback(store.close)
        try:
            await method(**{name: arguments[name] for name in inspect.signature(method).parameters})
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  Any failure is an answer here.
            return error
    return None


def placed(records: Sequence[Record], after: int) -> list[Record]:
    """The same records at the positions after+1 …"""
    fields = [{field: getattr(record, field) for field in record.__struct_fields__} for record in records]
    return [Record(**{**values, "position": after + 1 + number}) for number, values in enumerate(fields)]


class InProcesses(StoreContract):
    """The SQLite store, opened in other processes by one of the functions below."""

    shared_between_processes = True

    def __init__(self, opener: Callable[[str], Awaitable[Store]] = open_store) -> None:
        self.opener = f"{opener.__module__}:{opener.__name__}"

    async def open(self, place: Path) -> Store:
        return await open_store(f"sqlite:///{place}/log.db")


async def open_with_a_gap(url: str) -> Store:
    """A store that skips a record that others wrote."""
    store = await open_store(url)
    read = store.log.read

    async def skipping(after: int, limit: int, *, name: str | None = None) -> list[Record]:
        return [record for record in await read(after, limit, name=name) if record.position != 77]

    store.log.read = skipping  # type: ignore[method-assign]
    return store


async def open_greedily(url: str) -> Store:
    """A store whose first writer keeps the turn for its first 200 appends."""
    store = await open_store(url)
    append, turn = store.log.append, AsyncExitStack()
    appended = 0

    async def greedy(records: Sequence[Record], *, after: int) -> None:
        nonlocal appended
        if await store.keys.put("greedy", b"", expect=0):
            await turn.enter_async_context(store.log.turn())
        await append(records, after=after)
        appended += 1
        if appended == 200:
            await turn.aclose()

    store.log.append = greedy  # type: ignore[method-assign]
    return store


async def open_alone(url: str) -> Store:
    """A store that gives every role to everybody."""
    store = await open_store(url)

    async def claim(role: str) -> bool:
        return True

    store.claim = claim  # type: ignore[method-assign]
    return store


@pytest.mark.parametrize(
    ("opener", "test"),
    [
        (open_with_a_gap, "test_writers_in_many_processes_leave_no_gap_for_any_reader"),
        (open_greedily, "test_no_writer_starves_another"),
    ],
    ids=["open_with_a_gap", "open_greedily"],
)
async def test_the_suite_catches_between_processes(
    opener: Callable[[str], Awaitable[Store]], test: str, tmp_path: Path
) -> None:
    assert isinstance(await failure(InProcesses(opener), test, tmp_path), AssertionError)


async def test_the_suite_catches_a_role_that_two_processes_have(tmp_path: Path) -> None:
    class Alone(InProcesses):
        async def open(self, place: Path) -> Store:
            return await open_alone(f"sqlite:///{place}/log.db")

    test = "test_a_role_is_refused_while_another_process_has_it_and_free_when_it_is_killed"
    assert isinstance(await failure(Alone(), test, tmp_path), FAILURE)

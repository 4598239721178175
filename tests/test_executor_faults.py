"""Whatever the store does, every caller is told the truth, the log has each command once, and queries go on."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from journeyman import App, Busy, NotReady, NotRunning, OutcomeUnknown, Rejected
from journeyman.errors import Conflict, Corrupt, WrongLog
from journeyman.store.memory import MemoryLog, MemoryStore
from journeyman.testing.faults import Append, FaultyStore, Held, ReplyHeld, lose_reply, lose_request, refuse, work
from journeyman.testing.records import make_records
from tests.notes import (
    HASTY,
    PATIENT,
    Change,
    Create,
    List,
    Weigh,
    create_elsewhere,
    everything,
    notes,
    overtake,
    replayed_hash,
    running,
    subjects,
    submit,
)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def log(store: FaultyStore) -> MemoryLog:
    real = store.faulty_log.real
    assert isinstance(real, MemoryLog)
    return real


def stalled_s(app: App) -> float | None:
    return app.stalled_s


# An append that stays unsettled.


async def test_while_an_append_is_unsettled_queries_go_on_and_commands_are_busy(store: FaultyStore) -> None:
    async with running(store, limits=HASTY) as app:
        await app.execute(Create(note_id="before"))
        assert stalled_s(app) is None
        held = store.faulty_log.fail_next(Held())
        batch = submit(app, Create(note_id="a"), Create(note_id="a"))
        await held.arrived.wait()
        waiting = submit(app, Create(note_id="b"))
        assert await app.query(List()) == ("before",)
        assert app.position == 1
        assert (stalled_s(app) or -1) >= 0
        with pytest.raises(Busy):
            await waiting[0]
        with pytest.raises(Busy):
            await app.execute(Create(note_id="c"))
        assert not any(caller.done() for caller in batch)
        store.faulty_log.hold_reads()  # What is told must be seen at once, not when the log has been read again.
        held.release()
        receipt, refused = await asyncio.gather(*batch, return_exceptions=True)
        assert not isinstance(receipt, BaseException)
        assert receipt.position == 2
        assert isinstance(refused, Rejected)
        assert stalled_s(app) is None
        assert await app.query(List()) == ("a", "before")
        store.faulty_log.release_reads()
        await app.execute(Create(note_id="d"))
        assert subjects(await everything(store)) == ["before", "a", "d"]
        assert await app.state_hash() == await replayed_hash(store)


async def test_an_append_that_stalled_and_failed_leaves_nothing(store: FaultyStore) -> None:
    async with running(store, limits=HASTY) as app:
        held = store.faulty_log.fail_next(Held())
        (caller,) = submit(app, Create(note_id="a"))
        await held.arrived.wait()
        assert await app.query(List()) == ()
        held.fail(NotReady("on purpose"))
        with pytest.raises(NotReady):
            await caller
        assert stalled_s(app) is None
        await app.execute(Create(note_id="b"))
        assert subjects(await everything(store)) == ["b"]


async def test_an_append_that_stalled_and_lost_is_judged_again(store: FaultyStore, log: MemoryLog) -> None:
    async with running(store, limits=HASTY) as app:
        held = store.faulty_log.fail_next(Held())
        callers = submit(app, Create(note_id="a"), Create(note_id="b"))
        await held.arrived.wait()
        assert await app.query(List()) == ()
        await create_elsewhere(log, "a")
        held.release()
        refused, receipt = await asyncio.gather(*callers, return_exceptions=True)
        assert isinstance(refused, Rejected)
        assert refused.position == 1
        assert not isinstance(receipt, BaseException)
        assert receipt.position == 2
        assert stalled_s(app) is None
        assert subjects(await everything(store)) == ["a", "b"]


async def test_an_append_that_lands_after_its_time_is_settled_as_it_is(store: FaultyStore) -> None:
    """The first try is given up and lands late; the second, identical, finds it, or is found by it."""
    limits = msgspec.structs.replace(HASTY, append_s=0.01)
    async with running(store, limits=limits) as app:
        for name, order in (("a", "first"), ("b", "second")):
            first, second = store.faulty_log.fail_next(Held()), store.faulty_log.fail_next(Held())
            (caller,) = submit(app, Create(note_id=name))
            await second.arrived.wait()
            earlier, later = (first, second) if order == "first" else (second, first)
            earlier.release()
            await earlier.ended.wait()
            later.release()
            await later.ended.wait()
            assert not (await caller).repeated
        assert subjects(await everything(store)) == ["a", "b"]
        assert await app.state_hash() == await replayed_hash(store)


async def test_a_reply_that_comes_late_stalls_nothing_but_its_batch(store: FaultyStore) -> None:
    async with running(store, limits=HASTY) as app:
        held = store.faulty_log.fail_next(ReplyHeld())
        (caller,) = submit(app, Create(note_id="a"))
        await held.ended.wait()
        assert await app.query(List()) == (), "the process can't know yet that it was written"
        held.release()
        await caller
        assert await app.query(List()) == ("a",)


@pytest.mark.parametrize("command", [Change(note_id="x", text=""), Create(note_id="here")])
async def test_a_check_of_a_refusal_that_hangs_holds_no_query(store: FaultyStore, command: Change | Create) -> None:
    async with running(store, limits=PATIENT) as app:
        await app.execute(Create(note_id="here"))
        held = store.faulty_log.fail_next(Held())
        (caller,) = submit(app, command)
        await held.arrived.wait()
        assert await app.query(List()) == ("here",), "nothing was taken, so nothing is speculative"
        held.release()
        with pytest.raises(Rejected):
            await caller


async def test_reading_that_hangs_leaves_commands_busy_and_queries_answered(store: FaultyStore) -> None:
    limits = msgspec.structs.replace(HASTY, read_s=0.01)
    async with running(store, limits=limits) as app:
        await app.execute(Create(note_id="a"))
        store.faulty_log.fail_next(refuse)
        store.faulty_log.hold_reads()
        with pytest.raises(NotReady):
            await app.execute(Create(note_id="b"))
        with pytest.raises(Busy):
            await app.execute(Create(note_id="b"))
        assert await app.query(List()) == ("a",)
        store.faulty_log.release_reads()
        async with asyncio.timeout(10):
            await until_taken(app, Create(note_id="b"))


async def until_taken(app: App, command: Create) -> None:
    while True:
        try:
            await app.execute(command)
        except Busy:
            await asyncio.sleep(0)
        else:
            return


# Replies that are lost.


async def test_after_a_lost_reply_the_identical_append_is_made_again(store: FaultyStore) -> None:
    async with running(store, limits=HASTY) as app:
        store.faulty_log.fail_next(lose_reply)
        receipt = await app.execute(Create(note_id="a"))
        first, again = store.faulty_log.appends
        assert first == again
        (record,) = await everything(store)
        assert (record.id, receipt.repeated) == (receipt.message_id, False)


async def test_after_a_lost_request_too(store: FaultyStore) -> None:
    async with running(store, limits=HASTY) as app:
        for fault in (lose_request, lose_request, lose_reply, refuse, lose_request):
            store.faulty_log.fail_next(fault)
        receipt = await app.execute(Create(note_id="a"))
        (record,) = await everything(store)
        assert record.id == receipt.message_id
        assert len(set(store.faulty_log.appends)) == 1


async def test_not_ready_after_a_lost_reply_does_not_mean_not_written(store: FaultyStore) -> None:
    """The second try was surely not done; the first one was. Who hears NotReady would send the command again."""
    async with running(store, limits=HASTY) as app:
        store.faulty_log.fail_next(lose_reply)
        store.faulty_log.fail_next(refuse)
        receipt = await app.execute(Create(note_id="a"))
        assert [record.id for record in await everything(store)] == [receipt.message_id]


@pytest.mark.parametrize("fault", [lose_reply, lose_request])
async def test_when_the_time_is_up_the_outcome_is_unknown_and_the_key_settles_it(
    store: FaultyStore, fault: object
) -> None:
    async with running(store, limits=msgspec.structs.replace(HASTY, settle_s=0.01)) as app:
        store.faulty_log.fail_others(lose_request)
        if fault is lose_reply:
            store.faulty_log.fail_next(lose_reply)
        with pytest.raises(OutcomeUnknown, match="same idempotency key"):
            await app.execute(Create(note_id="a"), idempotency_key="k")
        assert stalled_s(app) is None
        store.faulty_log.fail_others(work)
        receipt = await app.execute(Create(note_id="a"), idempotency_key="k")
        assert receipt.repeated is (fault is lose_reply)
        assert [record.id for record in await everything(store)] == [receipt.message_id]


async def test_a_batch_given_up_that_lands_late_is_taken_as_it_is(store: FaultyStore) -> None:
    limits = msgspec.structs.replace(HASTY, append_s=0.01, settle_s=0.001)
    async with running(store, limits=limits) as app:
        held = store.faulty_log.fail_next(Held())
        with pytest.raises(OutcomeUnknown):
            await app.execute(Create(note_id="a"), idempotency_key="k")
        next_held = store.faulty_log.fail_next(Held())
        (caller,) = submit(app, Create(note_id="b"))
        await next_held.arrived.wait()
        held.release()
        await held.ended.wait()
        next_held.release()
        await asyncio.wait({caller})
        assert (await app.execute(Create(note_id="a"), idempotency_key="k")).repeated
        assert subjects(await everything(store)) == (["a"] if caller.exception() else ["a", "b"])
        assert await app.state_hash() == await replayed_hash(store)


# Other writers.


async def test_a_command_is_judged_again_after_a_conflict(store: FaultyStore) -> None:
    async with running(store) as app:
        store.faulty_log.fail_next(overtake(store.faulty_log, "a"))
        outcomes = await asyncio.gather(*submit(app, Create(note_id="a"), Create(note_id="b")), return_exceptions=True)
        assert isinstance(outcomes[0], Rejected)
        assert outcomes[0].position == 1
        assert not isinstance(outcomes[1], BaseException)
        assert subjects(await everything(store)) == ["a", "b"]
        assert await app.query(List()) == ("a", "b")


async def test_a_refusal_is_judged_again_when_the_head_has_moved(store: FaultyStore) -> None:
    async with running(store) as app:
        store.faulty_log.fail_next(overtake(store.faulty_log, "a"))
        receipt = await app.execute(Change(note_id="a", text="changed"))
        assert receipt.position == 2


async def test_the_turn_is_taken_after_three_conflicts(store: FaultyStore) -> None:
    async with running(store) as app:
        for losses, turns in ((2, 0), (3, 1)):
            for number in range(losses):
                store.faulty_log.fail_next(overtake(store.faulty_log, f"{losses}/{number}"))
            await app.execute(Create(note_id=f"mine {losses}"))
            assert store.faulty_log.turns == turns
        await app.execute(Create(note_id="then"))
        assert store.faulty_log.turns == 1, "it is given back, and not taken again"


async def test_who_found_others_messages_in_its_turn_takes_the_next_one_at_once(
    store: FaultyStore, log: MemoryLog
) -> None:
    """While others append, a batch without a turn is judged for nothing; when they have ended, a turn is."""
    async with running(store, limits=PATIENT) as app:
        others = [overtake(store.faulty_log, f"other {number}") for number in range(2)]
        held, append, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with log.turn():
                held.set()
                await append.wait()
                await create_elsewhere(log, "in between")
                await release.wait()

        async def lose_and_let_another_have_its_turn(_: Append) -> None:
            holder.append(asyncio.create_task(hold()))
            await held.wait()
            raise Conflict(expected=0, head=0)

        holder: list[asyncio.Task[None]] = []
        for fault in (*others, lose_and_let_another_have_its_turn):
            store.faulty_log.fail_next(fault)
        waiting = submit(app, Create(note_id="a"))
        await held.wait()
        async with asyncio.timeout(20):
            while store.faulty_log.turns == 0:  # noqa: ASYNC110  # a count sets no event
                await asyncio.sleep(0)
            append.set()
            # It follows while it waits: then there is less to do in its turn.
            while "in between" not in await app.query(List()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        release.set()
        await asyncio.gather(*waiting, *holder)
        for note_id, turns in (("b", 2), ("c", 2)):
            await app.execute(Create(note_id=note_id))
            assert store.faulty_log.turns == turns


async def test_a_turn_is_kept_while_callers_go_on_until_it_has_been_long_for_who_waits(
    store: FaultyStore, log: MemoryLog
) -> None:
    async with running(store, limits=PATIENT) as app:
        for number in range(3):
            store.faulty_log.fail_next(overtake(store.faulty_log, f"other {number}"))
        await app.execute(Create(note_id="mine"))
        had_it: list[int] = []

        async def wait_for_the_turn() -> None:
            async with log.turn():
                had_it.append(store.faulty_log.turns)

        waiting, began_s, sent = asyncio.create_task(wait_for_the_turn()), time.monotonic(), 0
        while not had_it and time.monotonic() < began_s + 5:
            await app.execute(Create(note_id=f"mine {sent}"))
            sent += 1
        assert had_it == [1], "all of this was one turn, and it ended although commands came"
        await waiting
    assert sent > 3


async def test_losing_for_too_long_is_busy(store: FaultyStore) -> None:
    async with running(store, limits=msgspec.structs.replace(PATIENT, conflict_s=0.02)) as app:
        store.faulty_log.fail_others(lose)
        with pytest.raises(Busy, match="Nothing was recorded"):
            await app.execute(Create(note_id="mine"))
        store.faulty_log.fail_others(work)
        assert await everything(store) == []
        await app.execute(Create(note_id="mine"))


async def test_waiting_for_the_turn_too_long_is_busy(store: FaultyStore, log: MemoryLog) -> None:
    async with running(store, limits=msgspec.structs.replace(PATIENT, conflict_s=0.2)) as app:
        release, holders = asyncio.Event(), []

        async def hold(held: asyncio.Event) -> None:
            async with log.turn():
                held.set()
                await release.wait()

        async def lose_and_let_another_hold_the_turn(append: Append) -> None:
            held = asyncio.Event()
            holders.append(asyncio.create_task(hold(held)))
            await held.wait()
            raise Conflict(expected=0, head=0)

        for fault in (lose, lose, lose_and_let_another_hold_the_turn):
            store.faulty_log.fail_next(fault)
        with pytest.raises(Busy, match="held the store"):
            await app.execute(Create(note_id="mine"))
        release.set()
        await asyncio.gather(*holders)
        await app.execute(Create(note_id="mine"))
        assert subjects(await everything(store)) == ["mine"]


async def lose(append: Append) -> None:
    raise Conflict(expected=0, head=0)


@pytest.mark.parametrize("place", ["memory", "sqlite"])
async def test_many_applications_on_one_log_lose_and_double_nothing(place: str, tmp_path: object) -> None:
    shared = MemoryStore()
    where = [shared] * 3 if place == "memory" else [f"sqlite:///{tmp_path}/a.db"] * 3
    async with running(where[0]) as a, running(where[1]) as b, running(where[2]) as c:
        apps = (a, b, c)

        async def write(app: App, name: str) -> list[bool]:
            taken = []
            for number in range(30):
                mine, contested = await asyncio.gather(
                    *submit(app, Create(note_id=f"{name} {number}"), Create(note_id=f"all {number}")),
                    return_exceptions=True,
                )
                assert not isinstance(mine, BaseException)
                assert isinstance(contested, Rejected) or not isinstance(contested, BaseException)
                taken.append(not isinstance(contested, BaseException))
            return taken

        taken = await asyncio.gather(*(write(app, str(number)) for number, app in enumerate(apps)))
        assert [sum(column) for column in zip(*taken, strict=True)] == [1] * 30, "each contested note has one creator"
        records = await everything(a.store)
        assert len(records) == 3 * 30 + 30
        assert len(set(subjects(records))) == len(records)
        for app in apps:
            names = await app.query(List(), at_least=len(records))
            assert len(names) == len(records)
        assert len({await app.state_hash() for app in apps}) == 1


async def test_a_query_waits_for_the_position_of_another_process() -> None:
    shared = MemoryStore()
    async with running(shared) as app, running(shared) as other:
        receipt = await other.execute(Create(note_id="a"))
        assert await app.query(List(), at_least=receipt.position) == ("a",)
        waiting = asyncio.create_task(app.query(List(), at_least=receipt.position + 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await other.execute(Create(note_id="b"))
        assert await waiting == ("a", "b")
        with pytest.raises(Busy, match="position 2, not 99"):
            await app.query(List(), at_least=99, timeout_s=0.01)


async def test_an_idle_process_notices_what_others_append_also_after_an_error(store: FaultyStore) -> None:
    """Nobody asks: only the watch can notice. Its store failed meanwhile."""
    woken = asyncio.Event()

    class Noticing:
        name = "noticing"

        def start(self, context: object) -> None: ...
        async def work(self) -> None:
            woken.set()

        def stop(self, context: object) -> None: ...

    app = App(features=[notes], limits=msgspec.structs.replace(HASTY, look_s=0.01), workers=[Noticing()])
    async with asyncio.timeout(20), app.running(store, drain_s=1.0):
        for error in (None, NotReady("on purpose"), None):
            store.faulty_log.fail_waits(error)
            if error is not None:
                await store.faulty_log.wait_failed.wait()
            position = app.position
            await create_elsewhere(store.faulty_log.real, f"after {position}")
            while app.position == position:
                woken.clear()
                await woken.wait()


# The end.


async def test_a_log_that_is_another_one_ends_the_application(store: FaultyStore) -> None:
    async with running(store) as app:
        await app.execute(Create(note_id="a"))
        other = MemoryLog()
        await other.append(make_records(2), after=0)
        store.faulty_log.become(other)
        store.faulty_log.fail_next(refuse)
        with pytest.raises(NotReady):
            await app.execute(Create(note_id="b"))
        with pytest.raises(WrongLog):
            await app.wait()
        for _ in range(3):
            with pytest.raises(WrongLog):
                await app.execute(Create(note_id="c"))
            with pytest.raises(WrongLog) as told:
                await app.query(List())
            assert len(told.traceback) < 12, "raising it again and again does not make it grow"


async def test_a_log_that_was_replaced_during_an_append_takes_nothing_of_it(store: FaultyStore) -> None:
    """The retry after a lost reply looks first whether it is the same log."""
    async with running(store, limits=HASTY) as app:
        await app.execute(Create(note_id="a"))
        other = MemoryLog()
        await other.append(make_records(1), after=0)
        store.faulty_log.fail_next(lose_reply)
        held = store.faulty_log.fail_next(Held())
        store.faulty_log.become(other)
        with pytest.raises(OutcomeUnknown):
            await app.execute(Create(note_id="b"))
        with pytest.raises(WrongLog):
            await app.wait()
        assert not held.arrived.is_set()


async def test_damage_ends_the_application(store: FaultyStore) -> None:
    async with running(store) as app:
        store.faulty_log.fail_reads(Corrupt("on purpose"))
        with pytest.raises(Corrupt):
            await app.query(List(), at_least=1)
        with pytest.raises(Corrupt):
            await app.wait()


@pytest.mark.parametrize("end", ["cancelled", "defect"])
async def test_when_the_executor_dies_nobody_waits_for_ever(store: FaultyStore, end: str) -> None:
    async with running(store) as app:
        held = store.faulty_log.fail_next(Held())
        batch = submit(app, Create(note_id="a"))
        await held.arrived.wait()
        batch += submit(app, Create(note_id="b"))
        query = asyncio.create_task(app.query(List()))
        reaching = asyncio.create_task(app.query(List(), at_least=9, timeout_s=1000))
        await asyncio.sleep(0)
        if end == "cancelled":
            (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "journeyman: executor"]
            task.cancel()
        else:
            held.fail(ZeroDivisionError("a defect of the store"))
        in_append, waiting = await asyncio.gather(*batch, return_exceptions=True)
        assert isinstance(in_append, OutcomeUnknown)
        assert isinstance(waiting, NotRunning)
        assert await query == ()
        with pytest.raises(NotRunning):
            await reaching
        with pytest.raises(NotRunning):
            await app.execute(Create(note_id="c"))
        with pytest.raises(NotRunning):
            await app.query(List())
        held.release()


async def test_a_defect_of_the_store_is_what_wait_raises(store: FaultyStore) -> None:
    async with running(store) as app:
        held = store.faulty_log.fail_next(Held())
        (caller,) = submit(app, Weigh(grams=1))
        held.fail(ZeroDivisionError("a defect of the store"))
        with pytest.raises(ZeroDivisionError):
            await app.wait()
        with pytest.raises(OutcomeUnknown):
            await caller

"""Commands are judged in order, appended in groups, told when durable; queries see what is settled, and only that."""

from __future__ import annotations

import asyncio
import logging

import pytest

from journeyman import ApplyFailed, Busy, Invalid, NotReady, NotRunning, Rejected, TooLarge
from journeyman.message import BODY_BYTES_MAX
from journeyman.pending import TEXT_LENGTH_MAX, WAITING_BYTES_MAX
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held, refuse
from tests.notes import (
    Break,
    Change,
    Create,
    First,
    Get,
    List,
    Meddle,
    Price,
    Weigh,
    everything,
    replayed_hash,
    running,
    subjects,
    submit,
)


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore(MemoryStore())


@pytest.fixture
def waiting_max(monkeypatch: pytest.MonkeyPatch) -> int:
    """A bound that a test reaches at once."""
    for module in ("pending", "executor"):
        monkeypatch.setattr(f"journeyman.{module}.WAITING_MAX", 100)
    return 100


def held_batch(store: FaultyStore) -> Held:
    """Hold the next append."""
    return store.faulty_log.fail_next(Held())


# What is told, and when.


async def test_a_receipt_names_the_message_in_the_log(store: FaultyStore) -> None:
    async with running(store) as app:
        receipt = await app.execute(Create(note_id="a"), actor="ann")
        (record,) = await everything(store)
        assert (receipt.position, receipt.message_id, receipt.repeated) == (record.position, record.id, False)
        assert (record.name, record.subject, record.actor) == ("notes/create", "a", "ann")


async def test_nothing_is_told_before_the_append_has_ended(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        callers = submit(app, Create(note_id="a"), Create(note_id="a"), Change(note_id="b", text=""))
        await held.arrived.wait()
        assert not any(caller.done() for caller in callers)
        held.release()
        receipt, refused, refused_too = await asyncio.gather(*callers, return_exceptions=True)
        assert not isinstance(receipt, BaseException)
        assert isinstance(refused, Rejected)
        assert isinstance(refused_too, Rejected)
        assert (receipt.position, refused.position, refused_too.position) == (1, 1, 1)


async def test_a_refusal_that_rests_on_what_was_not_written_is_not_told(store: FaultyStore) -> None:
    """A creates X, B's create of X is refused because of it, A's append fails: B must not hear that X exists."""
    async with running(store) as app:
        store.faulty_log.fail_next(refuse)
        outcomes = await asyncio.gather(*submit(app, Create(note_id="x"), Create(note_id="x")), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady, NotReady]
        assert await app.query(List()) == ()
        assert await everything(store) == []
        assert (await app.execute(Create(note_id="x"))).position == 1


# Queries.


async def test_a_query_does_not_run_on_what_is_not_durable(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        callers = submit(app, Create(note_id="a"))
        await held.arrived.wait()
        query = asyncio.create_task(app.query(List()))
        await asyncio.sleep(0)
        assert not query.done()
        held.release()
        assert await query == ("a",)
        await asyncio.gather(*callers)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_query_that_changes_the_state_is_refused_and_what_it_changed_is_taken_back(
    store: FaultyStore, waits: bool
) -> None:
    async with running(store) as app:
        await app.execute(Create(note_id="a", text="as recorded"))
        held = held_batch(store)
        callers = submit(app, Create(note_id="b")) if waits else []
        if waits:
            await held.arrived.wait()
        meddling = asyncio.create_task(app.query(Meddle(note_id="a")))
        await asyncio.sleep(0)
        held.release()
        with pytest.raises(RuntimeError, match="only apply may"):
            await meddling
        await asyncio.gather(*callers)
        assert await app.query(Get(note_id="a")) == "as recorded"
        assert await app.state_hash() == await replayed_hash(store)


async def test_a_query_does_not_see_what_was_taken_back(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        store.faulty_log.hold_reads()
        callers = submit(app, Create(note_id="a"))
        await held.arrived.wait()
        query = asyncio.create_task(app.query(List()))
        held.fail(NotReady("on purpose"))
        assert await query == ()
        store.faulty_log.release_reads()
        assert isinstance((await asyncio.gather(*callers, return_exceptions=True))[0], NotReady)


async def test_every_waiting_query_runs_before_the_next_batch(store: FaultyStore) -> None:
    async with running(store) as app:
        first, second = held_batch(store), held_batch(store)
        callers = submit(app, Create(note_id="a"))
        await first.arrived.wait()
        callers += submit(app, Create(note_id="b"))
        queries = [asyncio.create_task(app.query(List())) for _ in range(100)]
        await asyncio.sleep(0)
        first.release()
        await second.arrived.wait()
        assert set(await asyncio.gather(*queries)) == {("a",)}
        second.release()
        await asyncio.gather(*callers)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_query_that_breaks_tells_its_caller_only(store: FaultyStore, waits: bool) -> None:
    """Also one that raises StopIteration, which no future can carry."""
    async with running(store) as app:
        held = held_batch(store)
        callers = submit(app, Weigh(grams=1)) if waits else []
        if waits:
            await held.arrived.wait()
        query = asyncio.create_task(app.query(First()))
        await asyncio.sleep(0)
        assert query.done() is not waits
        held.release()
        with pytest.raises(RuntimeError, match="StopIteration"):
            await query
        await asyncio.gather(*callers)
        await app.execute(Create(note_id="a"))
        assert await app.query(First()) == "a"


# Commands that are wrong.


@pytest.mark.parametrize(
    "command",
    [
        Weigh(grams="7"),  # type: ignore[arg-type]  # a Struct built in Python is unchecked
        Weigh(grams=1, exactly=float("nan")),
        Create(note_id=None),  # type: ignore[arg-type]
        Create(note_id="\ud800"),
        Create(note_id="a\0b"),
        Create(note_id="a" * (TEXT_LENGTH_MAX + 1)),
        Weigh(grams=1 << 70),
    ],
)
async def test_what_replay_could_not_read_is_refused(store: FaultyStore, command: Create | Weigh) -> None:
    async with running(store) as app:
        try:
            await app.execute(command)
        except Invalid:
            assert await everything(store) == []
        else:
            assert isinstance(command, Weigh)
            assert command.grams == 1 << 70, "the only one that JSON takes as it is"
        assert await replayed_hash(store) == await app.state_hash()


async def test_what_is_applied_is_what_was_decoded_from_the_recorded_bytes(store: FaultyStore) -> None:
    async with running(store) as app:
        await app.execute(Price(note_id="a", price=1))
        assert await app.query(Get(note_id="a")) == "1.0"
        assert await replayed_hash(store) == await app.state_hash()


@pytest.mark.parametrize("key", ["a\0b", "\udfff", "k" * (TEXT_LENGTH_MAX + 1)])
async def test_an_envelope_that_no_store_can_keep_is_its_callers_error(store: FaultyStore, key: str) -> None:
    async with running(store) as app:
        with pytest.raises(Invalid):
            await app.execute(Create(note_id="a"), idempotency_key=key)
        with pytest.raises(Invalid):
            await app.execute(Create(note_id="a"), actor=key)
        assert (await app.execute(Create(note_id="a"), actor="Ångström 🦉", idempotency_key="ü")).position == 1


@pytest.mark.parametrize("at", ["validate", "validate changes", "apply"])
async def test_code_that_breaks_refuses_that_command_alone_and_loudly(
    store: FaultyStore, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(store) as app:
        commands = (Create(note_id="a"), Break(at=at), Create(note_id="b"))
        with caplog.at_level(logging.ERROR):
            first, broken, second = await asyncio.gather(*submit(app, *commands), return_exceptions=True)
        assert isinstance(broken, ApplyFailed)
        assert isinstance(broken.__cause__, ZeroDivisionError | RuntimeError | KeyError)
        assert "notes/break" in caplog.text
        assert "Traceback" in caplog.text
        assert not isinstance(first, BaseException)
        assert not isinstance(second, BaseException)
        assert await app.query(List()) == ("a", "b")
        assert subjects(await everything(store)) == ["a", "b"]
        assert await replayed_hash(store) == await app.state_hash()


async def test_a_body_over_the_limit_is_refused_alone_before_it_is_in_a_batch(store: FaultyStore) -> None:
    async with running(store) as app:
        commands = (Create(note_id="a"), Create(note_id="b", text="x" * BODY_BYTES_MAX), Create(note_id="c"))
        _, large, _ = await asyncio.gather(*submit(app, *commands), return_exceptions=True)
        assert isinstance(large, TooLarge)
        assert subjects(await everything(store)) == ["a", "c"]


async def test_cancelling_a_caller_abandons_its_wait_only(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        callers = submit(app, Create(note_id="a"), Create(note_id="b"))
        await held.arrived.wait()
        waiting = submit(app, Create(note_id="c"))
        query = asyncio.create_task(app.query(List()))
        await asyncio.sleep(0)
        for task in (callers[0], *waiting, query):
            task.cancel()
        held.release()
        assert (await callers[1]).position == 2
        await app.execute(Create(note_id="d"))
        assert await app.query(List()) == ("a", "b", "c", "d")


# Idempotency keys.


async def test_the_same_key_and_command_give_the_first_receipt(store: FaultyStore) -> None:
    async with running(store) as app:
        pair = await asyncio.gather(
            *(app.execute(Create(note_id="a"), idempotency_key="k") for _ in range(2)),
        )
        again = await app.execute(Create(note_id="a"), idempotency_key="k")
        assert [receipt.repeated for receipt in (*pair, again)] == [False, True, True]
        assert len({receipt.message_id for receipt in (*pair, again)}) == 1
        with pytest.raises(Rejected, match="belongs to another command"):
            await app.execute(Create(note_id="b"), idempotency_key="k")
        assert len(await everything(store)) == 1
    async with running(store) as app:
        assert (await app.execute(Create(note_id="a"), idempotency_key="k")).message_id == again.message_id


# Groups and bounds.


async def test_commands_that_wait_together_are_one_append(store: FaultyStore) -> None:
    async with running(store) as app:
        callers = 256
        for round_number in range(4):
            await asyncio.gather(
                *submit(app, *(Create(note_id=f"{round_number}/{number}") for number in range(callers)))
            )
        assert len(await everything(store)) == 4 * callers
        assert len(store.faulty_log.appends) <= 8


async def test_a_batch_is_cut_at_the_most_records_of_an_append(store: FaultyStore) -> None:
    async with running(store) as app:
        await asyncio.gather(*submit(app, *(Weigh(grams=number) for number in range(BATCH_RECORDS_MAX + 1))))
        assert [len(batch) for batch in store.faulty_log.appends] == [BATCH_RECORDS_MAX, 1]


async def test_a_batch_is_cut_at_the_most_bytes_of_an_append(store: FaultyStore) -> None:
    async with running(store) as app:
        text = "x" * (BODY_BYTES_MAX - 100)
        fit = BATCH_BYTES_MAX // BODY_BYTES_MAX
        await asyncio.gather(*submit(app, *(Create(note_id=str(number), text=text) for number in range(fit + 1))))
        assert [len(batch) for batch in store.faulty_log.appends] == [fit, 1]


async def test_only_so_many_commands_wait(store: FaultyStore, waiting_max: int) -> None:
    async with running(store) as app:
        held = held_batch(store)
        first = submit(app, Weigh(grams=0))
        await held.arrived.wait()
        callers = submit(app, *(Weigh(grams=number) for number in range(waiting_max + 1)))
        with pytest.raises(Busy) as busy:
            await callers[-1]
        assert busy.value.retry_after_s > 0
        held.release()
        await asyncio.gather(*first, *callers[:-1])
        assert len(await everything(store)) == 1 + waiting_max


async def test_only_so_many_bytes_of_commands_wait(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        first = submit(app, Weigh(grams=0))
        await held.arrived.wait()
        text = "x" * (BODY_BYTES_MAX - 100)
        fit = WAITING_BYTES_MAX // (BODY_BYTES_MAX - 50)
        large = [Create(note_id=str(number), text=text) for number in range(fit + 2)]
        outcomes: list[BaseException] = []
        callers = submit(app, *large)
        await asyncio.sleep(0)
        outcomes = [caller.exception() for caller in callers if caller.done()]  # type: ignore[misc]
        assert outcomes
        assert all(isinstance(outcome, Busy) for outcome in outcomes)
        held.release()
        await asyncio.gather(*first, *callers, return_exceptions=True)
        assert (await app.execute(Create(note_id="then", text=text))).position > 1


async def test_only_so_many_queries_wait(store: FaultyStore, waiting_max: int) -> None:
    async with running(store) as app:
        held = held_batch(store)
        first = submit(app, Weigh(grams=0))
        await held.arrived.wait()
        queries = [asyncio.create_task(app.query(List())) for _ in range(waiting_max + 1)]
        with pytest.raises(Busy):
            await queries[-1]
        held.release()
        await asyncio.gather(*first, *queries[:-1])


async def test_stopping_ends_what_waits_and_takes_nothing_new(store: FaultyStore) -> None:
    async with running(store) as app:
        held = held_batch(store)
        callers = submit(app, Create(note_id="a"))
        await held.arrived.wait()
        callers += submit(app, Create(note_id="b"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(app.stop(drain_s=10))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held.release()
        assert [receipt.position for receipt in await asyncio.gather(*callers)] == [1, 2]
        await stopping
        with pytest.raises(NotRunning):
            await app.execute(Create(note_id="c"))
        with pytest.raises(NotRunning):
            await app.query(List())
    assert subjects(await everything(store)) == ["a", "b"]

"""State is the log applied in order: live as in every replay, and nothing remains of what was refused or taken back."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.codec import encode_meta
from journeyman.errors import ApplyFailed, Corrupt, Outdated, Poisoned, Rejected, WrongLog
from journeyman.feature import Catalog, Command, Feature
from journeyman.message import Message, Record
from journeyman.receipts import Receipt, receipts
from journeyman.replica import REPLAY_RECORDS, Replica
from journeyman.set_aside import MessageSetAside, read_set_asides, set_aside, set_asides
from journeyman.store import Store, open_store
from journeyman.store.base import MessageLog
from journeyman.store.memory import MemoryLog
from journeyman.tables import AppState, State, Table
from journeyman.timing import SYSTEM_TIMING


class Account(msgspec.Struct, frozen=True):
    name: str
    cents: int
    email: str | None = None


class AccountsState(State):
    accounts: Table[str, Account] = Table(
        Account, key="name", index={"cents": ("cents",)}, unique={"email": ("email",)}
    )


class Audit(msgspec.Struct, frozen=True):
    position: int
    text: str
    actor: str | None
    recorded_at_us: int


class AuditState(State):
    lines: Table[int, Audit] = Table(Audit, key="position")


accounts = Feature("accounts", state=AccountsState)
audit = Feature("audit", state=AuditState)


def note(state: State, message: Message[Any], text: str) -> None:
    audit.of(state).lines.put(Audit(message.position, text, message.actor, message.recorded_at_us))


@accounts.command("add", subject="name")
class Add(Command):
    """Adds to an account; a sum below zero breaks `apply`, after it has changed tables of two features."""

    name: str
    cents: int
    email: str | None = None

    def validate(self, state: AccountsState, message: Message[Any]) -> None:
        if self.cents == 13:
            raise Rejected("thirteen")

    def apply(self, state: AccountsState, message: Message[Any]) -> None:
        account = state.accounts.get(self.name) or Account(self.name, 0)
        note(state, message, f"{self.name} {self.cents}")
        state.accounts.put(Account(self.name, account.cents + self.cents, self.email or account.email))
        if account.cents + self.cents < 0:
            raise ValueError("a sum below zero")


@accounts.command("close", subject="name")
class Close(Command):
    name: str

    def validate(self, state: AccountsState, message: Message[Any]) -> None:
        if self.name not in state.accounts:
            raise Rejected(f"There is no account {self.name}.")

    def apply(self, state: AccountsState, message: Message[Any]) -> None:
        state.accounts.delete(self.name)


@accounts.command("cheat")
class Cheat(Command):
    """Changes state where it may only look."""

    how: str

    def validate(self, state: AccountsState, message: Message[Any]) -> None:
        state.accounts.put(Account("cheat", 1))
        if self.how == "hide":
            state.accounts.delete("cheat")
        if self.how == "refuse":
            raise Rejected("after a change")


catalog = Catalog([receipts, set_asides, accounts, audit])


class Counter:
    """A part that keeps account of every message, and refuses those of one actor."""

    def concerns(self, kind: type[Command]) -> bool:
        return True

    def admit(self, state: AppState, message: Message[Any]) -> None:
        if message.actor == "mallory":
            raise Rejected("not you")

    def record(self, state: AppState, message: Message[Any]) -> None:
        found = state.features["audit"]
        note(
            found, msgspec.structs.replace(message, record=msgspec.structs.replace(message.record, actor=None)), "seen"
        )


def make_replica(log: MessageLog, features: Catalog = catalog) -> Replica:
    return Replica(log, features)


def make_message(command: Command, position: int, *, actor: str = "ann", key: str | None = None) -> Message[Any]:
    kind = catalog.command_of(command)
    record = Record(
        position,
        SYSTEM_TIMING.new_id(),
        kind.name,
        kind.message_type.version,
        kind.subject_of(command),
        catalog.codec.encode(command),
        1_000_000 + position,
        "correlation",
        actor=actor,
        idempotency_key=key,
    )
    return catalog.codec.decode(record)


async def append(log: MessageLog, *commands: Command, **envelope: Any) -> list[Record]:
    head = await log.head()
    records = [make_message(command, head + 1 + n, **envelope).record for n, command in enumerate(commands)]
    await log.append(records, after=head)
    return records


async def append_raw(log: MessageLog, name: str, body: Any, *, version: int = 1, meta: bytes | None = None) -> None:
    head = await log.head()
    record = make_message(Close(name="raw"), head + 1).record
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    await log.append([msgspec.structs.replace(record, name=name, version=version, body=data, meta=meta)], after=head)


async def started(log: MessageLog, features: Catalog = catalog) -> Replica:
    replica = make_replica(log, features)
    await replica.start()
    return replica


async def decide(log: MessageLog, position: int) -> int:
    return await set_aside(log, position, reason="poison", actor=None, recorded_at_us=1, new_id=SYSTEM_TIMING.new_id)


def cents(replica: Replica) -> dict[str, int]:
    return {account.name: account.cents for account in accounts.of(replica.state.features["audit"]).accounts}


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store("memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'log.db'}")
    yield opened
    await opened.close()


# Replay.


async def test_the_whole_log_is_applied_at_start_and_the_rest_when_asked(store: Store) -> None:
    await append(store.log, Add(name="ann", cents=1), Add(name="bob", cents=2))
    replica = await started(store.log)
    assert (replica.position, replica.settled_position, cents(replica)) == (2, 2, {"ann": 1, "bob": 2})
    await append(store.log, Add(name="ann", cents=4), Close(name="bob"))
    await replica.catch_up()
    assert (replica.position, cents(replica)) == (4, {"ann": 5})


async def test_a_log_longer_than_one_read_is_applied_whole() -> None:
    log = MemoryLog()
    for _ in range(3):
        await append(log, *[Add(name="ann", cents=1)] * (REPLAY_RECORDS // 2 + 1))
    replica = await started(log)
    assert cents(replica) == {"ann": 3 * (REPLAY_RECORDS // 2 + 1)}
    assert replica.state.undo.mark() == 0


async def test_catching_up_ends_even_while_others_append_without_a_pause() -> None:
    """Before it did, of four processes each ran after the others for seconds: 28 jobs a second were done, not 1,300."""

    class Growing(MemoryLog):
        async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
            found = await super().read(after, limit, name=name)
            await append(self, Add(name="ann", cents=1))
            return found

    log = Growing()
    replica = make_replica(log)
    async with asyncio.timeout(20):
        for _ in range(5):
            await replica.catch_up()
    assert replica.position == await log.head() - 1


class Scanning(MemoryLog):
    """A log that can be scanned, a record at a time; it waits at the second one until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def scan(self, after: int, batch: int) -> Generator[list[Record]]:
        try:
            for record in self._records[after:]:
                if record.position == 2:
                    self.arrived.set()
                    self.go.wait(20)
                yield [record]
        finally:
            self.closed.set()


async def test_the_event_loop_is_free_while_a_log_is_scanned_at_the_start() -> None:
    log = Scanning()
    await append(log, *[Add(name="ann", cents=1)] * 3)
    starting = asyncio.create_task(started(log))
    assert await asyncio.to_thread(log.arrived.wait, 20)
    log.go.set()
    replica = await starting
    assert (replica.position, cents(replica)) == (3, {"ann": 3})
    assert log.closed.is_set()


async def test_a_start_that_is_cancelled_goes_on_in_no_thread() -> None:
    log = Scanning()
    await append(log, *[Add(name="ann", cents=1)] * 9)
    replica = make_replica(log)
    starting = asyncio.create_task(replica.start())
    assert await asyncio.to_thread(log.arrived.wait, 20)
    starting.cancel()
    await asyncio.sleep(0)
    log.go.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert log.closed.is_set()
    assert replica.position == 1


@pytest.mark.parametrize("decided_after", [10, REPLAY_RECORDS + 10])
async def test_a_scan_ends_where_a_decision_is_and_the_rest_is_read_as_ever(tmp_path: Path, decided_after: int) -> None:
    """What is decided while the start is under way may concern what it has applied: all is built anew."""
    store = await open_store(f"sqlite:///{tmp_path / 'log.db'}")
    await append(store.log, Add(name="ann", cents=1), Add(name="ann", cents=5))
    for _ in range(decided_after // 10):
        await append(store.log, *[Add(name="bob", cents=1)] * 10)
    decided_at = await decide(store.log, 2)
    await append(store.log, Add(name="bob", cents=1))
    replica = make_replica(store.log)
    with pytest.MonkeyPatch.context() as patch:
        # Read before it was decided.
        patch.setattr("journeyman.replica.read_set_asides", none_yet(read_set_asides))
        await replica.start()
    assert replica.position == decided_at + 1
    assert cents(replica) == {"ann": 1, "bob": decided_after // 10 * 10 + 1}
    await store.close()


def none_yet(
    read: Callable[[MessageLog], Awaitable[frozenset[int]]],
) -> Callable[[MessageLog], Awaitable[frozenset[int]]]:
    calls = itertools.count()

    async def read_later(log: MessageLog) -> frozenset[int]:
        return await read(log) if next(calls) else frozenset()

    return read_later


commands = st.one_of(
    st.builds(
        Add,
        name=st.sampled_from(["ann", "bob"]),
        cents=st.integers(-9, 14),
        email=st.none() | st.sampled_from(["x", "y"]),
    ),
    st.builds(Close, name=st.sampled_from(["ann", "bob"])),
    st.builds(Cheat, how=st.sampled_from(["stay", "hide", "refuse"])),
)
steps = st.one_of(commands, st.sampled_from(["settle", "undo"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(steps, st.none() | st.sampled_from(["k1", "k2"]))))
async def test_live_state_is_what_a_replay_of_the_settled_messages_gives(
    script: Sequence[tuple[Command | str, str | None]],
) -> None:
    log = MemoryLog()
    live = await started(log)
    batch: list[Record] = []
    for step, key in [*script, ("settle", None)]:
        if isinstance(step, Command):
            message = make_message(step, live.position + 1, key=key)
            before = live.state.hash(), live.position
            try:
                live.propose(message)
            except (Rejected, ApplyFailed):
                assert (live.state.hash(), live.position) == before
            else:
                batch.append(message.record)
        elif step == "undo":
            live.undo()
            batch = []
        else:
            await log.append(batch, after=live.settled_position)
            live.settle()
            batch = []
    fresh = await started(log)
    assert live.state.hash() == fresh.state.hash()
    assert (live.position, live.settled_position, live._settled_id) == (
        fresh.position,
        fresh.position,
        fresh._settled_id,
    )
    found, read_to = await live.messages.read(0, 10_000)
    assert [(message.record, message.body) for message in found] == [
        (record, catalog.codec.decode(record).body) for record in await log.read(0, 10_000)
    ]
    assert read_to == fresh.position


async def test_what_other_code_keeps_account_of_is_state_too() -> None:
    log = MemoryLog()
    live = Replica(log, catalog, [Counter()])
    await live.start()
    message = make_message(Add(name="ann", cents=1), 1)
    live.propose(message)
    await log.append([message.record], after=0)
    live.settle()
    fresh = Replica(log, catalog, [Counter()])
    await fresh.start()
    assert fresh.state.hash() == live.state.hash() != (await started(log)).state.hash()
    empty = live.state.undo.mark()
    with pytest.raises(Rejected, match="not you"):
        live.propose(make_message(Add(name="ann", cents=1), 2, actor="mallory"))
    assert live.state.undo.mark() == empty


# Ahead of the log.


async def test_a_batch_is_taken_back_over_all_features() -> None:
    replica = await started(MemoryLog())
    empty = replica.state.hash()
    replica.propose(make_message(Add(name="ann", cents=1), 1))
    replica.propose(make_message(Add(name="ann", cents=2), 2))
    assert (replica.position, replica.settled_position, cents(replica)) == (2, 0, {"ann": 3})
    replica.undo()
    assert (replica.position, replica.settled_position, replica.state.hash()) == (0, 0, empty)
    assert replica.messages._recent.after(0, 1) is None


async def test_what_is_settled_is_not_taken_back() -> None:
    replica = await started(MemoryLog())
    replica.propose(make_message(Add(name="ann", cents=1), 1))
    replica.settle()
    replica.propose(make_message(Add(name="ann", cents=2), 2))
    replica.undo()
    assert (replica.position, replica.settled_position, cents(replica)) == (1, 1, {"ann": 1})


async def test_what_is_refused_or_broken_leaves_the_rest_of_its_batch() -> None:
    replica = await started(MemoryLog())
    replica.propose(make_message(Add(name="ann", cents=1), 1))
    with pytest.raises(Rejected, match="thirteen"):
        replica.propose(make_message(Add(name="ann", cents=13), 2))
    with pytest.raises(ApplyFailed, match="a sum below zero") as caught:
        replica.propose(make_message(Add(name="ann", cents=-2), 2))
    assert isinstance(caught.value.__cause__, ValueError)
    replica.propose(make_message(Add(name="bob", cents=5), 2))
    replica.settle()
    assert cents(replica) == {"ann": 1, "bob": 5}
    assert [line.position for line in audit.of(replica.state.features["audit"]).lines] == [1, 2]


@pytest.mark.parametrize(("how", "kind"), [("stay", ApplyFailed), ("hide", ApplyFailed), ("refuse", Rejected)])
async def test_a_validate_that_changes_state_is_refused(how: str, kind: type[Exception]) -> None:
    replica = await started(MemoryLog())
    empty = replica.state.hash()
    with pytest.raises(kind) as caught:
        replica.propose(make_message(Cheat(how=how), 1))
    if kind is ApplyFailed:
        assert "validate of accounts/cheat changed the state" in str(caught.value)
    assert (replica.state.hash(), replica.position, replica.state.undo.mark()) == (empty, 0, 0)


async def test_a_key_holds_across_a_restart() -> None:
    log = MemoryLog()
    (record,) = await append(log, Add(name="ann", cents=1), key="k")
    replica = await started(log)
    found = replica.receipts.find(replica.state, key="k", name=record.name, body=record.body)
    assert found == Receipt(1, record.id, repeated=True)


# Poison.


async def test_poison_stops_the_start_and_says_where_and_what_to_do(store: Store) -> None:
    await append(store.log, Add(name="ann", cents=1))
    await append(store.log, Add(name="ann", cents=-2))
    replica = make_replica(store.log)
    with pytest.raises(Poisoned) as caught:
        await replica.start()
    assert (caught.value.position, caught.value.name) == (2, "accounts/add")
    assert "ValueError('a sum below zero')" in str(caught.value)
    assert "journeyman --store URL log set-aside 2 --reason" in str(caught.value)


@pytest.mark.parametrize("poison", [Add(name="ann", cents=-2), Close(name="nobody")])
async def test_poison_leaves_no_trace_of_itself_and_all_of_what_is_before(poison: Command) -> None:
    log, whole = MemoryLog(), MemoryLog()
    for one in (log, whole):
        await append(one, Add(name="ann", cents=1), Add(name="bob", cents=1))
    await append(log, poison, Add(name="ann", cents=100))
    replica = make_replica(log)
    for _ in range(2):
        with pytest.raises(Poisoned, match="at position 3"):
            await replica.catch_up()
        assert replica.position == replica.settled_position == 2
        assert replica.state.hash() == (await started(whole)).state.hash()
        assert replica.state.undo.mark() == 0
    assert replica.messages._recent.after(2, 1) is None


class Interrupted(BaseException):
    pass


async def test_an_interruption_leaves_no_half_applied_message(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    await append(log, Add(name="ann", cents=1), Add(name="bob", cents=1))
    apply = Add.apply

    def interrupt(self: Add, state: AccountsState, message: Message[Any]) -> None:
        apply(self, state, message)
        if message.position == 2:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Add, "apply", interrupt)
        replica = make_replica(log)
        with pytest.raises(Interrupted):
            await replica.start()
    assert (replica.position, cents(replica)) == (1, {"ann": 1})
    await replica.catch_up()
    assert replica.state.hash() == (await started(log)).state.hash()


@pytest.mark.parametrize(
    ("name", "version", "body", "meta"),
    [
        ("accounts/add", 1, {"name": "ann", "cents": "7"}, None),
        ("accounts/add", 1, b"\xff", None),
        ("accounts/add", 0, {"name": "ann", "cents": 7}, None),
        ("accounts/add", 1, {"name": "ann", "cents": 7}, b'{"traceparent":"\xff"}'),
    ],
)
async def test_damage_is_poison_in_a_new_process_and_in_a_running_one(
    name: str, version: int, body: Any, meta: bytes | None
) -> None:
    log = MemoryLog()
    running = await started(log)
    await append_raw(log, name, body, version=version, meta=meta)
    for replica in (running, make_replica(log)):
        with pytest.raises(Poisoned, match="at position 1"):
            await replica.catch_up()


@pytest.mark.parametrize(("name", "version"), [("accounts/unheard-of", 1), ("accounts/add", 2), ("other/add", 1)])
async def test_newer_code_makes_a_running_process_outdated_and_stops_a_start(name: str, version: int) -> None:
    log = MemoryLog()
    running = await started(log)
    await append_raw(log, name, {"name": "ann", "cents": 1}, version=version)
    with pytest.raises(Outdated, match=r"at position 1 .* from newer code") as caught:
        await running.catch_up()
    assert (caught.value.position, caught.value.name) == (1, name)
    with pytest.raises(Poisoned, match="at position 1"):
        await started(log)


async def test_meta_is_read_from_the_record() -> None:
    log = MemoryLog()
    meta = msgspec.structs.replace(make_message(Close(name="x"), 1).meta, traceparent="00-ab")
    await append_raw(log, "accounts/add", {"name": "ann", "cents": 1}, meta=encode_meta(meta))
    replica = await started(log)
    (message,), _ = await replica.messages.read(0, 1)
    assert message.meta.traceparent == "00-ab"


# Messages set aside.


@pytest.mark.parametrize("after_poison", [0, 1, REPLAY_RECORDS + 5])
async def test_a_message_set_aside_is_left_out_however_late_that_was_decided(after_poison: int) -> None:
    log, clean = MemoryLog(), MemoryLog()
    await append(log, Add(name="ann", cents=1), Add(name="ann", cents=-9))
    await append(clean, Add(name="ann", cents=1), Add(name="zoe", cents=0))
    for start in range(0, after_poison, 500):
        await append(log, *[Add(name="bob", cents=1)] * min(500, after_poison - start))
    with pytest.raises(Poisoned, match="at position 2"):
        await started(log)
    decided_at = await decide(log, 2)
    replica = await started(log)
    assert replica.position == decided_at
    assert cents(replica) == {"ann": 1, **({"bob": after_poison} if after_poison else {})}
    assert await replica.messages.get(2) is None
    found, _ = await replica.messages.read(0, 3)
    assert 2 not in [message.position for message in found]


async def test_a_replay_to_a_position_before_the_decision_leaves_it_out_too() -> None:
    log = MemoryLog()
    await append(log, Add(name="ann", cents=1), Add(name="ann", cents=-9), Add(name="ann", cents=2))
    await decide(log, 2)
    replica = make_replica(log)
    replica._set_asides = frozenset({2})
    replica.replay(await log.read(0, 3))
    assert (replica.position, cents(replica)) == (3, {"ann": 3})


async def test_setting_an_applied_message_aside_rebuilds_the_state_of_a_running_process(store: Store) -> None:
    await append(store.log, Add(name="ann", cents=1), Add(name="ann", cents=2), Add(name="bob", cents=3))
    running = await started(store.log)
    assert cents(running) == {"ann": 3, "bob": 3}
    await decide(store.log, 2)
    await append(store.log, Add(name="ann", cents=4))
    await running.catch_up()
    assert cents(running) == {"ann": 5, "bob": 3}
    assert not running.rebuilding
    assert await running.messages.get(2) is None
    assert running.state.hash() == (await started(store.log)).state.hash()


async def test_while_the_state_is_rebuilt_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    await append(log, Add(name="ann", cents=1), Add(name="ann", cents=2))
    running = await started(log)
    assert not running.rebuilding
    seen: list[tuple[int, bool]] = []
    replay = running.replay

    def look(records: Sequence[Record]) -> None:
        seen.append((running.settled_position, running.rebuilding))
        assert running.messages._recent.after(0, 1) is None, "what is set aside is handed out no more"
        replay(records)

    monkeypatch.setattr(running, "replay", look)
    await decide(log, 1)
    await running.catch_up()
    assert seen == [(0, True)]
    assert not running.rebuilding


async def test_a_decision_about_what_is_not_applied_yet_needs_no_rebuilding() -> None:
    log = MemoryLog()
    await append(log, Add(name="ann", cents=1))
    running = await started(log)
    state = running.state
    await append(log, Add(name="ann", cents=-9))
    await decide(log, 2)
    await running.catch_up()
    assert running.state is state
    assert (running.position, cents(running)) == (3, {"ann": 1})


async def test_a_decision_is_recorded_in_the_log_only_and_never_executed() -> None:
    log = MemoryLog()
    await append(log, Add(name="ann", cents=1))
    running = await started(log)
    with pytest.raises(Rejected, match="journeyman log set-aside"):
        running.propose(make_message(MessageSetAside(position=1, reason="r"), 2))


# The right log.


async def test_a_gap_is_corruption_and_nothing_behind_it_is_applied() -> None:
    log = MemoryLog()
    await append(log, *[Add(name="ann", cents=1)] * 4)
    del log._records[2]
    replica = make_replica(log)
    with pytest.raises(Corrupt, match="after position 2 comes 4"):
        await replica.start()
    assert cents(replica) == {}
    with pytest.raises(Corrupt, match="after position 0 comes 2"):
        replica.replay((await log.read(0, 10))[1:])


async def test_a_log_that_was_replaced_is_the_wrong_one(store: Store) -> None:
    replica = await started(store.log)
    await replica.verify()
    await append(store.log, Add(name="ann", cents=1), Add(name="ann", cents=2))
    await replica.catch_up()
    await replica.verify()
    shorter, other = MemoryLog(), MemoryLog()
    await append(shorter, Add(name="ann", cents=1))
    await append(other, Add(name="ann", cents=1), Add(name="ann", cents=2))
    for log in (shorter, other):
        replica._log = log
        with pytest.raises(WrongLog, match="at position 2 is not the one"):
            await replica.verify()


async def test_after_settling_the_last_message_is_known_too() -> None:
    log = MemoryLog()
    replica = await started(log)
    message = make_message(Add(name="ann", cents=1), 1)
    replica.propose(message)
    await log.append([message.record], after=0)
    replica.settle()
    await replica.verify()
    log._records[0] = msgspec.structs.replace(message.record, id=SYSTEM_TIMING.new_id())
    with pytest.raises(WrongLog):
        await replica.verify()

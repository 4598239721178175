"""Whatever happens to the server or the way to it: nothing is lost, doubled or torn, and everything goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import asyncpg
import pytest
import pytest_asyncio

from journeyman.errors import NotReady, WrongLog
from journeyman.store import Store, open_store, postgres_link, postgres_session
from journeyman.store.postgres import PostgresStore
from journeyman.store.postgres_link import Connection
from journeyman.store.postgres_session import Session
from journeyman.testing.contract import fill
from journeyman.testing.records import make_records
from tests.proxy import proxy
from tests.servers_postgres import PostgresServer, postgres
from tests.store.postgres_load import NO_FAULTS, PATIENCE_S, Load, until, writing

#: Never, for what must come in another way, in seconds.
NEVER_S = 1000.0


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that may be killed."""
    with postgres() as server:
        yield server


@pytest_asyncio.fixture
async def outside(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection that knows nothing of stores."""
    connection = await asyncpg.connect(postgres_server.dsn, server_settings={"application_name": "outside"})
    yield connection
    await connection.close()


@asynccontextmanager
async def stores_of(url: str, count: int) -> AsyncIterator[list[Store]]:
    stores = [await open_store(url) for _ in range(count)]
    try:
        yield stores
    finally:
        for store in stores:
            await store.close()


# The server, and connections to it.


async def test_a_server_that_is_killed_under_load_costs_nothing_that_was_told(own_server: PostgresServer) -> None:
    load = Load()
    async with stores_of(own_server.url(), 3) as stores:
        async with writing(load, stores):
            for _ in range(2):
                before = load.told.total()
                await until(lambda before=before: load.told.total() > before + 30)  # type: ignore[misc]
                await own_server.restart("immediate")
        assert await load.faults(stores[0]) == NO_FAULTS
    assert load.unknown + load.refused > 0


async def test_connections_that_are_terminated_in_mid_append_cost_nothing(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    load = Load()
    async with stores_of(postgres_server.url(), 4) as stores:
        async with writing(load, stores):
            await terminate(outside, until_unknown=20, load=load)
        assert await load.faults(stores[0]) == NO_FAULTS


async def test_the_load_catches_a_store_that_takes_an_unknown_outcome_for_a_refusal(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: then the same is recorded again, at another place."""
    monkeypatch.setattr(postgres_link, "_is_refusal", lambda error: True)
    load = Load()
    async with stores_of(postgres_server.url(), 4) as stores:
        doubled = 0
        while doubled == 0:
            async with writing(load, stores):
                await terminate(outside, until_unknown=-1, load=load)
            doubled = (await load.faults(stores[0]))["doubled"]


async def terminate(connection: asyncpg.Connection[Any], *, until_unknown: int, load: Load) -> None:
    """End sessions that append, again and again: until so many outcomes were unknown, or, with -1, a hundred times."""
    ended = 0
    async with asyncio.timeout(PATIENCE_S):
        while ended < 100 if until_unknown < 0 else load.unknown < until_unknown:
            ended += await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name = 'journeyman' AND query LIKE '%append(%' AND state = 'active'"
            )
            await asyncio.sleep(0.005)


async def test_while_the_server_is_away_calls_fail_at_once_and_all_goes_on_when_it_is_back(
    own_server: PostgresServer,
) -> None:
    async with stores_of(own_server.url(), 1) as [store]:
        await fill(store, 2)
        await asyncio.to_thread(own_server.stop)
        for _ in range(50):
            with pytest.raises(NotReady):
                await store.log.read(0, 10)
            with pytest.raises(NotReady):
                await store.log.append(make_records(1, after=2), after=2)
            with pytest.raises(NotReady):
                await store.keys.put("a", b"1")
        await asyncio.to_thread(own_server.start)
        await until(lambda: answers(store))
        await fill(store, 1, after=2)
        assert await store.log.head() == 3


async def test_a_server_that_answers_nothing_holds_nobody_up_for_ever(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        proxy(postgres_server.port) as way,
        stores_of(postgres_server.tcp_url(port=way.port), 1) as [store],
    ):
        assert await store.log.head() == 0
        for name in ("CALL_S", "CONNECT_S"):
            monkeypatch.setattr(postgres_link, name, 0.2)
        way.swallow()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(NotReady, match="did not answer"):
                await store.log.head()
            await until(lambda: answers(store))


async def answers(store: Store) -> bool:
    try:
        await store.log.head()
    except NotReady:
        return False
    return True


async def test_a_log_that_was_replaced_while_nobody_looked_is_the_wrong_log(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    """It may even be longer than the one that was read: only the id of the last record seen tells."""
    async with stores_of(postgres_server.url("replaced"), 1) as [store]:
        await fill(store, 2)
        await outside.execute("UPDATE replaced.messages SET id = 'another' WHERE position = 2")
        await outside.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'journeyman'"
        )
        await until(lambda: all_lost(store))
        for _ in range(2):
            with pytest.raises(WrongLog, match="position 2"):
                await store.log.append(make_records(1, after=2), after=2)
            with pytest.raises(WrongLog):
                await store.log.read(0, 10)


def all_lost(store: Store) -> bool:
    log = cast(PostgresStore, store)._log
    return all(link._connection is None or link._connection.is_closed() for link in (log._reader, log._writer))


# What somebody else leaves open.


async def test_a_foreign_transaction_that_only_reads_is_in_nobodys_way(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    async with stores_of(postgres_server.url("idle"), 1) as [store]:
        await fill(store, 1)
        async with outside.transaction(isolation="repeatable_read"):
            assert await outside.fetchval("SELECT count(*) FROM idle.messages") == 1
            await fill(store, 2, after=1)
            assert await outside.fetchval("SELECT count(*) FROM idle.messages") == 1
        assert await store.log.head() == 3


@pytest.mark.parametrize("lock", ["LOCK TABLE held.messages", "SELECT pg_advisory_xact_lock($1)"])
async def test_a_foreign_transaction_that_holds_a_lock_is_waited_for_only_so_long(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    shorter = str(int(postgres_link._SETTINGS["lock_timeout"]) // 40)
    monkeypatch.setitem(postgres_link._SETTINGS, "lock_timeout", shorter)
    async with stores_of(postgres_server.url("held"), 1) as [store]:
        after = await store.log.head()
        async with outside.transaction():
            queue = cast(PostgresStore, store)._log._queue
            await outside.execute(lock, *([queue] if "$1" in lock else []))
            with pytest.raises(NotReady, match="look for an open transaction"):
                await store.log.append(make_records(1, after=after), after=after)
        await fill(store, 1, after=after)


async def test_a_holder_of_the_turn_who_was_stopped_does_not_hold_up_the_others(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("journeyman.store.postgres.BEGIN", "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 200")
    async with stores_of(postgres_server.url(), 2) as [store, other]:
        async with store.log.turn():
            await fill(other, 1)  # The server ends what does nothing.
            with pytest.raises(Exception, match="first"):
                await fill(store, 1)  # And what was its turn is one no more, which costs nobody anything.
        async with store.log.turn():
            await fill(store, 1, after=1)
        assert await other.log.head() == 2


# The session that listens.


async def test_a_listening_session_that_was_cut_silently_is_missed_and_opened_again(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look each second: the session itself is asked, and opened again, and tells what came meanwhile."""
    monkeypatch.setattr("journeyman.store.postgres.LOOK_S", NEVER_S)
    monkeypatch.setattr(postgres_session, "PING_S", 0.2)
    async with (
        proxy(postgres_server.port) as way,
        stores_of(postgres_server.tcp_url("cut", port=way.port), 1) as [store],
    ):
        other = await open_store(postgres_server.url("cut"))
        position = await store.log.head()
        for _ in range(2):
            waiting = await asleep(store, position)
            assert way.swallow(listens) == 1
            await fill(other, 1, after=position)
            await waiting
            position += 1
        await other.close()


async def test_the_look_each_second_is_the_net_under_a_session_that_was_cut(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "PING_S", NEVER_S)
    async with (
        proxy(postgres_server.port) as way,
        stores_of(postgres_server.tcp_url("net", port=way.port), 1) as [store],
    ):
        other = await open_store(postgres_server.url("net"))
        waiting = await asleep(store, 0)
        assert way.swallow(listens) == 1
        await fill(other, 1)
        await waiting
        await other.close()


async def test_the_server_tells_of_what_others_append(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any look but the first."""
    monkeypatch.setattr("journeyman.store.postgres.LOOK_S", NEVER_S)
    async with stores_of(postgres_server.url(), 2) as [store, other]:
        for position in range(20):
            waiting = await asleep(store, position)
            await fill(other, 1, after=position)
            await waiting


async def test_who_reads_at_each_word_asks_for_no_head_beside_that(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also who finds nothing, and who is told while it does something else."""
    monkeypatch.setattr("journeyman.store.postgres.LOOK_S", NEVER_S)
    async with stores_of(postgres_server.url(), 2) as [store, other]:
        watch = cast(PostgresStore, store)._log.watch
        (await asleep(store, 0)).cancel()
        looks, look, told = 0, watch._head_of_log, list[int]()

        async def counted() -> int:
            nonlocal looks
            looks += 1
            return await look()

        watch._head_of_log = counted
        for position in range(20):
            told.append(watch.news)
            await fill(other, 1, after=position)
            await until(lambda: watch.news > told[-1])  # While nobody waits.
            await woken(store, position)
            assert await store.log.read(position + 1, 1) == []
            (await asleep(store, position + 1)).cancel()
        assert looks == 0
        watch.tell()
        async with asyncio.timeout(PATIENCE_S):
            await store.log.wait(20, NEVER_S)  # For a read, and no look before it.
        waiting = asyncio.create_task(store.log.wait(20, NEVER_S))
        await until(lambda: looks == 1)  # Who waits again without having read has it looked for.
        waiting.cancel()


def listens(said: bytes) -> bool:
    return b"LISTEN" in said


async def asleep(store: Store, position: int) -> asyncio.Task[None]:
    """Somebody who waits, as a follower does, and has looked already, over a session that listens."""
    waiting = asyncio.create_task(woken(store, position))
    log = cast(PostgresStore, store)._log
    session = cast(PostgresStore, store)._session
    assert session is not None
    await until(
        lambda: bool(log.watch._waiters._waiting and session.link._connection and log.watch._looked == log.watch.news)
    )
    return waiting


async def woken(store: Store, position: int) -> None:
    """Wait as a follower does, until there is more."""
    async with asyncio.timeout(PATIENCE_S):
        while not await store.log.read(position, 1):
            await store.log.wait(position, NEVER_S)


# Many writers.


async def test_a_reader_never_sees_a_gap_behind_sixteen_writers(postgres_server: PostgresServer) -> None:
    async with stores_of(postgres_server.url(), 17) as [reader, *writers]:
        load, positions = Load(), [0]

        async def follow() -> None:
            while True:  # It reads all the time: a gap is there for a moment only.
                records = await reader.log.read(positions[-1], 100, name="testing/do-something")
                positions.extend(record.position for record in records)

        following = asyncio.create_task(follow())
        async with writing(load, writers):
            await until(lambda: len(load.told) >= 600)
        head = await reader.log.head()
        await until(lambda: positions[-1] == head)
        following.cancel()
        await asyncio.wait({following})
        assert gaps(positions) == 0
        assert await load.faults(reader) == NO_FAULTS


async def test_behind_writers_with_positions_of_a_sequence_it_does(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any]
) -> None:
    """The control: what the store does not do, and why."""
    await outside.execute("CREATE TABLE naive (position bigserial PRIMARY KEY, subject text)")
    positions, ended = [0], False

    async def write(subject: str) -> None:
        connection = await asyncpg.connect(postgres_server.dsn)
        while not ended:
            async with connection.transaction():
                await connection.execute("INSERT INTO naive (subject) VALUES ($1)", subject)
        await connection.close()

    writers = [asyncio.create_task(write(str(number))) for number in range(16)]
    read = "SELECT position FROM naive WHERE position > $1 ORDER BY position"
    async with asyncio.timeout(PATIENCE_S):
        while gaps(positions) == 0:
            positions += [row[0] for row in await outside.fetch(read, positions[-1])]
    ended = True
    await asyncio.gather(*writers)


def gaps(positions: list[int]) -> int:
    return sum(later != earlier + 1 for earlier, later in pairwise(positions))


# Roles.


async def test_a_role_outlives_the_session_that_it_was_claimed_by(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder comes back, not at once; whoever asks meanwhile gives him the time for it."""
    monkeypatch.setattr(postgres_session, "RETURN_AFTER_START_S", 0.0)
    async with stores_of(postgres_server.url(), 2) as [store, other]:
        assert await store.claim("workers")
        session = open_late(store, 0.1)
        for _ in range(3):
            pid = session._pid
            await outside.fetchval("SELECT pg_terminate_backend($1)", pid)
            while session._pid == pid:
                assert not await other.claim("workers")
            assert not await other.claim("workers")
            assert await store.claim("workers")
        await until(lambda: releases(store))
        assert await other.claim("workers")


def open_late(store: Store, pause_s: float) -> Session:
    """Have the store's session opened again only after a pause."""
    session = cast(PostgresStore, store)._session
    assert session is not None
    opened = session._opened

    async def late() -> Connection:
        await asyncio.sleep(pause_s)
        return await opened()

    session._opened = late
    return session


async def releases(store: Store) -> bool:
    try:
        await store.release("workers")
    except NotReady:
        return False
    return True


async def test_a_role_that_was_lost_while_its_holder_was_cut_off_is_not_his_any_more(
    postgres_server: PostgresServer, outside: asyncpg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "RETURN_AFTER_START_S", 0.0)
    async with (
        proxy(postgres_server.port) as way,
        stores_of(postgres_server.tcp_url("roles", port=way.port), 1) as [store],
    ):
        other = await open_store(postgres_server.url("roles"))
        assert await store.claim("workers")
        session = cast(PostgresStore, store)._session
        assert session is not None
        monkeypatch.setattr(session.link, "_opened", refused)
        await outside.fetchval("SELECT pg_terminate_backend($1)", session._pid)
        await until(lambda: other.claim("workers"))
        monkeypatch.undo()
        await until(lambda: refuses(store))
        await other.release("workers")
        assert await store.claim("workers")
        await other.close()


async def refused() -> None:
    raise ConnectionRefusedError("nobody listens")


async def refuses(store: Store) -> bool:
    try:
        return not await store.claim("workers")
    except NotReady:
        return False


async def test_after_a_restart_of_the_server_no_living_holder_loses_a_role(own_server: PostgresServer) -> None:
    async with stores_of(own_server.url(), 2) as [store, other]:
        assert await store.claim("workers")
        session = open_late(store, 1.0)  # Longer than RETURN_S.
        pid = session._pid
        await own_server.restart("immediate")
        await until(lambda: answers(other))
        while session._pid == pid:
            assert not await claims(other)
        await until(lambda: claims(store))
        assert not await claims(other)


async def claims(store: Store) -> bool:
    try:
        return await store.claim("workers")
    except NotReady:
        return False

"""What JetStream's servers and the network do to a log that is written: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from journeyman.errors import Conflict, NotReady, OutcomeUnknown, StoreError
from journeyman.message import Record
from journeyman.store import Store, jetstream_blobs, jetstream_claims, jetstream_log, jetstream_watch, open_store
from journeyman.store.jetstream import JetStreamStore
from journeyman.testing.contract import everything, fill
from journeyman.testing.records import make_records
from tests.log_load import Load
from tests.servers_nats import NatsCluster, NatsServer, shared_cluster, shared_server
from tests.store.test_jetstream import api, driver, log_of
from tests.tcp_proxy import Proxy

#: How long anything may take before it counts as hanging, in seconds.
PATIENCE_S = 60.0

#: How long an append waits for its reply where the test has it fail, in seconds.
APPEND_S = 0.3


@pytest.fixture(scope="module", autouse=True)
def server() -> NatsServer:
    """Started here, where no event loop waits."""
    return shared_server()


@pytest.fixture(scope="module")
def cluster() -> NatsCluster:
    return shared_cluster()


# A cluster. That other leaders are lost is in tests/crash/test_nats.py, many times.


async def test_a_leader_that_is_killed_under_load_costs_nothing_but_time(cluster: NatsCluster, tmp_path: Path) -> None:
    log = log_of(tmp_path)
    load = Load(lambda: open_store(cluster.url(log)))
    async with load.running():
        leader = await asyncio.to_thread(cluster.leader, log)
        leader.kill()
        await load.stall()
        await asyncio.to_thread(leader.start)
    counted = await load.counted()
    assert not counted.broken, counted


# Replies and requests that are lost on their way.


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy(shared_server().port) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def far(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A handle behind the proxy, which does not wait long."""
    monkeypatch.setattr(jetstream_log, "APPEND_S", APPEND_S)
    store = await open_store(f"nats://127.0.0.1:{proxy.port}/{log_of(tmp_path)}")
    yield store
    await store.close()


@pytest_asyncio.fixture
async def near(tmp_path: Path) -> AsyncIterator[Store]:
    """Another handle on the same log, straight to the server."""
    store = await open_store(shared_server().url(log_of(tmp_path)))
    yield store
    await store.close()


@pytest.mark.parametrize("lost", ["swallow_replies", "swallow_requests"])
@pytest.mark.parametrize("size", [1, 7])
async def test_an_append_whose_reply_or_request_is_lost_is_there_once(
    lost: str, size: int, proxy: Proxy, far: Store, near: Store
) -> None:
    written = await fill(far, 2)
    for _ in range(3):
        batch = make_records(size, after=len(written))
        setattr(proxy, lost, True)
        with pytest.raises(OutcomeUnknown):
            await far.log.append(batch, after=len(written))
        setattr(proxy, lost, False)
        if lost == "swallow_replies":  # The request may still be on its way, on a slow machine.
            async with asyncio.timeout(PATIENCE_S):
                while await near.log.head() == len(written):
                    await near.log.wait(len(written), 0.1)
        assert await near.log.head() == len(written) + (size if lost == "swallow_replies" else 0)
        await settle(far, batch, after=len(written))
        written += batch
    assert await everything(near) == written
    assert proxy.swallowed >= 3


@pytest.mark.parametrize("size", [1, 7])
async def test_an_append_that_arrives_late_finds_its_place_taken(
    size: int, proxy: Proxy, far: Store, near: Store
) -> None:
    batch = make_records(size)
    with proxy.held():
        with pytest.raises(OutcomeUnknown):
            await far.log.append(batch, after=0)
        theirs = await fill(near, 2)
    await proxy.until_left()
    assert await everything(near) == theirs
    with pytest.raises(Conflict):
        await settle(far, batch, after=0)
    assert await everything(near) == theirs


@pytest.mark.parametrize("size", [1, 7])
async def test_an_append_that_arrives_late_and_again_is_there_once(
    size: int, proxy: Proxy, far: Store, near: Store
) -> None:
    batch = make_records(size)
    with proxy.held(), pytest.raises(OutcomeUnknown):
        await far.log.append(batch, after=0)
    await settle(far, batch, after=0)
    await proxy.until_left(but=1)
    assert await everything(near) == batch


async def settle(store: Store, batch: Sequence[Record], *, after: int) -> None:
    """Make the identical call until it is known, as the executor does."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(NotReady, OutcomeUnknown):
                return await store.log.append(batch, after=after)
            await asyncio.sleep(0.02)


# A server that is away for a while.


@asynccontextmanager
async def own_server(folder: Path) -> AsyncIterator[NatsServer]:
    """A server that the test may kill."""
    server = NatsServer(folder)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        server.kill()


async def test_while_the_server_is_away_calls_fail_and_then_everything_goes_on(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server:
        store = await open_store(server.url("blog"))
        written = await fill(store, 3)
        revision = await store.keys.put("a", b"1")
        server.kill()
        batch = make_records(2, after=3)
        calls = (store.log.head(), store.log.read(0, 10), store.keys.get("a"), store.blobs.load("a"))
        async with asyncio.timeout(PATIENCE_S):
            failed = await asyncio.gather(store.log.append(batch, after=3), *calls, return_exceptions=True)
        assert all(isinstance(error, NotReady | OutcomeUnknown) for error in failed), failed
        await asyncio.to_thread(server.start)
        await settle(store, batch, after=3)
        assert await everything(store) == written + batch
        entry = await store.keys.get("a")
        assert entry is not None
        assert entry.revision == revision
        await store.close()


async def test_who_waits_is_woken_after_the_server_was_away(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server:
        store, other = await open_store(server.url("blog")), await open_store(server.url("blog"))
        server.kill()
        await asyncio.to_thread(server.start)
        await settle(other, make_records(1), after=0)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(NotReady):
                    await store.log.wait(0, PATIENCE_S)
                    if await store.log.head() == 1:
                        break
        await store.close()
        await other.close()


async def test_an_append_that_nobody_told_of_wakes_who_waits(near: Store, tmp_path: Path) -> None:
    """Within the second in which the head is looked at."""
    silent = await open_store(shared_server().url(log_of(tmp_path)))
    assert isinstance(silent.log, jetstream_log.JetStreamLog)
    silent.log.news = "nobody-listens"
    await near.log.wait(0, 0)
    await near.log.head()
    waiting = asyncio.create_task(near.log.wait(0, PATIENCE_S))
    await fill(silent, 1)
    async with asyncio.timeout(PATIENCE_S / 2):
        await waiting
    assert await near.log.head() == 1
    await silent.close()


async def test_an_append_of_another_process_wakes_who_waits_before_anybody_looks(
    near: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_watch, "LOOK_S", 10 * PATIENCE_S)
    other = await open_store(shared_server().url(log_of(tmp_path)))
    async with asyncio.timeout(PATIENCE_S):
        for number in range(5):
            waiting = asyncio.create_task(near.log.wait(number, 10 * PATIENCE_S))
            await fill(other, 1, after=number)
            await waiting
    await other.close()


# Blobs.


async def test_a_blob_that_failed_leaves_nothing_behind(near: Store, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(2 * jetstream_blobs.PART_BYTES)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await near.blobs.save("a", broken())
    for content in (b"old", b"new"):
        await near.blobs.save("a", [content])
    assert await _blob_messages(tmp_path) == 2  # One part, and the name.
    await near.blobs.delete("a")
    assert await _blob_messages(tmp_path) == 0


async def test_what_a_process_left_that_died_while_it_saved_is_removed(
    near: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def endless() -> Iterator[bytes]:
        yield bytes(jetstream_blobs.PART_BYTES)
        started.set()
        threading.Event().wait()

    dying = await open_store(shared_server().url(log_of(tmp_path)))
    saving = asyncio.create_task(dying.blobs.save("a", endless()))
    await asyncio.to_thread(started.wait, PATIENCE_S)
    await dying.close()  # So that it can't clean up behind itself.
    saving.cancel()
    await asyncio.wait({saving})
    assert await _blob_messages(tmp_path) == 1
    await near.blobs.save("b", [b"1"])
    assert await _blob_messages(tmp_path) == 3
    monkeypatch.setattr(jetstream_blobs, "LEFTOVER_S", -10.0)
    await near.blobs.save("c", [b"1"])
    assert await _blob_messages(tmp_path) == 4
    assert await near.blobs.load("b") == b"1"


async def _blob_messages(place: Path) -> int:
    async with driver() as client:
        info = await api(client, f"STREAM.INFO.{log_of(place)}-blobs")
    count: int = info["state"]["messages"]
    return count


# Roles.


async def test_a_restart_of_the_server_frees_no_role(tmp_path: Path) -> None:
    async with own_server(tmp_path) as server:
        holder, other = await open_store(server.url("blog")), await open_store(server.url("blog"))
        assert await holder.claim("workers")
        server.kill()
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with suppress(StoreError):
                    assert await other.claim("workers") is False
                    break
        assert await holder.claim("workers")
        await holder.close()
        await other.close()


async def test_a_holder_that_does_not_answer_keeps_its_role_while_its_connection_stands(
    proxy: Proxy, far: Store, near: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_claims, "LEASE_S", 0.2)
    assert await far.claim("workers")
    with proxy.held():
        assert await near.claim("workers") is False


async def test_a_holder_that_is_cut_off_gets_back_what_nobody_took(
    proxy: Proxy, far: Store, near: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_claims, "LEASE_S", 0.2)
    assert await far.claim("workers")
    assert await far.claim("instance/1")
    await proxy.refuse()
    async with asyncio.timeout(PATIENCE_S):
        while not await near.claim("workers"):  # noqa: ASYNC110  # what it waits for sets no event here
            await asyncio.sleep(0.05)
        await proxy.accept()
        while await near.claim("instance/1"):
            await near.release("instance/1")
            await asyncio.sleep(1.0)  # Longer than it takes the holder to renew.
    with suppress(StoreError):
        assert not await far.claim("workers")


async def test_several_that_died_together_are_waited_for_once(near: Store, tmp_path: Path) -> None:
    dead = [await open_store(shared_server().url(log_of(tmp_path))) for _ in range(4)]
    for number, store in enumerate(dead):
        assert await store.claim(f"instance/{number}")
    for store in dead:
        assert isinstance(store, JetStreamStore)
        await die(store)
    loop = asyncio.get_running_loop()
    assert await near.claim("instance/0")
    since = loop.time()
    for number in (1, 2, 3):
        assert await near.claim(f"instance/{number}")
    assert loop.time() - since < 2 * jetstream_claims.LEASE_S


async def die(store: JetStreamStore) -> None:
    """Leave without a word, as with kill -9."""
    if store._claims._keeping is not None:
        store._claims._keeping.cancel()
        await asyncio.wait({store._claims._keeping})
    await store._connection.close()


async def test_a_holder_that_is_cut_off_loses_its_role_and_finds_out(
    proxy: Proxy, far: Store, near: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_claims, "LEASE_S", 0.2)
    assert await far.claim("workers")
    await proxy.refuse()
    async with asyncio.timeout(PATIENCE_S):
        while not await near.claim("workers"):  # noqa: ASYNC110  # what it waits for sets no event here
            await asyncio.sleep(0.05)
        await proxy.accept()
        while True:
            with suppress(StoreError):
                assert await far.claim("workers") is False
                break
    assert await near.claim("workers")

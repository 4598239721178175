"""What a replica leaves out that is behind, or the network loses, is asked for again, and nothing is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from journeyman.errors import Conflict, Corrupt, NotReady
from journeyman.store import Store, jetstream_direct, jetstream_log, open_store
from journeyman.store.jetstream import JetStreamStore
from journeyman.store.jetstream_claims import Session
from journeyman.store.jetstream_direct import Chunk, Direct, Stored
from journeyman.store.jetstream_keys import SESSIONS, JetStreamKeys
from journeyman.store.jetstream_log import JetStreamLog
from journeyman.testing.contract import everything, fill
from journeyman.testing.records import make_records
from tests.servers_nats import NatsCluster, shared_cluster, shared_server
from tests.store.test_jetstream import api, driver, log_of

#: How long anything may take before it counts as hanging, in seconds.
PATIENCE_S = 30.0


class Unreliable(Direct):
    """Answers that are changed, for so many times."""

    def __init__(self, log: JetStreamLog, change: Callable[[list[bytes]], list[bytes]], times: int) -> None:
        super().__init__(log._connection, log._stream)
        self._change = change
        #: How many more answers are changed.
        self.times = times

    async def chunk(self, sequence: int, limit: int, *, subject: str | None = None) -> Chunk:
        chunk = await super().chunk(sequence, limit, subject=subject)
        contents = self._changed(chunk.contents)
        return Chunk(contents, chunk.ended or len(contents) < len(chunk.contents))

    async def at(self, sequence: int) -> Stored | None:
        found = await super().at(sequence)
        return found if found is None or self._changed([found.content]) else None

    def _changed(self, contents: list[bytes]) -> list[bytes]:
        if self.times == 0:
            return contents
        self.times -= 1
        return self._change(contents)


def nothing(contents: list[bytes]) -> list[bytes]:
    return []


def all_but_the_last(contents: list[bytes]) -> list[bytes]:
    return contents[:-1]


def all_but_the_third(contents: list[bytes]) -> list[bytes]:
    return [*contents[:2], *contents[3:]]


def all_but_the_first(contents: list[bytes]) -> list[bytes]:
    return contents[1:]


@pytest.fixture(scope="module")
def cluster() -> NatsCluster:
    """Started here, where no event loop waits."""
    shared_server()
    return shared_cluster()


@pytest_asyncio.fixture
async def store(cluster: NatsCluster, tmp_path: Path) -> AsyncIterator[JetStreamStore]:
    """A store whose replies may come from three servers."""
    store = await open_store(cluster.url(log_of(tmp_path)))
    assert isinstance(store, JetStreamStore)
    yield store
    await store.close()


def make_unreliable(store: JetStreamStore, change: Callable[[list[bytes]], list[bytes]], times: int) -> Unreliable:
    direct = store._log._direct = Unreliable(store._log, change, times)
    return direct


# Reading.


@pytest.mark.parametrize("change", [nothing, all_but_the_last, all_but_the_third, all_but_the_first])
async def test_what_an_answer_lacks_is_asked_for_again(
    change: Callable[[list[bytes]], list[bytes]], store: JetStreamStore
) -> None:
    records = await fill(store, 10)
    direct = make_unreliable(store, change, 3)
    assert await store.log.read(0, 100) == records
    assert direct.times == 0


async def test_a_server_that_sends_headers_all_the_same_is_understood(
    store: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_direct, "NO_HEADERS", "no_such_option")
    records = await fill(store, 5) + await fill(store, 1, after=5)
    assert await store.log.read(0, 100) == records
    await store.blobs.save("a", [b"1"])
    assert await store.blobs.load("a") == b"1"


async def test_what_no_answer_has_is_a_server_that_is_not_ready(
    store: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the end of the log: a replica that is verified against it would take that for another log."""
    monkeypatch.setattr(jetstream_log, "READ_S", 0.1)
    await fill(store, 10)
    make_unreliable(store, nothing, 10**6)
    with pytest.raises(NotReady, match="no message behind 0, where 10 is the head"):
        await store.log.read(0, 100)


async def test_a_gap_that_stays_is_corrupt(store: JetStreamStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_log, "READ_S", 0.1)
    await fill(store, 10)
    make_unreliable(store, all_but_the_first, 10**6)
    with pytest.raises(Corrupt, match="after position 0 comes 2"):
        await store.log.read(0, 100)


@pytest.mark.parametrize("change", [nothing, all_but_the_last])
async def test_a_read_by_name_is_completed_by_the_leader(
    change: Callable[[list[bytes]], list[bytes]], store: JetStreamStore
) -> None:
    records = await fill(store, 5, name="posts/create")
    make_unreliable(store, change, 10**6)
    assert await store.log.read(0, 100, name="posts/create") == records
    assert await store.log.read(1, 2, name="posts/create") == records[1:3]


# Appending.


async def test_an_empty_read_decides_no_conflict(store: JetStreamStore) -> None:
    """The leader refuses, because of what it can't show yet."""
    batch = await fill(store, 3)
    direct = make_unreliable(store, nothing, 4)
    await store.log.append(batch, after=0)
    assert direct.times == 0
    make_unreliable(store, nothing, 4)
    with pytest.raises(Conflict):
        await store.log.append(make_records(3), after=0)
    assert await everything(store) == batch


async def test_an_append_that_is_refused_for_what_nobody_shows_is_not_ready(
    store: JetStreamStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_log, "APPEND_S", 0.1)
    await fill(store, 1)
    make_unreliable(store, nothing, 10**6)
    with pytest.raises(NotReady, match="took no append"):
        await store.log.append(make_records(1), after=0)


# Keys and sessions.


async def test_a_delete_never_removes_what_was_put_since_it_looked(store: JetStreamStore) -> None:
    keys = store.keys
    assert isinstance(keys, JetStreamKeys)
    old = await keys.put("a", b"old")
    new = await keys.put("a", b"new")
    assert old is not None
    assert await keys._remove("a", old) is False
    entry = await keys.get("a")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"new", new)


async def test_a_session_that_others_ended_is_not_begun_again_by_its_owner(store: JetStreamStore) -> None:
    sessions = JetStreamKeys(store._connection, store._address.name, part=SESSIONS)
    session = Session(sessions)
    await session.begin()
    assert await session.renew()
    assert await sessions.delete(session.id)
    assert not await session.renew()
    assert not await session.renew()
    assert await sessions.get(session.id) is None


async def test_a_renewal_whose_reply_was_lost_ends_no_session(store: JetStreamStore) -> None:
    sessions = JetStreamKeys(store._connection, store._address.name, part=SESSIONS)
    session = Session(sessions)
    await session.begin()
    await sessions.put(session.id, b"of which no reply came")
    assert await session.renew()
    assert await session.renew()


async def test_closing_leaves_neither_roles_nor_a_session(tmp_path: Path, cluster: NatsCluster) -> None:
    store: Store = await open_store(shared_server().url(log_of(tmp_path)))
    async with asyncio.timeout(PATIENCE_S):
        assert await store.claim("workers")
        assert await store.claim("instance/1")
        await store.release("workers")
        await store.close()
    async with driver() as client:
        info = await api(client, f"STREAM.INFO.KV_{log_of(tmp_path)}")
    assert info["state"]["messages"] == 0

"""Behind a pooler in transaction mode the store keeps the contract of its log, and leases its roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from journeyman.errors import NotReady
from journeyman.store import Store, open_store, postgres_session
from journeyman.store.postgres import PostgresStore
from journeyman.testing.contract import fill
from journeyman.testing.log_contract import LogContract
from tests.postgres_pooler import Pooler, pooler
from tests.servers_postgres import PostgresServer


class TestPooledStore(LogContract):
    has_turns = True

    @pytest_asyncio.fixture(autouse=True)
    async def _pooler(self, postgres_server: PostgresServer) -> AsyncIterator[None]:
        async with pooler(postgres_server.port) as made:
            self.url = postgres_server.tcp_url(port=made.port, pooler="transaction")
            yield

    async def open(self, place: Path) -> Store:
        return await open_store(self.url)


@pytest_asyncio.fixture
async def pooled(postgres_server: PostgresServer) -> AsyncIterator[Pooler]:
    async with pooler(postgres_server.port) as made:
        yield made


async def test_a_pooler_that_the_url_does_not_name_is_refused(pooled: Pooler, postgres_server: PostgresServer) -> None:
    with pytest.raises(NotReady, match="pooler=transaction"):
        await open_store(postgres_server.tcp_url(port=pooled.port))


async def test_each_call_has_another_session(pooled: Pooler, postgres_server: PostgresServer) -> None:
    """Else this pooler would prove nothing."""
    store = await open_store(postgres_server.tcp_url(port=pooled.port, pooler="transaction"))
    before = pooled.transactions
    for number in range(8):
        await fill(store, 1, after=number)
        revision = await store.keys.put("a", b"1")
        assert await store.keys.put("a", b"2", expect=revision)
    await store.blobs.save("a", [b"1"])
    assert await store.blobs.load("a") == b"1"
    assert pooled.transactions >= before + 24
    await store.close()


async def test_each_call_has_its_limits_on_the_server(pooled: Pooler, postgres_server: PostgresServer) -> None:
    store = cast(PostgresStore, await open_store(postgres_server.tcp_url(port=pooled.port, pooler="transaction")))
    limits = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "transaction_isolation")
    shown = "SELECT " + ", ".join(f"current_setting('{name}')" for name in limits)
    row = await store._reader.call(lambda connection: connection.fetchrow(shown))
    assert row is not None
    assert list(row) == ["4s", "30s", "5s", "read committed"]
    await store.close()


async def test_roles_are_leased_and_free_when_their_holder_is_silent(
    pooled: Pooler, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "LEASE_S", 0.2)
    url = postgres_server.tcp_url(port=pooled.port, pooler="transaction")
    store, other = await open_store(url), await open_store(url)
    monkeypatch.setattr(postgres_session, "RENEW_S", 1000.0)
    assert await store.claim("workers")
    assert await store.claim("workers")
    assert not await other.claim("workers")
    async with asyncio.timeout(30):
        while not await other.claim("workers"):  # noqa: ASYNC110  # time sets no event
            await asyncio.sleep(0.05)
    await other.release("workers")
    assert await store.claim("workers")
    await store.close()
    assert await other.claim("workers")
    await other.close()


async def test_a_lease_is_renewed(
    pooled: Pooler, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_session, "RENEW_S", 0.05)
    url = postgres_server.tcp_url(port=pooled.port, pooler="transaction")
    store, other = await open_store(url), await open_store(url)
    monkeypatch.setattr(postgres_session, "LEASE_S", 5.0)
    assert await store.claim("workers")
    before = pooled.transactions
    async with asyncio.timeout(30):
        while pooled.transactions < before + 20:  # noqa: ASYNC110  # a count sets no event
            await asyncio.sleep(0.05)
    assert not await other.claim("workers")
    await store.close()
    await other.close()


async def test_a_session_and_a_lease_keep_each_other_out(pooled: Pooler, postgres_server: PostgresServer) -> None:
    """Some processes may have a pooler before them, others not."""
    leased = postgres_server.tcp_url(schema="both", port=pooled.port, pooler="transaction")
    one, two = await open_store(leased), await open_store(postgres_server.url("both"))
    assert await one.claim("a")
    assert await two.claim("b")
    assert not await two.claim("a")
    assert not await one.claim("b")
    await one.close()
    await two.close()

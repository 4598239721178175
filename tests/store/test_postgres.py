"""The store in a PostgreSQL database keeps the contract, refuses what it can't use, and says what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from journeyman.store import Store, open_store
from journeyman.testing.store_contract import StoreContract
from tests.servers_postgres import PostgresServer


class TestPostgresStore(StoreContract):
    shared_between_processes = has_turns = True

    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:
        self.url = postgres_server.url()

    async def open(self, place: Path) -> Store:
        return await open_store(self.url)

"""The store in a SQLite file keeps the contract."""

from __future__ import annotations

from pathlib import Path

from journeyman.store import Store, open_store
from journeyman.testing.store_contract import StoreContract


class TestSqliteStore(StoreContract):
    shared_between_processes = has_turns = True

    async def open(self, place: Path) -> Store:
        return await open_store(f"sqlite:///{place}/log.db")

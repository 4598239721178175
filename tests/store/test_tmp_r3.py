from __future__ import annotations
from pathlib import Path
from journeyman.store import Store, open_store
from journeyman.testing.store_contract import StoreContract
from tests.servers_nats import shared_cluster
from tests.store.test_jetstream import log_of
class TestR3(StoreContract):
    shared_between_processes = True
    async def open(self, place: Path) -> Store:
        return await open_store(shared_cluster().url(log_of(place)))

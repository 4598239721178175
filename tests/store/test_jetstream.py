"""The store in JetStream keeps the contract, on one server and on a cluster, and refuses what can't keep it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from journeyman.store import Store, open_store
from journeyman.testing.store_contract import StoreContract
from tests.servers_nats import shared_server


class TestJetStreamStore(StoreContract):
    shared_between_processes = True

    async def open(self, place: Path) -> Store:
        return await open_store(shared_server().url(log_of(place)))


def log_of(place: Path) -> str:
    """A log of the place's own."""
    return f"log_{sha256(str(place).encode()).hexdigest()[:16]}"

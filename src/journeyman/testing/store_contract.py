"""The contract of a store, sentence by sentence, as tests. A backend joins in five lines::

    class TestMyStore(StoreContract):
        shared_between_processes = True

        async def open(self, place: Path) -> Store:
            return await open_store(f"my-store:///{place}/log")

Needs pytest and pytest-asyncio. `store` and `other` are two handles on one fresh store.
"""

from __future__ import annotations

from journeyman.testing.keys_contract import KeysContract
from journeyman.testing.log_contract import LogContract
from journeyman.testing.process_contract import ProcessContract


class StoreContract(LogContract, KeysContract, ProcessContract):
    """What every store must do. Override `open`, and the attributes where they differ."""

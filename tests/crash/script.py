"""A fixed piece of work for a store that fails, done as users are told to do it, and what must be true afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import apsw

from journeyman import App
from journeyman.errors import Busy, NotRunning, StoreError
from journeyman.executor import Limits
from journeyman.message import Record
from journeyman.receipts import Receipt
from journeyman.store import Store, open_store
from journeyman.store.sqlite import SqliteLog
from journeyman.store.sqlite_file import Writer
from journeyman.testing.contract import everything
from tests.crash.app import Put, make_app

#: An executor that soon gives up.
IMPATIENT: Final = Limits(settle_s=0.02, pause_s=0.002)

#: How often one thing is tried.
TRIES: Final = 4


class Script:
    """Puts questions and keeps what it was told, in that order. `slow_down` waits between tries."""

    def __init__(self, *, body_length: int = 2000) -> None:
        self.told: dict[str, Receipt] = {}
        #: The texts of all errors that were met.
        self.errors: list[str] = []
        self._body = "x" * body_length

    async def open(self, path: Path) -> Store | None:
        """The store; None when it could not be opened."""
        for _ in range(TRIES):
            try:
                store = await open_store(url_of(path))
            except StoreError as error:
                self.errors.append(str(error))
            else:
                return store
        return None

    async def run(self, store: Store, keys: Sequence[str]) -> None:
        """Put the questions, one after the other, as often as it takes or TRIES."""
        app = make_app("", limits=IMPATIENT)
        for _ in range(TRIES):
            try:
                async with app.running(store, workers=False):
                    for key in keys:
                        await self.put(app, key)
                return
            except StoreError as error:
                self.errors.append(str(error))

    async def put(self, app: App, key: str) -> None:
        """With the same key again, until it is known to be recorded."""
        for _ in range(TRIES):
            try:
                self.told[key] = await app.execute(Put(key=key, about=self._body), idempotency_key=key)
                return
            except (Busy, NotRunning, StoreError) as error:
                self.errors.append(str(error))
                await asyncio.sleep(0.002)


async def lost_from(path: Path, told: Mapping[str, Receipt]) -> list[str]:
    """The keys of what was acknowledged and is not in the store. Everything else that is wrong fails the test."""
    store = await open_store(url_of(path))
    try:
        records = await everything(store)
        # No position is missing, the state replays, and nothing is there twice.
        assert [record.position for record in records] == list(range(1, len(records) + 1))
        async with make_app("").running(store, workers=False) as app:
            assert app.position == len(records)
        subjects = Counter(record.subject for record in records)
        assert set(subjects.values()) <= {1}, subjects
    finally:
        await store.close()
    assert integrity_of(path) == "ok"
    return [key for key, receipt in told.items() if not _stands(records, key, receipt)]


def _stands(records: Sequence[Record], key: str, receipt: Receipt) -> bool:
    if receipt.position > len(records):
        return False
    record = records[receipt.position - 1]
    return (record.id, record.subject) == (receipt.message_id, key)


def integrity_of(path: Path) -> str:
    connection = apsw.Connection(str(path))
    try:
        return str(connection.pragma("integrity_check"))
    except apsw.CorruptError as error:
        return str(error)
    finally:
        connection.close()


def writer_of(store: Store) -> Writer:
    """The writer, to set traps in while its thread is idle."""
    return cast(SqliteLog, store.log)._writer


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def made(folder: Path) -> Path:
    """A new folder."""
    folder.mkdir(parents=True)
    return folder

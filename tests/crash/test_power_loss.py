"""What was acknowledged survives every loss of power, also after a kill and after a sync that failed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import apsw
import pytest

from journeyman import Record
from journeyman.receipts import Receipt
from journeyman.store import Store, open_store, sqlite_wal
from journeyman.store.sqlite_wal import Checkpoints
from journeyman.testing.contract import everything
from journeyman.testing.records import make_records
from tests.crash.experiment import sizes
from tests.crash.script import Script, integrity_of, lost_from, made, url_of, writer_of
from tests.crash.vfs import Disk, Fault, faulty_disk

#: How often the disk is accessed for one command, at least: 5.8 times as counted for 400 of them.
ACCESSES_PER_COMMAND = 5


@pytest.fixture(autouse=True)
def _frequent_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a short piece of work has several."""
    monkeypatch.setattr(sqlite_wal, "CHECKPOINT_PAGES", 12)


class Losses:
    """Loses the power before some accesses, chosen by chance, and keeps what each would leave."""

    def __init__(self, disk: Disk, script: Script, folder: Path, number: int, seed: int) -> None:
        self._disk, self._script, self._folder = disk, script, folder
        self._chance = random.Random(seed)
        self._moments = set(self._chance.sample(range(number * ACCESSES_PER_COMMAND), number))
        self._accesses = 0
        self.left: list[tuple[Path, Mapping[str, Receipt]]] = []
        disk.before = self._before

    def _before(self, site: str) -> None:
        if self._accesses in self._moments:
            share = self._chance.choice((0.0, 0.5, 1.0))
            told = dict(self._script.told)
            left = self._disk.lose_power(
                self._folder / f"loss-{len(self.left)}", reaches=lambda: self._chance.random() < share
            )
            self.left.append((left / "log.db", told))
        self._accesses += 1


async def losses_of(folder: Path, number: int, *, synchronous: int) -> tuple[int, int]:
    """Lose the power that often; how many losses there were, and how many of them took something acknowledged."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  # pytest shows it when the test fails
    path = made(folder / "running") / "log.db"
    script = Script(body_length=500)
    with faulty_disk(seed=seed) as disk:
        losses = Losses(disk, script, folder, number, seed)
        store = await script.open(path)
        assert store is not None
        writer_of(store).connection.pragma("synchronous", synchronous)
        keys = [f"q{n}" for n in range(number)]
        await script.run(store, keys)
        await store.close()
    assert list(script.told) == keys
    lost = [bool(await lost_from(path, told)) for path, told in losses.left]
    return len(lost), sum(lost)


@sizes(short=40, full=400)
async def test_what_is_acknowledged_survives_every_loss_of_power(tmp_path: Path, size: int) -> None:
    losses, lost = await losses_of(tmp_path, size, synchronous=2)
    assert losses == size
    assert lost == 0


async def test_a_store_that_syncs_less_loses_something(tmp_path: Path) -> None:
    """The control: with synchronous=NORMAL, SQLite syncs at checkpoints only."""
    _, lost = await losses_of(tmp_path, 40, synchronous=1)
    assert lost > 0


# A kill first: what comes back then from the kernel's cache must not be told of before it is durable.


async def killed_then_lost(folder: Path, nth: int, *, sync_fails: bool) -> list[str] | None:
    """Kill all processes at the n-th sync of the WAL, repeat the command in a new one, and lose the power.

    Returns what is lost of what either was told; None when there was no n-th sync.
    """
    path = made(folder / "running") / "log.db"
    # Of several pages each, so that opening writes the WAL again in more than one piece.
    first, second = Script(body_length=20_000), Script(body_length=20_000)
    killed: list[Mapping[str, Receipt]] = []
    keys = [f"q{n}" for n in range(6)]
    with faulty_disk() as disk:
        store = await first.open(path)
        assert store is not None
        counted = 0

        def kill(site: str) -> None:
            nonlocal counted
            counted += site == "sync log"
            if sync_fails and site == "sync log" and counted == nth:
                disk.arm(Fault(kind="sync", nth=1))
            elif not killed and (disk.fired if sync_fails else counted == nth):
                killed.append(dict(first.told))
                disk.kill(folder / "killed")

        disk.before = kill
        await first.run(store, keys)
        await store.close()
        disk.before = lambda site: None
        if not killed:
            return None
        store = await second.open(folder / "killed" / "log.db")
        assert store is not None
        again = keys[: len(killed[0]) + 1]
        await second.run(store, again)
        disk.lose_power(folder / "left")
        await store.close()
    assert list(second.told) == again
    return await lost_from(folder / "left" / "log.db", {**killed[0], **second.told})


async def lost_by_kills(folder: Path, *, sync_fails: bool) -> list[list[str]]:
    """What was lost, for a kill at each sync of the WAL."""
    lost: list[list[str]] = []
    while (found := await killed_then_lost(folder / str(len(lost)), len(lost) + 1, sync_fails=sync_fails)) is not None:
        lost.append(found)
    assert len(lost) >= 6
    return lost


@pytest.mark.parametrize("sync_fails", [False, True], ids=["before the sync", "after a failed sync"])
async def test_what_comes_back_after_a_kill_is_durable_before_it_is_told(tmp_path: Path, sync_fails: bool) -> None:
    assert not any(await lost_by_kills(tmp_path, sync_fails=sync_fails))


def only_sync(connection: apsw.Connection, path: str) -> None:
    """What would be enough if no sync ever failed."""
    wal = apsw.VFSFile("", f"{path}-wal", [apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_WAL, 0])
    wal.xSync(apsw.SQLITE_SYNC_FULL)
    wal.xClose()


@pytest.mark.parametrize(
    ("instead", "sync_fails"),
    [(lambda connection, path: None, False), (lambda connection, path: None, True), (only_sync, True)],
    ids=["nothing, before the sync", "nothing, after a failed sync", "a sync, after a failed sync"],
)
async def test_what_comes_back_would_be_lost_were_it_not_written_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Callable[[apsw.Connection, str], None],
    sync_fails: bool,
) -> None:
    """The controls: the same with less than what opening a store does."""
    monkeypatch.setattr(sqlite_wal, "write_again", instead)
    assert any(await lost_by_kills(tmp_path, sync_fails=sync_fails))


# A part that counts as copied: what SQLite's own checkpoints lose.


def fail_sync(disk: Disk, *, nth: int, role: str) -> None:
    """From now on, let the n-th sync of such a file fail, and lose what it was to make durable."""
    seen = count(1)

    def arm(site: str) -> None:
        if site == f"sync {role}" and next(seen) == nth:
            disk.arm(Fault(kind="sync", nth=1))

    disk.before = arm


async def lost_after_partial_checkpoint(folder: Path, nth: int) -> bool | None:
    """While a tool reads, a part of the WAL is copied; later the n-th sync of the database fails, once; then the WAL
    begins anew, and the power goes out. Whether anything is lost; None when there was no n-th sync.
    """
    path = made(folder / "running") / "log.db"
    with faulty_disk(seed=1) as disk:
        store = await open_store(url_of(path))
        await copy_part(store, path)
        with reading(path):
            fail_sync(disk, nth=nth, role="database")
            await grow(store, 4)
        await grow(store, 5)
        fired, disk.before = disk.fired, lambda site: None
        records = await everything(store)
        left = disk.lose_power(folder / "left") / "log.db"
        await store.close()
    return await is_lost(left, records) if fired else None


async def grow(store: Store, times: int, *, records: int = 16) -> None:
    """Append that often, with a page or more for each record."""
    for _ in range(times):
        after = await store.log.head()
        await store.log.append(make_records(records, after=after, body=bytes(4000)), after=after)


async def copy_part(store: Store, path: Path) -> None:
    """Get a part of the WAL into the database, and count it as copied: the rest is held up by a reader."""
    await grow(store, 3)
    await grow(store, 1, records=5)  # Too few for a checkpoint: so there is something for the reader in the WAL.
    with reading(path):
        await grow(store, 2)
    frames, copied = sqlite_wal.progress(writer_of(store).connection)
    assert 0 < copied < frames


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A tool that reads, and sees what was there at the beginning."""
    connection = apsw.Connection(str(path))
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM messages").fetchall()
    try:
        yield
    finally:
        connection.close()


async def is_lost(path: Path, records: list[Record]) -> bool:
    if integrity_of(path) != "ok":
        return True
    store = await open_store(url_of(path))
    try:
        return await everything(store) != records
    finally:
        await store.close()


async def losses_after_partial_checkpoints(folder: Path) -> list[bool]:
    lost: list[bool] = []
    while (found := await lost_after_partial_checkpoint(folder / str(len(lost)), len(lost) + 1)) is not None:
        lost.append(found)
    assert lost
    return lost


async def test_a_part_that_counts_as_copied_is_not_lost_when_a_later_sync_fails(tmp_path: Path) -> None:
    assert not any(await losses_after_partial_checkpoints(tmp_path))


async def test_a_wal_that_is_kept_gets_into_the_database_once_all_processes_have_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = made(tmp_path / "running") / "log.db"
    with faulty_disk() as disk:
        store = await open_store(url_of(path))
        await copy_part(store, path)
        fail_sync(disk, nth=1, role="database")
        await grow(store, 5)
        disk.before = lambda site: None
        assert "grows until all processes that use the file have been stopped" in caplog.text
        kept, copied = sqlite_wal.progress(writer_of(store).connection)
        assert 0 < copied < kept
        await store.close()
        store = await open_store(url_of(path))
        assert sqlite_wal.progress(writer_of(store).connection) == (kept, 0)
        records = await everything(store)
        await grow(store, 2)
        assert sqlite_wal.progress(writer_of(store).connection)[0] < kept
        await store.close()
        left = disk.lose_power(tmp_path / "left") / "log.db"
    store = await open_store(url_of(left))
    assert (await everything(store))[: len(records)] == records
    await store.close()
    assert integrity_of(left) == "ok"


async def test_a_wal_that_one_process_keeps_does_not_begin_anew_for_another(tmp_path: Path) -> None:
    """The other one met no failure, and goes on with its checkpoints."""
    path = made(tmp_path / "running") / "log.db"
    with faulty_disk() as disk:
        store, other = await open_store(url_of(path)), await open_store(url_of(path))
        await copy_part(store, path)
        fail_sync(disk, nth=1, role="database")
        await grow(store, 1)
        await grow(other, 10)
        records = await everything(other)
        left = disk.lose_power(tmp_path / "left") / "log.db"
        assert disk.fired == 1
        await other.close()
        await store.close()
    assert not await is_lost(left, records)


def checkpoint_by_sqlite(checkpoints: Checkpoints, error: apsw.Error) -> None:
    """As SQLite does it by itself: nobody is told of an error, and the next checkpoint goes on."""


async def test_checkpoints_of_sqlite_itself_would_lose_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control. It shows in a database that is malformed, or lacks messages."""
    monkeypatch.setattr(Checkpoints, "_meet", checkpoint_by_sqlite)
    assert any(await losses_after_partial_checkpoints(tmp_path))

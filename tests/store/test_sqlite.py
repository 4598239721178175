"""The store in a SQLite file keeps the contract, refuses what it can't use, and says what failed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import threading
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import apsw
import pytest
import pytest_asyncio

from journeyman.errors import Conflict, Corrupt, NotAStore, NotReady, OutcomeUnknown
from journeyman.message import BODY_BYTES_MAX
from journeyman.store import Store, open_store, sqlite, sqlite_file, touch
from journeyman.store.sqlite import SqliteLog
from journeyman.store.sqlite_file import LockFile
from journeyman.testing.contract import everything, fill
from journeyman.testing.records import make_records
from journeyman.testing.store_contract import StoreContract

#: How long anything may take before it counts as hanging, in seconds.
PATIENCE_S = 30.0


class TestSqliteStore(StoreContract):
    shared_between_processes = has_turns = True

    async def open(self, place: Path) -> Store:
        return await open_store(url_of(place / "log.db"))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(url_of(tmp_path / "log.db"))
    yield store
    await store.close()


# Opening.


async def test_a_relative_url_is_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = await open_store("sqlite:///blog.db")
    await store.close()
    assert (tmp_path / "blog.db").is_file()


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "log.db").touch()
    store = await open_store(url_of(tmp_path / "log.db"))
    await fill(store, 1)
    await store.close()


async def test_a_store_is_marked_as_one(tmp_path: Path) -> None:
    await (await open_store(url_of(tmp_path / "log.db"))).close()
    with outside(tmp_path / "log.db") as connection:
        assert connection.pragma("application_id") == sqlite_file.APPLICATION_ID
        assert connection.pragma("user_version") == sqlite_file.LAYOUT_VERSION
        assert connection.pragma("journal_mode") == "wal"


async def test_many_may_create_the_store_at_once(tmp_path: Path) -> None:
    stores = await asyncio.gather(*(open_store(url_of(tmp_path / "log.db")) for _ in range(8)))
    for number, store in enumerate(stores):
        await fill(store, 1, after=number)
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=f"no folder {tmp_path}/missing"):
        await open_store(url_of(tmp_path / "missing" / "log.db"))


async def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="is a folder"):
        await open_store(url_of(tmp_path))


@pytest.mark.parametrize("content", [b"x", b"title,content\n" * 1000], ids=["short", "long"])
async def test_a_file_that_is_not_sqlite_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "log.db").write_bytes(content)
    with pytest.raises(NotAStore, match="not a SQLite file"):
        await open_store(url_of(tmp_path / "log.db"))
    assert (tmp_path / "log.db").read_bytes() == content


async def test_a_sqlite_file_of_another_application_is_refused_untouched(tmp_path: Path) -> None:
    with outside(tmp_path / "log.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    content = (tmp_path / "log.db").read_bytes()
    with pytest.raises(NotAStore, match="another application"):
        await open_store(url_of(tmp_path / "log.db"))
    assert (tmp_path / "log.db").read_bytes() == content


async def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    await (await open_store(url_of(tmp_path / "log.db"))).close()
    with outside(tmp_path / "log.db") as connection:
        connection.pragma("user_version", 2)
    with pytest.raises(NotAStore, match=r"has layout 2.*Upgrade"):
        await open_store(url_of(tmp_path / "log.db"))


async def test_a_read_only_file_is_refused(open_to_all: Path) -> None:
    path = open_to_all / "log.db"
    await (await open_store(url_of(path))).close()
    path.chmod(0o444)
    for beside in ("lock", "wake"):
        (open_to_all / f"log.db-{beside}").chmod(0o666)
    with as_nobody(), pytest.raises(NotReady, match="read-only"):
        await open_store(url_of(path))


async def test_a_read_only_folder_is_refused(open_to_all: Path) -> None:
    os.chmod(open_to_all, 0o500)
    with as_nobody(), pytest.raises(NotReady, match="Let this user write"):
        await open_store(url_of(open_to_all / "log.db"))


async def test_a_store_that_could_not_be_opened_can_be_opened_later(tmp_path: Path) -> None:
    with pytest.raises(NotReady):
        await open_store(url_of(tmp_path / "later" / "log.db"))
    (tmp_path / "later").mkdir()
    await (await open_store(url_of(tmp_path / "later" / "log.db"))).close()


async def test_a_store_whose_writer_is_stopped_is_not_waited_for_for_ever(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "OPEN_S", 0.1)
    async with store.log.turn():
        with pytest.raises(NotReady, match="Is one stopped"):
            await open_store(url_of(tmp_path / "log.db"))
    monkeypatch.setattr(sqlite, "OPEN_S", PATIENCE_S)
    await (await open_store(url_of(tmp_path / "log.db"))).close()


@pytest.mark.parametrize("version", ["3.7.0", "3.46.1", "3.51.2"])
def test_a_sqlite_with_the_wal_reset_bug_is_refused(version: str) -> None:
    with pytest.raises(NotReady, match=rf"SQLite {version} can corrupt.*Install apsw"):
        sqlite_file.check_library(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0"])
def test_a_sqlite_without_it_is_taken(version: str) -> None:
    sqlite_file.check_library(version)


# What fails, and what a caller is told.


async def test_a_failed_sync_leaves_an_append_unknown_and_the_identical_call_settles_it(
    tmp_path: Path, failing_disk: FailingDisk
) -> None:
    store = await open_store(url_of(tmp_path / "log.db"))
    first = await fill(store, 1)
    batch = make_records(3, after=1)
    failing_disk.fails = True
    with pytest.raises(OutcomeUnknown, match="repeat with the same idempotency key"):
        await store.log.append(batch, after=1)
    failing_disk.fails = False
    await store.log.append(batch, after=1)
    assert await everything(store) == first + batch
    await store.close()


async def test_a_full_disk_before_the_commit_is_surely_not_written(store: Store) -> None:
    connection = writer_of(store)
    connection.pragma("max_page_count", connection.pragma("page_count"))
    with pytest.raises(NotReady, match="no space is left"):
        await store.log.append(make_records(3, body=bytes(BODY_BYTES_MAX)), after=0)
    assert await store.log.head() == 0
    connection.pragma("max_page_count", 1_000_000)
    await fill(store, 3)


async def test_a_foreign_tool_that_locks_the_file_is_surely_not_written(store: Store, tmp_path: Path) -> None:
    writer_of(store).set_busy_timeout(10)
    with outside(tmp_path / "log.db") as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotReady, match="locked by another tool"):
            await fill(store, 1)
    await fill(store, 1)


async def test_a_missing_position_is_damage(store: Store, tmp_path: Path) -> None:
    await fill(store, 5)
    with outside(tmp_path / "log.db") as connection:
        connection.execute("DELETE FROM messages WHERE position = 3")
    with pytest.raises(Corrupt, match="positions 1 to 5 some are missing"):
        await everything(store)


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store = await open_store(url_of(path))
    await fill(store, 1000)
    await store.close()
    pages = path.read_bytes()
    path.write_bytes(pages[: 10 * 4096] + bytes(len(pages) - 10 * 4096))
    damaged = await open_store(url_of(path))
    with pytest.raises(Corrupt, match="is damaged"):
        await everything(damaged)
    await damaged.close()


async def test_a_closed_store_is_not_ready(store: Store) -> None:
    await store.close()
    for call in (store.log.head(), store.log.read(0, 1), fill(store, 1), store.log.wait(0, 1), store.keys.get("a")):
        with pytest.raises(NotReady, match="closed"):
            await call
    with pytest.raises(NotReady):
        async with store.log.turn():
            pass


async def test_closing_wakes_who_waits(store: Store) -> None:
    waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * PATIENCE_S))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await store.close()
        await asyncio.wait((waiting,))
    assert isinstance(waiting.exception(), NotReady | None)


# How it does it.


async def test_the_log_of_set_asides_is_read_by_its_index(store: Store) -> None:
    [plan] = writer_of(store).execute(f"EXPLAIN QUERY PLAN {sqlite_file._READ_SET_ASIDE}", (0, 10)).fetchall()
    assert "USING INDEX messages_set_aside" in str(plan[3])


async def test_a_reader_never_keeps_the_wal_from_being_reset(store: Store, tmp_path: Path) -> None:
    await fill(store, 1000)
    for limit in (1, 10, 1000):
        await store.log.read(0, limit)
        await store.log.read(0, limit, name="testing/do-something")
    await store.keys.keys()
    await store.log.wait(1000, timeout_s=0.01)
    with outside(tmp_path / "log.db") as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


@pytest.mark.parametrize("bodies", [1, 3, 7])
async def test_a_store_is_opened_whatever_the_size_of_its_wal(store: Store, tmp_path: Path, bodies: int) -> None:
    """What opening does to the WAL has to go in pieces that SQLite takes, and to leave it as it was."""
    records = make_records(bodies, body=bytes(BODY_BYTES_MAX))
    await store.log.append(records, after=0)
    wal = (tmp_path / "log.db-wal").read_bytes()
    assert len(wal) > bodies * BODY_BYTES_MAX
    other = await open_store(url_of(tmp_path / "log.db"))
    assert (tmp_path / "log.db-wal").read_bytes() == wal
    assert await everything(other) == records
    await other.close()


async def test_two_names_of_one_file_share_their_lock(store: Store, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "other.db").symlink_to(tmp_path / "log.db")
    for alias in (tmp_path / "alias" / "log.db", tmp_path / "other.db"):
        other = await open_store(url_of(alias))
        async with store.log.turn():
            waiting = asyncio.create_task(other.log.append(make_records(1), after=0))
            # By the time that the reader's thread has answered, the writer's has met the lock, or a very slow machine.
            await other.log.head()
            await fill(store, 1, after=await store.log.head())
        with pytest.raises(Conflict):
            await waiting
        await other.close()


async def test_reading_goes_on_while_another_holds_the_turn(store: Store, tmp_path: Path) -> None:
    other = await open_store(url_of(tmp_path / "log.db"))
    async with other.log.turn():
        queued = asyncio.create_task(fill(store, 1))
        async with asyncio.timeout(PATIENCE_S):
            assert await store.log.head() == 0
            assert await store.claim("workers")
        assert not queued.done()
    await queued
    await other.close()


async def test_closing_does_not_wait_for_ever_behind_another(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CLOSE_S", 0.01)
    other = await open_store(url_of(tmp_path / "log.db"))
    async with other.log.turn():
        queued = asyncio.create_task(fill(store, 1))
        await store.log.head()
        await store.close()
        assert not queued.done()
    await queued
    assert await other.log.head() == 1
    await other.close()


async def test_nothing_is_polled_when_nobody_waits(store: Store) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(store.log.wait(0, timeout_s=0.01) for _ in range(3)))
        waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * PATIENCE_S))
        await store.log.head()
        assert len(asyncio.all_tasks()) == 3
        waiting.cancel()
        await asyncio.wait((waiting,))
        await store.log.head()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# What other processes append.


async def test_the_kernel_tells_of_what_others_append(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_S", 2 * PATIENCE_S)
    other = await open_store(url_of(tmp_path / "log.db"))
    for position in range(20):
        waiting = asyncio.create_task(store.log.wait(position, timeout_s=2 * PATIENCE_S))
        await fill(other, 1, after=position)
        async with asyncio.timeout(PATIENCE_S):
            await waiting
    await other.close()


async def test_what_others_append_is_seen_where_the_kernel_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_watch(path: str) -> None:
        raise OSError("no watch is left")

    monkeypatch.setattr(touch, "TouchWatch", no_watch)
    store, other = [await open_store(url_of(tmp_path / "log.db")) for _ in range(2)]
    waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * PATIENCE_S))
    await fill(other, 1)
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    await store.close()
    await other.close()


async def test_what_others_append_is_seen_when_the_touched_file_is_lost(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_S", 0.01)
    (tmp_path / "log.db-wake").unlink()
    other = await open_store(url_of(tmp_path / "log.db"))
    waiting = asyncio.create_task(store.log.wait(0, timeout_s=2 * PATIENCE_S))
    await fill(other, 1)
    async with asyncio.timeout(PATIENCE_S):
        await waiting
    await other.close()


# Roles.


async def test_a_role_whose_file_was_removed_while_it_was_claimed_is_not_given_twice(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One opens the file, the holder gives the role back and removes the file, then the one locks what it has open."""
    assert await store.claim("workers")
    other, third = [await open_store(url_of(tmp_path / "log.db")) for _ in range(2)]
    opened, go = threading.Event(), threading.Event()

    class Slow(LockFile):
        def try_take(self) -> bool:
            opened.set()
            go.wait(PATIENCE_S)
            return super().try_take()

    monkeypatch.setattr(sqlite_file, "LockFile", Slow)
    claiming = asyncio.create_task(other.claim("workers"))
    await asyncio.to_thread(opened.wait, PATIENCE_S)
    monkeypatch.setattr(sqlite_file, "LockFile", LockFile)
    await store.release("workers")
    assert await third.claim("workers")
    go.set()
    assert not await claiming
    await other.close()
    await third.close()


async def test_a_released_role_leaves_no_file(store: Store, tmp_path: Path) -> None:
    before = os.listdir(tmp_path)
    await store.claim("instance/a")
    assert len(os.listdir(tmp_path)) == len(before) + 1
    await store.release("instance/a")
    assert os.listdir(tmp_path) == before


FORKING = """
import asyncio, os, signal, sys
from journeyman.store import open_store

async def main():
    store = await open_store(sys.argv[1])
    await store.claim("workers")
    async with store.log.turn():
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            os.close(1)
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_forked_child_that_outlives_its_parent_holds_no_lock(store: Store, tmp_path: Path) -> None:
    url = url_of(tmp_path / "log.db")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FORKING, url, stdout=PIPE, stderr=DEVNULL)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        child = int(await process.stdout.readline())
        try:
            await process.wait()
            assert await store.claim("workers")
            await fill(store, 1)
        finally:
            os.kill(child, signal.SIGKILL)


class FailingDisk(apsw.VFS):
    """The usual disk, whose syncs fail while `fails` is set."""

    fails = False

    def __init__(self) -> None:
        self.usual = apsw.vfs_names()[0]
        super().__init__("failing-disk", self.usual, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's.
        disk = self

        class File(apsw.VFSFile):
            def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name.
                if disk.fails:
                    raise apsw.IOError("the disk is gone")
                super().xSync(flags)

        return File(self.usual, name, flags)


@pytest.fixture
def failing_disk() -> Iterator[FailingDisk]:
    disk = FailingDisk()
    yield disk
    disk.unregister()
    apsw.set_default_vfs(disk.usual)


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="journeyman-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights, if we are root, to whom every file is writable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def outside(path: Path) -> Iterator[apsw.Connection]:
    """A connection to the file that knows nothing of stores."""
    connection = apsw.Connection(str(path))
    try:
        yield connection
    finally:
        connection.close()


def writer_of(store: Store) -> apsw.Connection:
    """The writing connection, to set traps in while its thread is idle."""
    return cast(SqliteLog, store.log)._writer.connection


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"

"""A disk without space: the error says so, nothing is lost, and the running application goes on when there is some."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import apsw
import pytest

from journeyman import App
from journeyman.errors import NotReady
from journeyman.store import open_store
from tests.crash.app import Put, make_app
from tests.crash.script import Script, lost_from, made, url_of
from tests.crash.vfs import Fault, faulty_disk

#: How long it may take until work goes on, in seconds. The promise is about this program, not about a busy machine:
#: what is measured is the time with nothing else to wait for.
GOES_ON_S = 5.0

DISK_BYTES = 2 * 1024 * 1024


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES. It needs root; in CI, where tests are root's, it has to be there."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(made(folder))]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        why = mounted.stderr
    except FileNotFoundError as error:
        why = str(error)
    if why:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no small disk: {why}")
        pytest.skip(f"a small disk can't be mounted here: {why}")
    try:
        yield folder
    finally:
        # Lazily: a test that failed may have left files open, and a disk that stays would fail every later run.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_up(path: Path) -> None:
    """Leave no byte of the disk free."""
    with open(path, "ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(path).f_bavail == 0


@asynccontextmanager
async def working(path: Path) -> AsyncIterator[tuple[App, Script]]:
    script = Script()
    async with make_app("").running(url_of(path), workers=False) as app:
        for number in range(20):
            await script.put(app, f"before-{number}")
        yield app, script


async def put_until_full(app: App, script: Script) -> NotReady:
    """The log has some space that it need not ask for."""
    for number in range(1000):
        try:
            key = f"last-{number}"
            script.told[key] = await app.execute(Put(key=key, about="x" * 2000), idempotency_key=key)
        except NotReady as error:
            return error
    raise AssertionError("the disk did not get full")


async def check_told(error: NotReady, app: App, path: Path) -> None:
    assert str(path) in str(error)
    assert "no space is left" in str(error)
    assert "Make room, then try again" in str(error)
    assert app.stalled_s is None, "nothing waits for the outcome of what was surely not written"


async def go_on(app: App, script: Script) -> None:
    async with asyncio.timeout(GOES_ON_S):
        for number in range(20):
            key = f"after-{number}"
            script.told[key] = await app.execute(Put(key=key, about="x" * 2000), idempotency_key=key)


async def test_an_application_on_a_full_disk_says_so_and_goes_on_when_there_is_space(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with working(disk / "log.db") as (app, script):
            fill_up(disk / "filler")
            error = await put_until_full(app, script)
            await check_told(error, app, disk / "log.db")
            position = app.position
            with pytest.raises(NotReady, match="no space is left"):
                await app.execute(Put(key="refused", about="x" * 2000), idempotency_key="refused")
            assert app.position == position
            os.unlink(disk / "filler")
            await go_on(app, script)
        assert await lost_from(disk / "log.db", script.told) == []


async def test_a_store_can_not_be_created_on_a_full_disk_and_can_be_later(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        fill_up(disk / "filler")
        with pytest.raises(NotReady, match=r"no space is left.*Make room"):
            await open_store(url_of(disk / "log.db"))
        os.unlink(disk / "filler")
        await (await open_store(url_of(disk / "log.db"))).close()


async def test_a_snapshot_that_finds_no_space_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        store = await open_store(url_of(disk / "log.db"))
        try:
            with pytest.raises(NotReady, match=r"no space is left.*Make room"):
                await store.blobs.save("snapshot", [bytes(DISK_BYTES)])
            await store.blobs.save("snapshot", [b"small"])
            assert await store.blobs.load("snapshot") == b"small"
        finally:
            await store.close()


async def test_the_same_where_no_disk_can_be_mounted(tmp_path: Path) -> None:
    with faulty_disk() as disk:
        async with working(tmp_path / "log.db") as (app, script):
            disk.arm(Fault(kind="write", nth=1, for_ever=True, error=apsw.SQLITE_FULL))
            error = await put_until_full(app, script)
            await check_told(error, app, tmp_path / "log.db")
            disk.arm(None)
            await go_on(app, script)
    assert await lost_from(tmp_path / "log.db", script.told) == []

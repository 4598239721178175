"""The write-ahead log begins anew once nobody reads any more; our own readers never hold it longer than a chunk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journeyman.store import Store, open_store, sqlite, sqlite_wal
from journeyman.testing.records import make_records
from tests.crash.experiment import sizes
from tests.crash.script import url_of, writer_of

BATCH = 50

READING = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN")
print(connection.execute("SELECT count(*) FROM messages").get, flush=True)
sys.stdin.read()
print(connection.execute("SELECT count(*) FROM messages").get, flush=True)
"""


@contextmanager
def reading_process(path: Path, *, sees: int) -> Iterator[None]:
    """Another process that reads in one transaction, from the beginning of the block to its end."""
    command = [sys.executable, "-c", READING, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{sees}\n"
            yield
        finally:
            process.stdin.close()
            assert process.stdout.readline() == f"{sees}\n"


async def append(store: Store, number: int) -> None:
    """That many messages, of 1,000 bytes each."""
    after = await store.log.head()
    for start in range(after, after + number, BATCH):
        await store.log.append(make_records(BATCH, after=start, body=bytes(1000)), after=start)


def size_of(path: Path) -> int:
    return path.with_name(f"{path.name}-wal").stat().st_size


@sizes(short=2000, full=50_000)
async def test_the_wal_grows_while_another_process_reads_and_begins_anew_when_it_has_ended(
    tmp_path: Path, size: int
) -> None:
    path = tmp_path / "log.db"
    store = await open_store(url_of(path))
    await append(store, 100)
    with reading_process(path, sees=100):
        await append(store, size)
        frames, _ = sqlite_wal.progress(writer_of(store).connection)
        grown = size_of(path)
        assert frames * 4096 > size * 1000
    # The next checkpoint comes after some more pages; then the WAL is used from its beginning.
    await append(store, 6 * sqlite_wal.CHECKPOINT_PAGES)
    frames, _ = sqlite_wal.progress(writer_of(store).connection)
    assert frames < 2 * sqlite_wal.CHECKPOINT_PAGES
    assert size_of(path) <= max(sqlite_wal.WAL_KEPT_BYTES, 3 * sqlite_wal.CHECKPOINT_PAGES * 4096), grown
    print(f"{grown} bytes while it was read, {size_of(path)} afterwards")  # noqa: T201  # for -s
    await store.close()


async def test_a_reader_of_ours_that_reads_again_and_again_does_not_keep_the_wal(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    store, reader = await open_store(url_of(path)), await open_store(url_of(path))
    await append(store, 2 * sqlite.READ_RECORDS_MAX)
    for _ in range(20):
        # A whole chunk, behind which there is more: where a statement could stay unfinished.
        assert len(await reader.log.read(0, sqlite.READ_RECORDS_MAX)) == sqlite.READ_RECORDS_MAX
        await append(store, 300)
    frames, _ = sqlite_wal.progress(writer_of(store).connection)
    assert frames < 2 * sqlite_wal.CHECKPOINT_PAGES
    await reader.close()
    await store.close()

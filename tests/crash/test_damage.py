"""A file that can't be used, or was damaged, is refused in one clear line; what is read is what was recorded."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import pytest
import pytest_asyncio

from journeyman import Record
from journeyman.errors import NotReady, StoreError
from journeyman.store import open_store, sqlite_file
from journeyman.testing.contract import everything
from journeyman.testing.records import make_records
from tests.crash.experiment import sizes
from tests.crash.script import integrity_of, url_of
from tests.doors.cli.terminal import in_process

PAGE: Final = 4096

#: The page from which all others of the log are found, counted from 0.
ROOT: Final = 1

Damage = Callable[[bytearray, random.Random], object]


def cut_off(content: bytearray, chance: random.Random) -> object:
    """Within a page, or behind one."""
    end = chance.randrange(1, len(content))
    del content[end // PAGE * PAGE if chance.random() < 0.3 and end > PAGE else end :]
    return content


def spoil_page(content: bytearray, chance: random.Random) -> object:
    """Another content for one page: chance's, or zeros."""
    start = chance.randrange(len(content) // PAGE) * PAGE
    content[start : start + PAGE] = chance.choice((chance.randbytes(PAGE), bytes(PAGE)))
    return content


def misplace_page(content: bytearray, chance: random.Random) -> object:
    """One page also in the place of another; not in that of the log's root, for that is not noticed: see below."""
    start = chance.choice([page for page in range(len(content) // PAGE) if page != ROOT]) * PAGE
    other = chance.randrange(len(content) // PAGE) * PAGE
    content[start : start + PAGE] = content[other : other + PAGE]
    return content


def flip_in_header(content: bytearray, chance: random.Random) -> object:
    content[chance.randrange(100)] ^= 1 << chance.randrange(8)
    return content


def flip_bit(content: bytearray, chance: random.Random) -> object:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


@pytest_asyncio.fixture
async def records(tmp_path: Path) -> AsyncIterator[list[Record]]:
    """A closed store `log.db` with these records, over some pages."""
    store = await open_store(url_of(tmp_path / "log.db"))
    records: list[Record] = []
    for number in range(20):
        body = b'{"text": "%s"}' % (b"hello %d " % number * 30)
        batch = make_records(20, after=len(records), subject=f"s{number}", body=body)
        await store.log.append(batch, after=len(records))
        records += batch
    await store.keys.put("key", b"value")
    await store.close()
    yield records


async def found_in(path: Path) -> list[Record] | StoreError:
    """What a process that starts on this file reads, or is told."""
    try:
        store = await open_store(url_of(path))
    except StoreError as error:
        return error
    try:
        await store.keys.keys()
        return await everything(store)
    except StoreError as error:
        return error
    finally:
        await store.close()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def write_damaged(path: Path, content: bytes) -> Path:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    path.write_bytes(content)
    return path


async def findings(folder: Path, records: list[Record], damage: Damage, number: int) -> Counter[str]:
    """What comes of so many damaged copies: the records, other records, or which error."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201  # pytest shows it when the test fails
    chance, found = random.Random(seed), Counter[str]()
    whole = content_of(folder / "log.db")
    for _ in range(number):
        content = bytearray(whole)
        damage(content, chance)
        outcome = await found_in(write_damaged(folder / "damaged.db", bytes(content)))
        if isinstance(outcome, StoreError):
            assert "damaged.db" in str(outcome)
            assert "\n" not in str(outcome)
            found[type(outcome).__name__] += 1
        else:
            found["right" if outcome == records else "wrong"] += 1
    return found


@pytest.mark.parametrize("damage", [cut_off, spoil_page, misplace_page, flip_in_header])
@sizes(short=25, full=1500)
async def test_a_damaged_file_is_refused_or_read_as_it_was(
    tmp_path: Path, records: list[Record], damage: Damage, size: int
) -> None:
    found = await findings(tmp_path, records, damage, size)
    assert found["wrong"] == 0, found
    assert found["Corrupt"] + found["NotAStore"] > 0, found


# What is not noticed. If one of these fails because it now is, docs/reliability.md has to change.

UNNOTICED: Final = b"SQLite keeps no checksums"


async def test_other_letters_within_a_message_are_not_noticed_which_is_said(
    tmp_path: Path, records: list[Record]
) -> None:
    whole = content_of(tmp_path / "log.db")
    assert whole.count(b"hello 7 ") > 20
    changed = await found_in(write_damaged(tmp_path / "damaged.db", whole.replace(b"hello 7 ", b"hello 6 ")))
    assert isinstance(changed, list)
    assert changed != records
    assert UNNOTICED in content_of(Path(__file__).parents[2] / "docs" / "reliability.md")


async def test_a_page_of_the_log_in_the_place_of_its_root_cuts_the_end_off_which_is_said(
    tmp_path: Path, records: list[Record]
) -> None:
    content = bytearray(content_of(tmp_path / "log.db"))
    # Behind the root itself, in which its remains stand: once it was the only page.
    first = content.index(records[0].id.encode(), (ROOT + 1) * PAGE) // PAGE * PAGE
    content[ROOT * PAGE : (ROOT + 1) * PAGE] = content[first : first + PAGE]
    shorter = await found_in(write_damaged(tmp_path / "damaged.db", bytes(content)))
    assert isinstance(shorter, list)
    assert 0 < len(shorter) < len(records)
    assert shorter == records[: len(shorter)]
    assert "never used" in integrity_of(tmp_path / "damaged.db")
    assert b"cut the end off the log" in content_of(Path(__file__).parents[2] / "docs" / "reliability.md")


# What another tool has locked.

LOCKING = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.pragma("locking_mode", sys.argv[2])
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_tool(path: Path, locking_mode: str) -> Iterator[None]:
    """A process that is none of ours and has locked the file."""
    command = [sys.executable, "-c", LOCKING, str(path), locking_mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "locked\n"
            yield
        finally:
            process.stdin.close()


@pytest.mark.parametrize("locking_mode", ["NORMAL", "EXCLUSIVE"])
async def test_a_file_that_another_tool_has_locked_is_not_ready_and_is_once_it_ends(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch, locking_mode: str
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_MS", 10)
    store = await open_store(url_of(tmp_path / "log.db"))
    more = make_records(1, after=len(records))
    if locking_mode == "EXCLUSIVE":
        await store.close()
        with another_tool(tmp_path / "log.db", locking_mode), pytest.raises(NotReady, match=r"locked by.*Close that"):
            await open_store(url_of(tmp_path / "log.db"))
        store = await open_store(url_of(tmp_path / "log.db"))
    else:
        with another_tool(tmp_path / "log.db", locking_mode):
            with pytest.raises(NotReady, match=r"locked by.*Nothing was written. Close that"):
                await store.log.append(more, after=len(records))
            assert await everything(store) == records
    await store.log.append(more, after=len(records))
    await store.close()


# The same on the command line.


def not_sqlite(path: Path) -> None:
    path.write_bytes(b"title,content\n" * 1000)


def anothers(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()


def newer(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", sqlite_file.LAYOUT_VERSION + 1)
    connection.close()


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_off_within_a_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def without_root(path: Path) -> None:
    """The page from which all others are found is zeros."""
    content = bytearray(path.read_bytes())
    content[ROOT * PAGE : (ROOT + 1) * PAGE] = bytes(PAGE)
    path.write_bytes(content)


def schema_spoiled(path: Path) -> None:
    """SQLite then shows the rest of the schema, over many lines."""
    path.write_bytes(path.read_bytes().replace(b"INTEGER PRIMARY KEY", b"INTEGER `RIMARY KEY", 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (not_sqlite, "is not a SQLite file. Correct the store's URL"),
        (anothers, "is a SQLite file of another application"),
        (newer, "Upgrade Journeyman"),
        (halved, "is damaged"),
        (cut_off_within_a_page, "is damaged: it was cut off within a page"),
        (without_root, "is damaged"),
        (schema_spoiled, "is damaged: malformed database schema"),
    ],
)
def test_the_command_line_says_in_one_line_what_is_wrong_with_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    records: list[Record],
    spoil: Callable[[Path], None],
    words: str,
) -> None:
    if spoil in (not_sqlite, anothers):
        for old in tmp_path.glob("log.db*"):
            old.unlink()
    spoil(tmp_path / "log.db")
    monkeypatch.setenv("CRASH_SERVICE_URL", "")
    journeyman = in_process(monkeypatch, capsys, tmp_path)
    options = ("--app", "tests.crash.app:app", "--store", "sqlite:///log.db")
    journeyman(*options, "log", "tail").mistake(words)
    examined = journeyman(*options, "doctor")
    assert examined.code == 1
    [line] = [line for line in examined.out.splitlines() if line.startswith("WRONG  store")]
    assert "log.db" in line
    assert "Traceback" not in examined.out + examined.err

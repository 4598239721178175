"""The command line tells a person's mistake in one line, and does what it says."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from journeyman import App, Command, Feature, State, open_store
from tests.doors.cli.terminal import Journeyman

BROKEN = """
from journeyman import App, Command, Feature, State
shop = Feature("shop", state=State)

@shop.command("order")
class Order(Command):
    number: int

    def apply(self, state, message):
        if self.number == 2:
            raise RuntimeError("this code can't apply it any more")

app = App(features=[shop])
"""


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("JOURNEYMAN_")}
    return subprocess.run(
        [sys.executable, "-m", "journeyman", *arguments],
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_subcommand_it_lists_them(tmp_path: Path) -> None:
    finished = run("--help", cwd=tmp_path)

    assert finished.returncode == 0
    for name in ("demo", "schema", "log", "serve", "import", "--store", "--app"):
        assert name in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--app", "nowhere:app", "schema"], "There is no module 'nowhere'"),
        (["--app", "json:dumps", "schema"], "json has no App named 'dumps'"),
        (["--store", "mongodb://here", "log", "tail"], "mongodb"),
        (["--store", "sqlite:///no/such/folder/x.db", "demo", "--exit"], "no/such/folder"),
        (["log", "set-aside", "1", "--reason", "why"], "There is no store sqlite:///blog.db yet"),
        (["--store", "sqlite:///new.db", "log", "set-aside", "1", "--reason", " "], "The reason must have"),
        (["--store", "sqlite:///new.db", "log", "set-aside", "7", "--reason", "why"], "There is no store"),
        (["--app", "", "--store", "memory:", "log", "set-aside", "7", "--reason", "why"], "no message at position 7"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(tmp_path: Path, arguments: list[str], words: str) -> None:
    finished = run(*arguments, cwd=tmp_path)

    assert finished.returncode == 1
    assert finished.stderr.startswith("journeyman: ")
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_an_error_inside_the_applications_module_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_dependency\n")

    finished = run("--app", "broken:app", "schema", cwd=tmp_path)

    assert finished.returncode == 1
    assert finished.stderr.startswith("journeyman: broken can't be imported: ModuleNotFoundError: ")
    assert "no_such_dependency" in finished.stderr
    assert finished.stderr.rstrip().endswith("broken.py, line 1).")
    assert finished.stderr.count("\n") == 1


def test_a_poisoned_log_starts_again_once_the_message_is_set_aside(tmp_path: Path) -> None:
    """The text of the error is followed to the letter."""
    (tmp_path / "shop.py").write_text(BROKEN)
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    asyncio.run(_fill(url))
    start = (
        "import asyncio, shop\n"
        "async def main():\n"
        f"    async with shop.app.running({url!r}) as app:\n"
        "        print('position', app.position)\n"
        "asyncio.run(main())\n"
    )
    (tmp_path / "start.py").write_text(start)

    stopped = subprocess.run(
        [sys.executable, "start.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "The message at position 2 (shop/order) can't be applied" in stopped.stderr
    assert "journeyman --store URL log set-aside 2 --reason TEXT" in stopped.stderr

    mended = run("--store", url, "log", "set-aside", "2", "--reason", "its code is gone", cwd=tmp_path)
    assert mended.returncode == 0, mended.stderr
    assert "the decision is at position 4" in mended.stdout

    started = subprocess.run(
        [sys.executable, "start.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert started.stdout == "position 4\n", started.stderr


async def _fill(url: str) -> None:
    shop = Feature("shop", state=State)

    @shop.command("order")
    class Order(Command):
        number: int

    async with App(features=[shop]).running(url) as app:
        for number in (1, 2, 3):
            await app.execute(Order(number=number))


SHOP = """
from journeyman import App, Command, Feature, State
shop = Feature("shop", state=State)

@shop.command("order"{version})
class Order(Command):
    {docstring}
    number: {kind}

{upcaster}
app = App(features=[shop])
"""
UPCASTER = """
@shop.upcast("order", to=2)
def as_text(body):
    return {"number": str(body["number"])}
"""


def write_shop(
    folder: Path, *, kind: str = "int", docstring: str = "pass", version: str = "", upcaster: str = ""
) -> None:
    (folder / "pyproject.toml").write_text('[tool.journeyman]\napp = "shop:app"\n')
    (folder / "shop.py").write_text(SHOP.format(kind=kind, docstring=docstring, version=version, upcaster=upcaster))


def test_the_schema_check_fails_until_the_file_is_written(journeyman: Journeyman, tmp_path: Path) -> None:
    write_shop(tmp_path)

    missing = journeyman("schema", "--check")
    assert missing.code == 1
    assert "shop/order" in missing.err

    assert journeyman("schema").code == 0
    assert (tmp_path / "schema.json").exists()
    assert journeyman("schema", "--check").code == 0


def test_a_schema_that_changes_without_a_new_version_fails_the_check_and_is_not_written(
    journeyman: Journeyman, tmp_path: Path
) -> None:
    write_shop(tmp_path)
    journeyman("schema")
    committed = (tmp_path / "schema.json").read_bytes()
    write_shop(tmp_path, kind="str")

    for arguments in (["--check"], []):
        changed = journeyman("schema", *arguments)
        assert changed.code == 1
        assert "shop/order version 1 has another schema than before" in changed.err
    assert (tmp_path / "schema.json").read_bytes() == committed


def test_a_new_version_with_its_upcaster_passes_and_keeps_the_old_schema(
    journeyman: Journeyman, tmp_path: Path
) -> None:
    write_shop(tmp_path)
    journeyman("schema")
    write_shop(tmp_path, kind="str", version=", version=2", upcaster=UPCASTER)

    assert journeyman("schema", "--check").code == 1, "the new version is not recorded yet"
    assert journeyman("schema").code == 0
    assert journeyman("schema", "--check").code == 0
    assert '"1"' in (tmp_path / "schema.json").read_text()


def test_words_for_people_are_no_change_of_schema(journeyman: Journeyman, tmp_path: Path) -> None:
    write_shop(tmp_path)
    journeyman("schema")
    write_shop(tmp_path, docstring='"""An order."""')

    assert journeyman("schema", "--check").code == 0


async def test_set_aside_leaves_the_message_in_the_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    await _fill(url)
    finished = await asyncio.to_thread(
        run, "--store", url, "log", "set-aside", "1", "--reason", "a mistake", cwd=tmp_path
    )

    assert finished.returncode == 0, finished.stderr
    store = await open_store(url)
    records = await store.log.read(0, 10)
    await store.close()
    assert [record.name for record in records] == ["shop/order"] * 3 + ["journeyman/message-set-aside"]
    assert records[-1].actor is not None
    assert records[-1].actor.startswith("operator:")
    assert records[-1].causation_id == records[0].id

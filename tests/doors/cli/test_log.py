"""The log is shown, followed and exported as it is, and nothing in it can steer the terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors.cli.terminal import SHOP, Journeyman, clean_environment, started, stopped

#: What a terminal would obey: an escape sequence, its one-byte form, a delete, and an override of writing direction.
OBEYED = set("\x1b\x07\x9b\x7f\u202e\u2066")
NASTY = "\x1b]0;owned\x07\x1b[31m\x9b31m\x7f\u202egnp.exe\u2066"


@pytest.fixture
def orders(journeyman: Journeyman, tmp_path: Path) -> Journeyman:
    """A shop with 30 orders."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "pyproject.toml").write_text('[tool.journeyman]\napp = "shop:app"\n')
    (tmp_path / "fill.py").write_text(
        "import asyncio, shop\n"
        "async def main():\n"
        "    async with shop.app.running() as app:\n"
        "        await asyncio.gather(*(app.execute(shop.Order(number=n)) for n in range(1, 31)))\n"
        "asyncio.run(main())\n"
    )
    subprocess.run([sys.executable, "fill.py"], cwd=tmp_path, check=True, timeout=60, env=clean_environment())
    return journeyman


def test_the_newest_messages_are_shown_one_a_line(orders: Journeyman) -> None:
    lines = orders("log", "tail", "-n", "3").ok().splitlines()

    assert [line.split()[0] for line in lines] == ["28", "29", "30"]
    assert all("shop/order" in line for line in lines)
    assert len(orders("log", "tail").ok().splitlines()) == 20
    assert json.loads(orders("log", "tail", "-n", "1", "--json").ok())["position"] == 30


def test_one_message_is_shown_whole(orders: Journeyman) -> None:
    said = orders("log", "show", "7").ok()

    assert "shop/order" in said
    assert '"number": 7' in said
    assert json.loads(orders("log", "show", "7", "--json").ok())["body"] == {"number": 7}
    orders("log", "show", "31").mistake("There is no message at position 31; the log ends at 30.")


def test_a_message_that_was_set_aside_is_shown_as_such(orders: Journeyman) -> None:
    orders("log", "set-aside", "2", "--reason", "why not").ok()

    assert "left out of every replay" in orders("log", "show", "2").ok()
    assert "left out" not in orders("log", "show", "3").ok()


def test_the_export_is_the_log_line_by_line(orders: Journeyman) -> None:
    messages = [json.loads(line) for line in orders("log", "export").ok().splitlines()]

    assert [message["position"] for message in messages] == list(range(1, 31))
    assert [message["body"]["number"] for message in messages] == list(range(1, 31))
    assert {"id", "name", "version", "subject", "recorded_at_us", "correlation_id", "actor"} <= messages[0].keys()
    assert len(orders("log", "export", "--after", "28").ok().splitlines()) == 2
    assert orders("log", "export", "--after", "100").ok() == ""


def test_the_log_can_be_read_without_a_working_application(orders: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import no_such_module\n")

    assert orders("--store", "sqlite:///shop.db", "log", "tail", "-n", "1").ok()


def test_what_is_recorded_later_is_followed(orders: Journeyman, tmp_path: Path) -> None:
    with started("log", "tail", "-n", "1", "--follow", "--json", cwd=tmp_path, says='"position":30') as (process, _):
        orders("execute", "shop/order", '{"number": 99}').ok()
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["body"] == {"number": 99}
        assert stopped(process, signal.SIGINT) == 130


def test_nothing_recorded_can_steer_the_terminal(journeyman: Journeyman) -> None:
    body = json.dumps({"post_id": f"one {NASTY}", "title": NASTY, "content": f"a\nb {NASTY}"})
    journeyman("execute", "posts/create", body, "--actor", NASTY).ok()

    for command in ("log tail", "log show 1", "log export", "log tail --json", "query posts/list"):
        said = journeyman(*command.split()).ok()
        assert not OBEYED & set(said), command
        assert "\\u001b" in said, "it is shown as what it is"


def test_an_error_can_not_steer_the_terminal_either(journeyman: Journeyman) -> None:
    body = json.dumps({"post_id": NASTY, "title": "T", "content": ""})
    journeyman("execute", "posts/create", body).ok()

    refused = journeyman("execute", "posts/create", body)

    refused.mistake("already")
    assert "\x1b" not in refused.err


def test_json_says_the_same_as_what_was_recorded(journeyman: Journeyman) -> None:
    journeyman("execute", "posts/create", json.dumps({"post_id": "one", "title": NASTY, "content": ""})).ok()

    assert json.loads(journeyman("log", "export").ok())["body"]["title"] == NASTY


@pytest.mark.parametrize("pipe", ["log export | head -1", "log tail -n 30 | true", "inspect | head -1"])
def test_a_reader_that_ends_early_is_no_error(orders: Journeyman, tmp_path: Path, pipe: str) -> None:
    finished = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m journeyman {pipe}"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert finished.stderr == ""

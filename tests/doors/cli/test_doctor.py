"""What does not fit together is found before a deploy, and what can be asked of an application is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.doors.cli.terminal import SHOP, Journeyman

STRICT = SHOP.replace(
    "    number: int\n",
    "    number: int\n"
    "    def apply(self, state, message):\n"
    "        if self.number == 2:\n"
    "            raise RuntimeError('no such number')\n",
)


@pytest.fixture
def shop(journeyman: Journeyman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journeyman:
    """A shop with three orders and its schema file."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "strict.py").write_text(STRICT)
    monkeypatch.setenv("JOURNEYMAN_APP", "shop:app")
    journeyman("schema").ok()
    for number in (1, 2, 3):
        journeyman("execute", "shop/order", json.dumps({"number": number})).ok()
    return journeyman


def examined(shop: Journeyman, *arguments: str, code: int) -> dict[str, dict[str, Any]]:
    finished = shop(*arguments, "--json")
    assert finished.code == code, finished
    report = json.loads(finished.out)
    assert report["ok"] == (code == 0)
    return {check["name"]: check for check in report["checks"]}


def test_all_is_well(shop: Journeyman) -> None:
    checks = examined(shop, "doctor", "--history", code=0)

    assert checks["history"]["found"] == "3 messages decoded and applied"
    assert "synchronous=FULL; 3 messages" in checks["store"]["found"]
    assert "msgspec" in checks["versions"]["found"]
    assert [line.split()[:2] for line in shop("doctor", "--history").ok().splitlines()] == [
        ["ok", name] for name in ("versions", "app", "schema", "store", "history")
    ]


def test_a_log_that_this_code_can_not_apply_is_found_with_its_position_and_the_next_step(shop: Journeyman) -> None:
    checks = examined(shop, "--app", "strict:app", "doctor", "--history", code=1)

    assert not checks["history"]["ok"]
    assert "position 2 (shop/order) can't be applied: RuntimeError('no such number')" in checks["history"]["found"]
    assert "log set-aside 2" in checks["history"]["found"]
    assert examined(shop, "--app", "strict:app", "doctor", code=0), "without --history, nobody looks"


def test_what_was_set_aside_is_left_out(shop: Journeyman) -> None:
    shop("log", "set-aside", "2", "--reason", "its code is gone").ok()

    examined(shop, "--app", "strict:app", "doctor", "--history", code=0)


def test_a_schema_that_is_not_up_to_date_is_found(shop: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "schema.json").unlink()

    checks = examined(shop, "doctor", code=1)

    assert "run `journeyman schema`" in checks["schema"]["found"]
    assert "WRONG" in shop("doctor").out


def test_a_store_or_application_that_is_not_there_is_found(shop: Journeyman) -> None:
    assert not examined(shop, "--store", "sqlite:///none.db", "doctor", "--history", code=1)["store"]["ok"]
    checks = examined(shop, "--app", "none:app", "--store", "sqlite:///shop.db", "doctor", "--history", code=1)
    assert not checks["app"]["ok"]
    assert checks["store"]["ok"]
    assert "Not looked at" in checks["history"]["found"]


def test_commands_and_queries_are_shown_and_those_of_operators_behind_them(journeyman: Journeyman) -> None:
    said = journeyman("inspect").ok()

    assert said.index("posts/create") < said.index("journeyman/retry-job")
    assert "journeyman/job-started" not in said
    assert "[page]" in said, "what may be left out"
    assert "posts/summaries" in said


def test_one_of_them_is_shown_with_its_schema(journeyman: Journeyman) -> None:
    said = journeyman("inspect", "posts/create").ok()
    schema = json.loads(journeyman("inspect", "posts/create", "--json").ok())["schema"]

    assert said.startswith("posts/create: Publish a post.")
    assert '"maxLength": 200' in said
    assert schema["$defs"]["CreatePost"]["required"] == ["post_id", "title", "content"]
    journeyman("inspect", "posts/no").mistake("There is no command or query named 'posts/no'")

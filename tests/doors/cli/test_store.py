"""A store is made, checked and shown by the command line, whatever keeps it, and nothing is made by looking."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.doors.cli.terminal import Journeyman
from tests.servers_postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that is not there yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url()


def test_a_store_is_made_once_and_stays(journeyman: Journeyman, url: str) -> None:
    made, again = (json.loads(journeyman("store", "init", url, "--json").ok()) for _ in range(2))
    assert (made["store"], made["head"], made["facts"]["layout"]) == (url, 0, again["facts"]["layout"])
    assert made["facts"]["layout"] >= 1
    assert again.keys() == made.keys()
    assert json.loads(journeyman("store", "info", url, "--json").ok()).keys() == made.keys()
    assert url in journeyman("--store", url, "store", "info").ok()


def test_a_good_store_passes_its_check(journeyman: Journeyman, url: str) -> None:
    journeyman("store", "init", url).ok()
    report = json.loads(journeyman("store", "check", url, "--json").ok())
    assert report["ok"]
    assert len(report["checks"]) > 2
    assert "WRONG" not in journeyman("store", "check", url).ok()


def test_looking_makes_no_store(journeyman: Journeyman, url: str) -> None:
    for look in ("info", "check", "check"):
        finished = journeyman("store", look, url)
        assert finished.code == 1
        assert "journeyman store init" in " ".join((finished.out + finished.err).split())
    assert journeyman("--store", url, "log", "tail").code == 1


def test_memory_is_a_store_too(journeyman: Journeyman) -> None:
    assert json.loads(journeyman("store", "check", "memory:", "--json").ok())["ok"]
    assert json.loads(journeyman("store", "info", "memory:", "--json").ok())["head"] == 0


def test_a_check_that_fails_tells_the_fix_and_no_password(
    journeyman: Journeyman, postgres_server: PostgresServer
) -> None:
    made = postgres_server.url()
    journeyman("store", "init", made).ok()
    finished = journeyman("store", "check", "postgresql://me:secret@127.0.0.1:1/db", "--json")
    assert finished.code == 1
    [check] = json.loads(finished.out)["checks"]
    assert "can't be used now" in check["fix"]
    assert "secret" not in finished.out + finished.err


def test_a_log_is_copied_once_and_what_came_since_again(journeyman: Journeyman, url: str, tmp_path: Path) -> None:
    source = f"sqlite:///{tmp_path / 'source.db'}"
    for number in range(3):
        execute(journeyman, source, f"p{number}")
    first = json.loads(journeyman("store", "copy", source, url, "--json").ok())
    assert (first["messages"], first["copied"]) == (3, 3)
    execute(journeyman, source, "p3")
    again = journeyman("store", "copy", source, url)
    assert "copied" in again.ok()
    third = json.loads(journeyman("store", "copy", source, url, "--json").ok())
    assert (third["messages"], third["copied"]) == (4, 0)
    exported = [journeyman("--store", one, "log", "export").ok() for one in (source, url)]
    assert exported[0] == exported[1]
    assert len(exported[0].splitlines()) == 4


def test_nothing_is_copied_into_another_log_or_out_of_none(journeyman: Journeyman, url: str, tmp_path: Path) -> None:
    source, other = (f"sqlite:///{tmp_path / name}" for name in ("source.db", "other.db"))
    execute(journeyman, source, "p1")
    execute(journeyman, url, "p2")
    finished = journeyman("store", "copy", source, url)
    assert finished.code == 1
    assert "it is not a copy of it. Name a new store." in " ".join(finished.err.split())
    assert journeyman("store", "copy", other, url).code == 1
    assert not (tmp_path / "other.db").exists()


def execute(journeyman: Journeyman, store: str, post_id: str) -> None:
    fields = json.dumps({"post_id": post_id, "title": "t", "content": "c"})
    journeyman("--store", store, "execute", "posts/create", fields).ok()

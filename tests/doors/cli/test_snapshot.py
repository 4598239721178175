"""Snapshots are taken, listed and compared with the log by hand."""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.doors.cli.terminal import Journeyman

SHOP = """
import msgspec
from journeyman import App, Command, Feature, State, Table

class Placed(msgspec.Struct, frozen=True):
    number: int

class ShopState(State):
    orders: Table[int, Placed] = Table(Placed, key="number")

shop = Feature("shop", state=ShopState)

@shop.command("order")
class Order(Command):
    number: int

    def apply(self, state, message):
        state.orders.put(Placed(self.number))

app = App(features=[shop], store="sqlite:///shop.db")
"""


@pytest.fixture
def shop(journeyman: Journeyman, tmp_path: Path) -> Journeyman:
    """A shop with three orders."""
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "pyproject.toml").write_text('[tool.journeyman]\napp = "shop:app"\n')
    for number in (1, 2, 3):
        journeyman("execute", "shop/order", json.dumps({"number": number})).ok()
    return journeyman


def test_a_snapshot_is_taken_listed_and_found_right(shop: Journeyman) -> None:
    assert "There is no snapshot" in shop("snapshot", "list").ok()
    assert "The state at position 3 is kept" in shop("snapshot", "take").ok()
    [info] = json.loads(shop("snapshot", "list", "--json").ok())
    assert (info["position"], info["current"]) == (3, True)
    assert "this code" in shop("snapshot", "list").ok()
    assert shop("snapshot", "verify").ok() == "position 3: as the log says\n"
    assert "There is no message" not in shop("execute", "shop/order", '{"number": 4}').ok()


def test_one_that_differs_from_the_log_is_told_and_deleted(shop: Journeyman, tmp_path: Path) -> None:
    """Its bytes are whole, and its log is the right one: only a replay can tell."""
    shop("snapshot", "take").ok()
    [path] = tmp_path.glob("*-blob-snapshot-*")
    alter(path)
    said = shop("snapshot", "verify")
    assert said.code == 1
    assert "position 3: differs from the log, and is deleted" in said.out
    assert "There is no snapshot" in shop("snapshot", "list").ok()


def alter(path: Path) -> None:
    """Change a row, and make the digest fit it."""
    body = path.read_bytes().rpartition(b"\n")[0].replace(b'"number":3', b'"number":7')
    path.write_bytes(body + b"\n" + blake2b(body + b"\n").hexdigest().encode())


def test_one_of_other_code_is_left_to_it(shop: Journeyman, tmp_path: Path) -> None:
    shop("snapshot", "take").ok()
    (tmp_path / "shop.py").write_text(SHOP + "\n# changed\n")
    assert "other code" in shop("snapshot", "list").ok()
    assert shop("snapshot", "verify").ok() == "position 3: not compared, for other code has built it\n"

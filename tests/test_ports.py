"""A port that was given out is given to nobody else, in any process, though nobody listens on it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ports

ROOT = Path(__file__).parent.parent


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """There is no other port than this one; it was given out, and is kept as long as the test."""
    kept: list[socket.socket] = []
    monkeypatch.setattr(ports, "_kept", kept)
    port = ports.free_port()
    monkeypatch.setattr(ports, "_PORTS", [port])
    yield port
    for one in kept:
        one.close()


def test_it_is_given_out_once(only: int) -> None:
    with pytest.raises(RuntimeError, match="free"):
        ports.free_port()


def test_another_process_does_not_get_it_either(only: int) -> None:
    ask = f"from tests import ports; ports._PORTS = [{only}]; print(ports.free_port())"
    asked = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "RuntimeError: none of" in asked.stderr


def test_its_owner_can_listen_on_it_again_and_again(only: int) -> None:
    for _ in range(2):
        with socket.create_server(("127.0.0.1", only)) as server:
            assert server.getsockname()[1] == only


def test_it_is_free_again_with_its_owner(only: int) -> None:
    for kept in ports._kept:
        kept.close()
    assert ports.free_port() == only


def test_one_that_somebody_listens_on_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(ports, "_PORTS", [server.getsockname()[1]])
        with pytest.raises(RuntimeError, match="free"):
            ports.free_port()

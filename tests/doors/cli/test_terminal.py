"""On a terminal there are colours, unless nobody wants them; nowhere else, and at any width."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doors.cli.terminal import Journeyman, clean_environment

#: An escape sequence that sets a colour: SGR 30 to 49 and 90 to 107 (ECMA-48, 8.3.117).
COLOUR = re.compile(rb"\x1b\[[0-9;]*(3[0-9]|4[0-9]|9[0-7]|10[0-7])m")


def on_terminal(folder: Path, *arguments: str, **environment: str) -> bytes:
    """What the command writes to a terminal, standard error with it."""
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "journeyman", *arguments],
        cwd=folder,
        env=clean_environment(TERM="xterm-256color", **environment),
        stdin=its,
        stdout=its,
        stderr=its,
    )
    os.close(its)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:
        pass  # On Linux, this is how the end of a terminal's other side is told.
    finally:
        os.close(ours)
        process.wait(timeout=60)
    return said


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(tmp_path: Path, environment: dict[str, str], coloured: bool) -> None:
    said = on_terminal(tmp_path, "doctor", **environment)

    assert b"WRONG" in said
    assert bool(COLOUR.search(said)) == coloured


def test_an_import_shows_its_progress_on_a_terminal_only(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A")

    assert b"Importing" in on_terminal(tmp_path, "import", "a.txt")
    assert journeyman("import", "a.txt").ok() == "1 documents in 1 files: 0 imported, 1 here already.\n"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_nothing_is_wider_than_the_terminal(
    journeyman: Journeyman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    journeyman("execute", "posts/create", '{"post_id": "one", "title": "A title", "content": "Text."}').ok()
    monkeypatch.setenv("COLUMNS", str(width))

    for command in ("inspect", "worker list", "query posts/list", "doctor"):
        lines = journeyman(*command.split()).out.splitlines()
        assert lines
        assert max(map(len, lines)) <= width, command

"""The table of executions names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def named_tests() -> list[tuple[Path, str]]:
    """Each test that the table names, with its file; a name without one is in the file before it."""
    found: list[tuple[Path, str]] = []
    for words in re.findall(r"`([^`]*test_[^`]*)`", (HERE / "README.md").read_text(encoding="utf-8")):
        file, _, name = words.rpartition(": ")
        if not name.endswith(".py"):
            path = found[-1][0] if not file else ROOT / file if "/" in file else HERE / file
            found.append((path, name))
    return found


def test_every_test_in_the_table_is_there() -> None:
    named = named_tests()
    assert len(named) >= 13
    missing = [name for path, name in named if f"def {name}(" not in path.read_text(encoding="utf-8")]
    assert missing == []

"""The report says what was counted, and a broken promise cannot hide in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.crash.checker import Findings
from tests.crash.report import BEGIN, END, main

#: Where two commands have their tables.
CRASH, SERVERS = (
    (BEGIN.format(command=command), END.format(command=command)) for command in ("crash", "crash-servers")
)

#: The counts that must be 0.
PROMISES = Findings.__struct_fields__[: Findings.__struct_fields__.index("acknowledged")]


def line(**found: int) -> dict[str, Any]:
    findings = Findings(acknowledged=1200, jobs=1200, **found)
    told: dict[str, Any] = {
        "experiment": "kill -9",
        "seed": 7,
        "fired": 1000,
        "fault": "processes killed",
        "broken": findings.broken,
    }
    counts: dict[str, Any] = msgspec.to_builtins(findings)
    return told | counts


def reported(place: Path, *lines: dict[str, Any]) -> str:
    """The document that a report of these lines was written into."""
    source, document = place / "crash.jsonl", place / "reliability.md"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    document.write_text("\n".join(("before", CRASH[0], "an old table", CRASH[1], *SERVERS, "after", "")))
    main(source, document=document)
    assert json.loads((place / "crash.json").read_text()) == list(lines)
    return document.read_text()


def test_the_table_takes_the_place_of_the_old_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = reported(tmp_path, line(), line())
    assert text.startswith(f"before\n{CRASH[0]}\n\n| experiment ")
    assert text.endswith("\n\n" + "\n".join((CRASH[1], *SERVERS, "after", "")))
    assert text.count("| kill -9 | 1,000 processes killed | 1,200 | 1,200 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |") == 2
    assert "old" not in text
    assert capsys.readouterr().out.count("kill -9: 1,000 processes killed; 1,200 acknowledged") == 2


@pytest.mark.parametrize("name", PROMISES)
def test_each_broken_promise_is_in_the_table_and_told(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = reported(tmp_path, line(**{name: 3})).splitlines()[5]
    assert row.count("| 3 ") == 1
    assert f"BROKEN: {{'{name}': 3}}" in capsys.readouterr().out

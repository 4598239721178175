"""The report of `make crash` and `make crash-servers`: one line for each experiment, as JSON, and as a table of
docs/reliability.md.

python -m tests.crash.report build/crash.jsonl [--write docs/reliability.md]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

#: What stands around the table of a command in a document.
BEGIN: Final = "<!-- what make {command} counted -->"
END: Final = "<!-- end of what make {command} counted -->"

#: The columns of the table: its head, and what of a line stands there.
COLUMNS: Final = {
    "acknowledged": "acknowledged",
    "jobs": "jobs",
    "attempts": "attempts",
    "takeovers": "instances_lost",
    "calls repeated": "calls_repeated",
    "lost": "lost",
    "doubled": "doubled",
    "forgotten": "forgotten",
}

#: What must not be and has no column of its own is added up in this one.
OTHERS: Final = "other breaks"

#: What only some experiments measure, with the words for it.
MEASURED: Final = {
    "share": "of the mean had the slowest",
    "longest_wait_s": "s was the longest wait",
    "late_outcomes": "late outcomes refused",
    "deploys": "deploys",
    "stall_p95_s": "s was the 95th percentile of the stalls",
}


def main(source: Path, *, document: Path | None = None) -> None:
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    source.with_suffix(".json").write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    table = "\n".join(rows(lines))
    source.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    for line in lines:
        sys.stdout.write(summary(line) + "\n")
    if document is not None:
        text = replaced(document.read_text(encoding="utf-8"), table, command=source.stem)
        document.write_text(text, encoding="utf-8")


def summary(line: dict[str, Any]) -> str:
    """One line for people."""
    counts = ", ".join(f"{line[field]:,} {head}" for head, field in COLUMNS.items())
    found = f"; BROKEN: {line['broken']}" if line["broken"] else ""
    return f"{line['experiment']}: {_fired(line)}; {counts}; seed {line['seed']}{found}"


def rows(lines: Iterable[dict[str, Any]]) -> list[str]:
    """The lines of the table."""
    heads = ["experiment", "faults that fired", *COLUMNS, OTHERS]
    aligned = ["---", "---", *["--:"] * (len(COLUMNS) + 1)]
    return [_row(heads), _row(aligned), *(_row(_cells(line)) for line in lines)]


def replaced(text: str, table: str, *, command: str) -> str:
    """The document with this table in the place of the one that it has of that command.

    Raises:
        ValueError: it has no place for one.
    """
    opening, closing = (mark.format(command=command) for mark in (BEGIN, END))
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end:
        raise ValueError(f"The document needs the lines {opening} and {closing}, between which the table goes.")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"


def _cells(line: dict[str, Any]) -> list[str]:
    others = sum(count for name, count in line["broken"].items() if name not in COLUMNS.values())
    return [line["experiment"], _fired(line), *(f"{line[field]:,}" for field in COLUMNS.values()), str(others)]


def _fired(line: dict[str, Any]) -> str:
    """How often the fault happened, and what was measured by the way."""
    measured = "".join(f"; {line[name]:,} {words}" for name, words in MEASURED.items() if name in line)
    return f"{line['fired']:,} {line['fault']}{measured}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]), document=Path(sys.argv[3]) if sys.argv[2:3] == ["--write"] else None)

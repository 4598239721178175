"""Equal durability, checked and not assumed: how often each contender has the disk write for one piece of work.

Each is run twice under strace, with more and with less work, by one caller: the difference of the calls, over the
difference of the work, leaves out what starting and stopping cost.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.load import Figures
from benchmarks.rows import Contender
from benchmarks.runs import Failed, Workplace

LESS: Final = 10
MORE: Final = 60

#: How often each piece of work has to wait, at least: once, and one or two syncs of starting and stopping may differ.
WAITS_MIN: Final = 0.9

_SYNC: Final = re.compile(r"\b(?:fsync|fdatasync)\(")

#: What is checked, each for one caller; jobs and workflows are several commits each, huey's tasks one.
CHECKED: Final = (
    Contender("journeyman: commands, one caller", "journeyman", "commands", {"callers": 1}),
    Contender("bare: insert and commit, in place", "bare", "insert-and-commit"),
    Contender("bare: group commit", "bare", "group-commit", {"callers": 1}),
    Contender("eventsourcing: load, command, save", "eventsourcing", "load-command-save"),
    Contender("eventsourcing: save one", "eventsourcing", "save-one"),
    Contender("dbos: direct", "dbos", "direct"),
    Contender("huey: enqueue", "huey", "enqueue"),
)


@dataclass(frozen=True)
class Durability:
    """How often a contender waits for the disk for one piece of work, by strace; and what its connection says.

    On a server only the connection is asked: the server waits for the disk in its stead.
    """

    name: str
    syncs: float | None
    settings: str
    failed: str = ""
    server: str = ""

    @property
    def objection(self) -> str:
        """Why the contender is no equal; empty if it is, or if only its connection could be asked."""
        if self.failed or self.syncs is None or self.syncs >= WAITS_MIN:
            return self.failed
        return f"{self.name} does not wait for the disk: it is no equal."


def has_strace() -> bool:
    return shutil.which("strace") is not None


def check(workplace: Workplace, contender: Contender) -> Durability:
    """Count, where strace is there; else only ask."""
    try:
        return _checked(workplace, contender)
    except Failed as error:
        return Durability(contender.name, None, "failed", str(error))


def told(contender: Contender, figures: Figures) -> Durability | None:
    """What a contender on a server has told of its connection, with its figures; None if it has told nothing."""
    settings = figures.get("durability")
    if not contender.server or settings is None:
        return None
    return Durability(f"{contender.name} ({contender.work})", None, str(settings), server=contender.server)


def _checked(workplace: Workplace, contender: Contender) -> Durability:
    less, more = (replace(contender, options={**contender.options, "count": count}) for count in (LESS, MORE))
    if not has_strace():
        return Durability(contender.name, None, str(workplace.run(less)["durability"]))
    (few, settings), (many, _) = _traced(workplace, less), _traced(workplace, more)
    return Durability(contender.name, (many - few) / (MORE - LESS), settings)


def _traced(workplace: Workplace, contender: Contender) -> tuple[int, str]:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        strace = ["strace", "-f", "-qq", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
        figures = workplace.run(contender, before=strace)
        return len(_SYNC.findall(trace.read_text())), str(figures["durability"])

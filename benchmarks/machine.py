"""What a run was measured on and with: without it, no figure means anything."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import apsw

from benchmarks.runs import PEERS_PYTHON, ROOT

OWN = ("apsw", "asyncpg", "nats-py", "msgspec", "litestar", "uvicorn", "httptools")
PEERS = ("eventsourcing", "dbos", "huey", "procrastinate", "SQLAlchemy")

_ASK = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"


def about(folder: Path, *, rounds: int, quick: bool) -> dict[str, Any]:
    """The machine, the versions and the settings, in words."""
    one, five, _ = os.getloadavg()
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB, {platform.system()}",
        "disk": f"{_file_system(folder)}",
        "load": f"{one:.2f} over the last minute, {five:.2f} over five, before the run",
        "python": platform.python_version(),
        "versions": f"SQLite {apsw.sqlite_lib_version()}, " + ", ".join(f"{name} {version(name)}" for name in OWN),
        "peers": ", ".join(_peer_versions()),
        "journeyman": _commit(),
        "rounds": f"{rounds}, the contenders in turn" + (", small sizes (--quick)" if quick else ""),
        "durability": "SQLite WAL with synchronous=FULL; each peer as it is durable, see below",
    }


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(folder: Path) -> str:
    """The type of the file system; where it is in memory, nothing is durable, and no figure is worth anything."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(place, kind) for place, kind in mounts if folder.is_relative_to(place)]
    kind = max(holding, key=lambda mount: len(mount[0]))[1]
    return f"{kind}: IN MEMORY, SO NOTHING HERE IS DURABLE; choose another --directory" if kind == "tmpfs" else kind


def _peer_versions() -> list[str]:
    if not PEERS_PYTHON.exists():
        return ["not installed"]
    told = subprocess.run([PEERS_PYTHON, "-c", _ASK, *PEERS], capture_output=True, text=True, check=True)  # noqa: S603
    return [f"{name} {number}" for name, number in zip(PEERS, told.stdout.split(), strict=True)]


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{version('journeyman')} {told.stdout.strip()}".strip()

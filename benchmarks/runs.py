"""Running contenders: each one in a process and a folder of its own, so that nothing leaks from one to the next."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.load import Figures
from benchmarks.rows import Contender, LogShape
from benchmarks.servers import NoServer, Servers

ROOT: Final = Path(__file__).resolve().parent.parent

#: The Python of the peers' environment, which the Makefile makes.
PEERS_PYTHON: Final = ROOT / ".venv-bench/bin/python"

#: The longest that one contender may take, in seconds.
PATIENCE_S: Final = 600.0


class Failed(Exception):
    """A contender ended without figures; says what it wrote."""


@dataclass(frozen=True)
class Workplace:
    """A folder on the disk that is measured, with the logs that were written for all rounds, and the servers."""

    folder: Path
    servers: Servers

    def run(self, contender: Contender, *, before: Sequence[str] = ()) -> Figures:
        """Let a contender do its work once. `before` is put before its command line: a tracer, perhaps.

        Raises:
            Failed: it did not.
        """
        with TemporaryDirectory(dir=self.folder) as own:
            for name, shape in contender.logs.items():
                self._lay(self._log(shape), Path(own), name)
            store = {"BENCHMARK_STORE": self._place(contender)} if contender.server else {}
            # What was copied, and what the last contender left behind, is not to be written at this one's expense.
            os.sync()
            options = {**contender.options, **({"spawned_s": time.monotonic()} if contender.spawned else {})}
            return _run(contender, options, folder=Path(own), before=before, variables=store)

    def _place(self, contender: Contender) -> str:
        try:
            return self.servers.url(contender.server)
        except NoServer as error:
            raise Failed(f"{contender.name}: {error}") from error

    def prepare(self, contender: Contender) -> None:
        """Write the logs that a contender needs, unless they are there."""
        for shape in contender.logs.values():
            self._log(shape)

    def _log(self, shape: LogShape) -> Path:
        kept = self.folder / f"log-{shape.messages}-{shape.rows}-{shape.jobs}-{shape.snapshot}"
        if not kept.exists():
            with TemporaryDirectory(dir=self.folder) as own:
                _run(Contender("a log", "journeyman", "prepare"), vars(shape), folder=Path(own))
                shutil.copytree(own, kept)
        return kept

    @staticmethod
    def _lay(log: Path, folder: Path, name: str) -> None:
        for file in log.glob("log.db*"):
            shutil.copy(file, folder / file.name.replace("log.db", name, 1))


def _run(
    contender: Contender,
    options: Mapping[str, Any],
    *,
    folder: Path,
    before: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> Figures:
    if contender.is_peer and not PEERS_PYTHON.exists():
        raise Failed(f"{contender.name}: the peers are not installed; `make bench` does that.")
    python = PEERS_PYTHON if contender.is_peer else Path(sys.executable)
    module = f"benchmarks.contenders.{contender.module}"
    command = [*before, str(python), "-m", module, contender.work, json.dumps(options)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
    environment.pop("JOURNEYMAN_STORE", None)
    try:
        finished = subprocess.run(  # noqa: S603  # our own contenders
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{contender.name}: no figures after {PATIENCE_S:g} s") from error
    try:
        figures: Figures = json.loads(finished.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(f"{contender.name} failed:\n{finished.stderr[-2000:]}") from error
    return figures

"""What the tests of the command line share: running it, in this process or another, and an application for it."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from journeyman.doors.cli.main import run as run_command

TIMEOUT_S = 60.0

SHOP = """
from journeyman import App, Command, Feature, State
shop = Feature("shop", state=State)

@shop.command("order")
class Order(Command):
    number: int

app = App(features=[shop], store="sqlite:///shop.db")
"""


class Finished(NamedTuple):
    """What a command did. In `out` and `err` stands what a person sees."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        assert self.code == 0, self.err
        assert self.err == ""
        return self.out

    def mistake(self, words: str, *, code: int = 1) -> None:
        """One clear line on stderr, and nothing else."""
        assert self.code == code, (self.out, self.err)
        assert self.err.startswith("journeyman: ")
        assert words in self.err
        assert self.err.count("\n") == 1, self.err


Journeyman = Callable[..., Finished]


def clean_environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JOURNEYMAN_", "SUMMARIZER"))}
    return {**kept, **more}


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    """The real command, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "journeyman", *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def started(*arguments: str, cwd: Path, says: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that goes on, once it has printed a line with these words; and that line."""
    process = start(*arguments, cwd=cwd, **environment)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if says in line:
                yield process, line
                break
        else:
            pytest.fail(f"it ended without saying {says!r}: {process.communicate(timeout=TIMEOUT_S)[1]}")
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_S)


def stopped(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> int:
    """Signal the process, and return the code that it ends with."""
    process.send_signal(number)
    return process.wait(timeout=TIMEOUT_S)


def until(condition: Callable[[], bool]) -> None:
    """Look again and again at another process's work."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def forget_modules(folder: Path) -> None:
    """Let the modules of a test's folder be imported anew, by the next command or the next test."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(f"{folder}{os.sep}"):
            del sys.modules[name]
    importlib.invalidate_caches()


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Journeyman:
    """The command in this process, run in that folder: quick, where a process of its own adds nothing."""
    for name in ("JOURNEYMAN_APP", "JOURNEYMAN_STORE", "SUMMARIZER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))

    # The tests write modules anew within a second, which bytecode would not notice.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def journeyman(*arguments: str) -> Finished:
        forget_modules(folder)
        capsys.readouterr()
        code = run_command(arguments)
        return Finished(code, *capsys.readouterr())

    return journeyman

"""A person sees what the workers do and what waits for a decision, and each decision is recorded under their name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.doors.cli.terminal import Journeyman, clean_environment

DESK = """
import asyncio
from journeyman import App, Command, Feature, GiveUp, Job, State, TodoWorker, opens

desk = Feature("desk", state=State)

@desk.command("ask")
class Ask(Command):
    number: int

class Clerk(TodoWorker):
    '''Answers nothing.'''
    name = "desk/clerk"

    @opens(Ask)
    def asked(self, message):
        return Job(f"job-{message.body.number}", subject=None)

    async def perform(self, attempt):
        raise GiveUp("the form is \\x1b[31mred")

app = App(features=[desk], workers=[Clerk()], store="sqlite:///desk.db")

async def park(number):
    async with app.running():
        for n in range(number):
            await app.execute(Ask(number=n))
        while (await app.workers())[0].parked < number:
            await asyncio.sleep(0.02)

if __name__ == "__main__":
    asyncio.run(park(3))
"""


@pytest.fixture
def desk(journeyman: Journeyman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journeyman:
    """Three parked jobs."""
    (tmp_path / "desk.py").write_text(DESK)
    monkeypatch.setenv("JOURNEYMAN_APP", "desk:app")
    monkeypatch.setenv("LOGNAME", "berta")
    subprocess.run([sys.executable, "desk.py"], cwd=tmp_path, check=True, timeout=60, env=clean_environment())
    return journeyman


def view(desk: Journeyman) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk("worker", "list", "desk/clerk", "--json").ok())
    return found


def newest(desk: Journeyman) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(desk("log", "tail", "-n", "1", "--json").ok())
    return found


def test_the_list_shows_counts_and_the_last_error_and_of_one_worker_its_jobs(desk: Journeyman) -> None:
    said = desk("worker", "list").ok()
    assert "desk/clerk" in said
    assert "the form is" in said
    assert "\x1b" not in said

    found = view(desk)
    assert (found["status"], found["parked"], found["waiting"]) == ("not running", 3, 0)
    assert [job["job"] for job in found["jobs"]] == ["job-0", "job-1", "job-2"]
    said = desk("worker", "list", "desk/clerk", "--limit", "2").ok()
    assert "2 of 3 open jobs" in said
    assert "job-2" not in said


def test_pause_and_resume_are_recorded_decisions(desk: Journeyman) -> None:
    assert "is paused; the decision is at position" in desk("worker", "pause", "desk/clerk").ok()
    assert view(desk)["status"] == "paused"
    assert newest(desk)["name"] == "journeyman/pause-worker"
    assert newest(desk)["actor"] == "operator:berta"

    desk("worker", "resume", "desk/clerk").ok()
    assert view(desk)["status"] == "not running"


def test_retry_and_discard_are_recorded_decisions(desk: Journeyman) -> None:
    desk("worker", "retry", "desk/clerk", "job-1").ok()
    desk("worker", "discard", "desk/clerk", "job-2", "--reason", "done by hand").ok()

    assert newest(desk)["body"] == {"worker": "desk/clerk", "job": "job-2", "reason": "done by hand"}
    assert [(job["job"], job["standing"]) for job in view(desk)["jobs"]] == [("job-0", "parked"), ("job-1", "waiting")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "desk/nobody"], "There is no worker named 'desk/nobody'. Known: desk/clerk."),
        (["pause", "desk/nobody"], "There is no worker named 'desk/nobody'"),
        (["retry", "desk/clerk", "job-9"], "job-9"),
        (["discard", "desk/clerk", "job-9", "--reason", "x"], "job-9"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(desk: Journeyman, arguments: list[str], words: str) -> None:
    desk("worker", *arguments).mistake(words)


def test_the_workers_jobs_are_inspected(desk: Journeyman) -> None:
    worker = json.loads(desk("inspect", "--json").ok())["workers"][0]

    assert worker["name"] == "desk/clerk"
    assert worker["about"] == "Answers nothing."
    assert worker["opens"] == ["desk/ask"]

"""The demo keeps its promise from the command line: nothing is missing and nothing is done twice, kill -9 or not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import apsw
import pytest

from journeyman import App
from journeyman.examples.blog import demo
from journeyman.examples.blog.documents import Document
from journeyman.examples.blog.posts import CreatePost, posts
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held

TIMEOUT_S = 60

pytestmark = pytest.mark.timeout(300)


def command(folder: Path, *arguments: str) -> list[str]:
    store = f"sqlite:///{folder / 'demo.db'}"
    return [sys.executable, "-m", "journeyman", "--store", store, "demo", *arguments]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def result_of(folder: Path, *arguments: str) -> dict[str, Any]:
    finished = run(folder, "--exit", "--json", *arguments)
    assert finished.returncode == 0, (finished.returncode, finished.stderr)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def names_in(folder: Path) -> list[tuple[str, str]]:
    """(name, subject) of every message, read as anybody could."""
    connection = apsw.Connection(str(folder / "demo.db"), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return [(str(name), str(subject)) for name, subject in connection.execute("SELECT name, subject FROM messages")]
    finally:
        connection.close()


def killed(folder: Path, *, when_answers: int) -> None:
    """Run the slow demo, and kill -9 it when it has recorded so many answers."""
    process = subprocess.Popen(
        command(folder, "--exit", "--delay", "0.1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while answers_in(folder) < when_answers:
            assert process.poll() is None, "the demo ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def answers_in(folder: Path) -> int:
    if not (folder / "demo.db").exists():
        return 0
    try:
        return sum(name == "posts/set-generated-summary" for name, _ in names_in(folder))
    except (apsw.SQLError, apsw.CantOpenError, apsw.BusyError):
        return 0  # It is being created.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a demo that ran to its end, and what that told. Whoever runs it again there adds nothing."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, result_of(folder)


def test_every_document_becomes_a_post_with_one_answer(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished

    assert result["documents"] >= 80
    assert result["posts"] == result["imported"] == result["documents"]
    assert result["done"] == result["answers"] == result["attempts"] == result["posts"]
    assert result["failed"] == result["unanswered"] == 0


def test_a_second_run_does_nothing_twice(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, first = finished
    second = result_of(folder)

    assert second["imported"] == 0
    assert second["messages"] == first["messages"]


def test_killed_in_the_middle_and_run_again_nothing_is_missing_or_doubled(tmp_path: Path) -> None:
    for answers in (10, 40, 70):
        killed(tmp_path, when_answers=answers)

    result = result_of(tmp_path)

    assert result["posts"] == result["documents"] == result["done"]
    assert result["unanswered"] == 0
    messages = names_in(tmp_path)
    for name in ("posts/create", "posts/request-summary-generation", "posts/set-generated-summary"):
        subjects = Counter(subject for found, subject in messages if found == name)
        assert len(subjects) == result["posts"], f"{name}: one for each post"
        assert set(subjects.values()) == {1}, f"{name}: none twice"
    names = Counter(name for name, _ in messages)
    assert 1 <= names["journeyman/instance-lost"] <= 3, "a death is recorded once, if it cut off attempts"
    assert names["journeyman/job-started"] > result["posts"], "some attempts were cut off, and repeated"
    assert names["posts/fail-summary-generation"] == 0


async def test_a_store_that_is_slow_to_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PAUSE_S", 0.01)
    documents = [Document(f"name-{number}", "A title", f"Text {number}.") for number in range(3)]
    app, store = App(features=[posts]), FaultyStore(MemoryStore())
    async with asyncio.timeout(TIMEOUT_S), app.running(store):
        held = store.faulty_log.fail_next(Held())
        before = asyncio.create_task(app.execute(CreatePost(post_id="before", title="t", content="c")))
        await held.arrived.wait()
        importing = asyncio.create_task(demo._import(app, documents, lambda: None))
        while not app.meter.commands["posts/create", "busy"]:  # noqa: ASYNC110  # a count sets no event
            await asyncio.sleep(0.01)
        held.release()
        assert (await before).position == 1
        assert await importing == len(documents)


def test_a_person_sees_the_summaries_and_where_to_look_next(tmp_path: Path) -> None:
    finished = run(tmp_path, "--exit", COLUMNS="120")

    assert finished.returncode == 0
    assert "The newest summaries" in finished.stdout
    assert "summarised, 0 failed, 0 without an answer" in finished.stdout
    assert "posts/worker.py" in finished.stdout
    assert f"journeyman --store sqlite:///{tmp_path / 'demo.db'} log tail" in finished.stdout
    assert "\x1b[" not in finished.stdout, "no colours outside of a terminal"


def test_sigterm_ends_it_cleanly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, "--exit", "--delay", "0.2"), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT_S
    while answers_in(tmp_path) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    output, _ = process.communicate(timeout=TIMEOUT_S)

    assert process.returncode == 1, "not every post has its answer"
    assert "run it again" in output
    assert result_of(tmp_path)["unanswered"] == 0
    assert Counter(name for name, _ in names_in(tmp_path))["journeyman/instance-lost"] == 0, "it left nothing open"


def test_it_serves_the_posts_until_it_is_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, "--port", "0"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = next(line.split()[1] for line in process.stdout if line.startswith("Serving"))
        served_meanwhile = total_at(url)
        next(line for line in process.stdout if f"{url}/queries/posts/list" in line)
        assert total_at(url) >= max(80, served_meanwhile)
        process.terminate()
        process.wait(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 0
    assert result_of(tmp_path)["imported"] == 0, "all is kept"


def total_at(url: str) -> int:
    """How many posts the served demo has, asked as anybody could."""
    with urlopen(f"{url}/queries/posts/list", timeout=TIMEOUT_S) as answer:  # noqa: S310  # our own URL
        total: int = json.loads(answer.read())["total"]
    return total


def test_two_demos_share_one_store_and_its_work(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path, "--exit", "--delay", "0.2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while answers_in(tmp_path) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = result_of(tmp_path)
        assert process.wait(timeout=TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()

    assert second["unanswered"] == 0
    names = names_in(tmp_path)
    answers = Counter(subject for name, subject in names if name == "posts/set-generated-summary")
    assert set(answers.values()) == {1}
    assert len(answers) == Counter(name for name, _ in names)["posts/create"]
    assert Counter(name for name, _ in names)["journeyman/instance-lost"] == 0


def test_a_wrong_configuration_is_one_clear_line(tmp_path: Path) -> None:
    finished = run(tmp_path, "--exit", SUMMARIZER="openai", OPENAI_API_KEY="")

    assert finished.returncode == 1
    assert "OPENAI_API_KEY" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_key_in_the_environment_alone_changes_nothing(tmp_path: Path) -> None:
    finished = run(tmp_path, "--exit", "--json", OPENAI_API_KEY="made-up", OPENAI_BASE_URL="http://127.0.0.1:9")

    assert finished.returncode == 0
    assert json.loads(finished.stdout)["summarizer"].startswith("extractive")

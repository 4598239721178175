"""The demo against a service that fails in every way: all posts get their summaries, and the key stays where it was."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

from journeyman.testing import llm
from journeyman.testing.llm import FakeLLM, Reply, Request
from tests.examples.blog.test_demo import TIMEOUT_S, names_in, result_of

KEY = "sk-made-up-key-that-must-stay-secret"

#: How the service answers the first requests, one way each; then it works.
FAILURES: list[Reply] = [
    llm.status(429, headers={"Retry-After": "0"}, message=f"{KEY} is too fast"),
    llm.status(500, message=f"internal error for {KEY}"),
    llm.reset(),
    llm.truncated(),
    llm.stream_cut(),
    llm.malformed(),
    llm.empty(),
    llm.status(503, headers={"Retry-After": "1"}, message=KEY),
    llm.long(3_000_000),
]


async def demo(folder: Path, service: FakeLLM, *, stop: Awaitable[object] | None = None) -> tuple[int, str, str]:
    """Run the demo against the service, until `stop` is done; its exit code, and what it printed."""
    environment = {
        **os.environ,
        "SUMMARIZER": "openai",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": service.base_url,
        "SUMMARY_MODEL": "small",
    }
    command = [sys.executable, "-m", "journeyman", "--store", f"sqlite:///{folder / 'demo.db'}", "demo"]
    process = await asyncio.create_subprocess_exec(
        *command, "--exit", "--json", env=environment, stdout=PIPE, stderr=PIPE, cwd=folder
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if stop is not None:
                await stop
                process.terminate()
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def everything_written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("demo.db*"))


async def shown_as_stopped(folder: Path, service: FakeLLM) -> None:
    """`journeyman worker list` shows why the worker does nothing, and its jobs. The service had time to be called again
    meanwhile, which it must not be.
    """
    await service.wait_for_calls(1)
    command = [sys.executable, "-m", "journeyman", "--store", f"sqlite:///{folder / 'demo.db'}"]
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            process = await asyncio.create_subprocess_exec(
                *command, "worker", "list", "posts/summaries", "--json", stdout=PIPE, cwd=folder
            )
            shown = (await process.communicate())[0].decode()
            assert KEY not in shown
            worker = json.loads(shown)
            if worker["status"] == "lane stopped" and worker["retrying"]:
                break
    assert worker["last_error"].startswith("Unauthorized: The service answered 401: correct OPENAI_API_KEY")
    assert worker["last_error"] in [job["error"] for job in worker["jobs"]]


async def test_every_way_to_fail_is_got_over_and_the_key_is_nowhere(tmp_path: Path) -> None:
    replies = iter(FAILURES)

    def answer(request: Request) -> Reply:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        return next(replies, llm.ok("A summary."))

    async with FakeLLM([answer]) as service:
        code, out, err = await demo(tmp_path, service)
        calls = service.calls
    assert code == 0, err
    result = json.loads(out)
    assert (result["unanswered"], result["failed"]) == (0, 0)
    assert calls >= len(FAILURES)
    answers = Counter(subject for name, subject in names_in(tmp_path) if name == "posts/set-generated-summary")
    assert set(answers.values()) == {1}
    for where in (out.encode(), err.encode(), everything_written(tmp_path)):
        assert KEY.encode() not in where


async def test_a_wrong_key_keeps_the_jobs_and_is_told_without_being_shown(tmp_path: Path) -> None:
    """The worker stops calling; with the right key, the next start does what was left."""
    async with FakeLLM([llm.status(401, message=f"Incorrect API key provided: {KEY}")]) as service:
        code, out, err = await demo(tmp_path, service, stop=shown_as_stopped(tmp_path, service))
        calls = service.calls
    assert code == 1, "not every post has its answer"
    assert calls <= 8, "those that were under way when the first answer came"
    assert "journeyman/job-failed" not in Counter(name for name, _ in names_in(tmp_path))
    for where in (out.encode(), err.encode(), everything_written(tmp_path)):
        assert KEY.encode() not in where
    assert (await asyncio.to_thread(result_of, tmp_path))["unanswered"] == 0

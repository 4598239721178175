"""`serve` and `work` run until they are told to stop; then they stop: cleanly the first time, at once the second."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.doors.cli.terminal import SHOP, TIMEOUT_S, Journeyman, started, stopped, until

#: The longest that a clean stop with nothing to wait for may take, in seconds: far less than any of the deadlines.
STOP_S_MAX = 10.0

SLOW = """
import asyncio
from journeyman import App, Command, Feature, Job, State, TodoWorker, opens

slow = Feature("slow", state=State)

@slow.command("ask")
class Ask(Command):
    pass

class Clerk(TodoWorker):
    name = "slow/clerk"

    @opens(Ask)
    def asked(self, message):
        return Job("job")

    async def perform(self, attempt):
        await asyncio.sleep(60)

app = App(features=[slow], workers=[Clerk()], store="sqlite:///slow.db")

class Never:
    name = "slow/never"
    async def start(self, context):
        print("it starts", flush=True)
        await asyncio.sleep(60)
    async def work(self): ...
    async def stop(self, context): ...

never = App(features=[slow], workers=[Never()], store="sqlite:///slow.db")
"""


def get(url: str, path: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    return connection


def answered(url: str, path: str) -> object:
    connection = get(url, path)
    try:
        found: object = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_served_until_it_is_told_to_stop_also_with_an_open_stream(
    journeyman: Journeyman, tmp_path: Path, number: int
) -> None:
    journeyman("execute", "posts/create", '{"post_id": "one", "title": "T", "content": "A text."}').ok()
    with started("serve", "--port", "0", cwd=tmp_path, says="Serving") as (process, line):
        url = line.split()[1]
        posts = answered(url, "/queries/posts/list")
        stream = get(url, "/log/stream")
        assert stream.getresponse().readline(), "the stream has begun"

        began = time.monotonic()
        assert stopped(process, number) == 0
        assert time.monotonic() - began < STOP_S_MAX
        stream.close()
        said = "".join(process.stdout or ())

    assert isinstance(posts, dict)
    assert posts["total"] == 1
    assert "Store    sqlite:///blog.db (SQLite WAL, synchronous=FULL), at position" in said
    assert "Workers  posts/summaries" in said
    assert journeyman("log", "tail").ok().count("journeyman/instance-lost") == 0


def test_served_without_workers_beside_another_process_that_runs_them(journeyman: Journeyman, tmp_path: Path) -> None:
    with (
        started("work", cwd=tmp_path, says="Ctrl-C stops it") as (worker, _),
        started("serve", "--no-workers", "--port", "0", cwd=tmp_path, says="Serving") as (server, line),
    ):
        journeyman("execute", "posts/create", '{"post_id": "one", "title": "T", "content": "A text."}').ok()
        url = line.split()[1]
        until(lambda: '"done"' in json.dumps(answered(url, "/queries/posts/list")))
        assert stopped(server) == 0
        assert stopped(worker) == 0


def test_a_port_that_is_taken_is_one_clear_line(journeyman: Journeyman, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for command in (["serve"], ["demo"]):
            journeyman(*command, "--port", port).mistake(f"Port {port} of 127.0.0.1 can't be had")


def test_a_second_signal_ends_it_at_once(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with started("--app", "slow:app", "work", cwd=tmp_path, says="Ctrl-C stops it") as (process, _):
        journeyman("--app", "slow:app", "execute", "slow/ask", "{}").ok()
        until(lambda: "journeyman/job-started" in journeyman("--app", "slow:app", "log", "tail").ok())
        process.terminate()
        assert process.stderr is not None
        assert "to stop at once, ask again" in process.stderr.readline()
        assert process.poll() is None, "it waits for the job"

        assert stopped(process) == -signal.SIGTERM


def test_a_start_that_is_under_way_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with started("--app", "slow:never", "work", cwd=tmp_path, says="it starts") as (process, _):
        assert stopped(process) == 0


def test_a_process_that_meets_newer_code_ends_with_75(journeyman: Journeyman, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "newer.py").write_text(
        SHOP.replace("app = ", '@shop.command("refund")\nclass Refund(Command):\n    number: int\n\napp = ')
    )
    with started("--app", "shop:app", "serve", "--port", "0", cwd=tmp_path, says="Ctrl-C stops it") as (process, _):
        journeyman("--app", "newer:app", "execute", "shop/refund", '{"number": 1}').ok()
        assert process.wait(timeout=TIMEOUT_S) == 75
        said = "".join(process.stderr or ())

    assert "is from newer code" in said
    assert "Traceback" not in said


def test_any_number_of_processes_run_the_workers(journeyman: Journeyman, tmp_path: Path) -> None:
    with (
        started("work", cwd=tmp_path, says="Ctrl-C stops it") as (one, _),
        started("work", cwd=tmp_path, says="Ctrl-C stops it") as (two, _),
    ):
        [worker] = msgspec.json.decode(journeyman("worker", "list", "--json").ok())
        assert (worker["status"], worker["processes"]) == ("running", 2)
        assert stopped(one) == 0
        [worker] = msgspec.json.decode(journeyman("worker", "list", "--json").ok())
        assert (worker["status"], worker["processes"]) == ("running", 1)
        assert stopped(two) == 0


def test_others_are_served_only_with_a_token(journeyman: Journeyman, tmp_path: Path) -> None:
    every = ("serve", "--port", "0", "--host", "0.0.0.0")  # noqa: S104  # with tokens, or refused
    journeyman(*every, "--allowed-host", "blog.example").mistake("journeyman token")
    weak = tmp_path / "weak"
    weak.write_text("operator secret\n")
    journeyman(*every, "--tokens", str(weak)).mistake("could be guessed")

    token = journeyman("token").ok().strip()
    file = tmp_path / "tokens"
    file.write_text(f"operator anna:{token}\n")
    file.chmod(0o600)
    with started(*every, "--tokens", str(file), "--allowed-host", "blog.example", cwd=tmp_path, says="Serving") as (
        process,
        line,
    ):
        port = int(line.split()[1].rpartition(":")[2])
        assert status(port, host="blog.example") == 401
        assert status(port, host="blog.example", authorization=f"Bearer {token}") == 200
        assert status(port, host="evil.example", authorization=f"Bearer {token}") == 421
        assert stopped(process) == 0
        assert process.stderr is not None
        assert token not in process.stderr.read()


def test_every_token_that_is_printed_is_another(journeyman: Journeyman) -> None:
    assert len({journeyman("token").ok() for _ in range(5)}) == 5


def status(port: int, **headers: str) -> int:
    """What a request for the workers is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/workers", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()

"""A laboratory: real processes of one application over one store, a service that they call, and faults from a seed."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from journeyman import App, Record
from journeyman.errors import NotReady
from journeyman.store import open_store
from journeyman.testing.llm import FakeLLM, Reply, Request, hang, ok
from journeyman.testing.records import make_records
from tests.crash.app import HANGS_ONCE, SERVICE, make_app
from tests.crash.checker import Acknowledged, Findings, check
from tests.crash.process import Met, Options

#: How long anything may take that must come, in seconds.
PATIENCE_S: Final = 60.0

#: How long a process may be silent until it is taken over, in these experiments, in seconds.
TAKEOVER_S: Final = 1.0

#: The folder in which `tests` is.
ROOT: Final = Path(__file__).parent.parent.parent

REPORT: Final = os.environ.get("JOURNEYMAN_CRASH_REPORT")
SEED: Final = int(os.environ.get("JOURNEYMAN_CRASH_SEED") or random.randrange(10**6))

#: The messages after which nothing more is done for a question by itself.
ENDS: Final = ("questions/answer", "questions/fail", "journeyman/job-parked")

#: Keys, and what they are about.
Questions = list[tuple[str, str]]


class Lab:
    """The store at `url`, the service, the processes that run, and what clients were told.

    `calls` counts the service's calls for each job. `fired` counts the faults that really happened, by name. `chance`
    is where the experiment takes its choices from.
    """

    def __init__(self, url: str, service: FakeLLM, calls: Counter[str], seed: int) -> None:
        self.url = url
        self.calls = calls
        self.seed = seed
        self.chance = random.Random(seed)
        self.acknowledged: dict[str, Acknowledged] = {}
        self.fired: Counter[str] = Counter()
        #: Has clients run the later release from now on.
        self.newer = False
        #: What goes on beside the experiment, as it is said in the report.
        self.beside = ""
        #: What the last process that ended wrote to its standard error, and what nobody had read of its output.
        self.said = ""
        self.unread = b""
        self._service = service
        self._processes: set[Process] = set()
        self._client: Process | None = None

    @property
    def _in_a_file(self) -> bool:
        return self.url.startswith("sqlite:")

    @property
    def place(self) -> str:
        """What is said of the store behind an experiment's name."""
        return ("" if self._in_a_file else f", on {self.url.partition(':')[0]}") + self.beside

    # Processes.

    async def start(self, role: str = "work", **options: Any) -> Process:
        """Start a process, and return when it is ready, or has ended already."""
        process = await self.spawn(role, **options)
        await self.ready(process)
        return process

    async def spawn(self, role: str = "work", **options: Any) -> Process:
        """Start a process, and return at once."""
        given = {"takeover_s": TAKEOVER_S, "seed": self.chance.randrange(2**31)} | options
        told = Options(url=self.url, role=role, service_url=self._service.base_url, **given)
        return await self._execute("-m", "tests.crash.process", msgspec.json.encode(told).decode())

    async def ready(self, process: Process) -> None:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await process.stdout.readline()
        assert line in (b"ready\n", b""), line

    async def journeyman(self, release: str, *arguments: str) -> Process:
        """Start the real command, with an application of one of the modules here: `app`, unless another is named."""
        module, _, name = release.partition(":")
        app = f"tests.crash.{module}:{name or 'app'}"
        return await self._execute("-m", "journeyman", "--app", app, "--store", self.url, *arguments)

    async def work(self, release: str) -> Process:
        """Start `journeyman work`, and return when it works, or has ended already."""
        process = await self.journeyman(release, "work")
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in process.stdout:
                if line.startswith(b"Ctrl-C"):
                    break
        return process

    async def _execute(self, *arguments: str) -> Process:
        environment = {**os.environ, SERVICE: self._service.base_url}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=ROOT, env=environment, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**26
        )
        self._processes.add(process)
        return process

    async def kill(self, process: Process) -> int:
        """Kill the process, also one that is stopped, and return its exit code."""
        return await self.end(process, signal.SIGKILL)

    async def end(self, process: Process, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, and return the exit code. Nothing happens to one that has ended."""
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return await self.ended(process)

    async def ended(self, process: Process) -> int:
        """Wait until the process has ended, and return its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            self.unread, said = await process.communicate()
        self._processes.discard(process)
        code = process.returncode
        assert code is not None
        if code < 0:
            self.fired[signal.Signals(-code).name] += 1
        if self.unread.startswith(b'{"fenced"'):
            met = msgspec.json.decode(self.unread, type=Met)
            self.fired += Counter({"late outcomes": met.fenced, "replies lost": met.replies_lost})
        self.said = said.decode(errors="replace")
        sys.stderr.write(self.said)
        return code

    async def stop(self, processes: Sequence[Process]) -> None:
        """Stop processes in the middle of whatever they do, but for an append: its lock would keep everybody out."""
        for process in processes:
            await self._halt(process)
            while not self._lock_is_free():
                self.fired["stopped within an append"] += 1
                process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.001)
                await self._halt(process)

    async def _halt(self, process: Process) -> None:
        """Stop the process, and return when each of its threads stands still: one may be on its way into the lock."""
        process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE_S):
            while set(_thread_states(process.pid)) != {"T"}:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def _lock_is_free(self) -> bool:
        """Whether no process holds the writers' lock, or soon none will. From a server's client the server takes it."""
        if not self._in_a_file:
            return True
        with open(f"{self.url.removeprefix('sqlite:///')}-lock", "rb") as file:
            for _ in range(20):
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return True
                time.sleep(0.005)  # Shorter than what counts as blocking; a signal needs its moment, too.
        return False

    async def close(self) -> None:
        for process in list(self._processes):
            await self.kill(process)

    # Clients.

    async def put(self, questions: Sequence[tuple[str, str]], **options: Any) -> None:
        """Have the questions put, by one client after the other where one ends."""
        while missing := [(key, about) for key, about in questions if key not in self.acknowledged]:
            if self._client is None:
                self._client = await self.start("put", newer=self.newer, **options)
            if not await self._talk(self._client, missing):
                await self.end_client()

    async def put_some(self, questions: Sequence[tuple[str, str]], count: int) -> None:
        """Kill the client a moment after so many of the questions were acknowledged; others may be recorded, or not."""
        client = await self.start("put")
        await self._talk(client, questions, count)
        await asyncio.sleep(self.chance.uniform(0, 0.01))
        await self.kill(client)
        for line in self.unread.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._note(line)

    async def end_client(self) -> None:
        if self._client is not None:
            await self.kill(self._client)
            self._client = None

    async def _talk(self, client: Process, questions: Sequence[tuple[str, str]], count: int = 10**9) -> bool:
        """Put the questions, and note what is acknowledged, up to a count; False when the client ended before."""
        assert client.stdin is not None
        assert client.stdout is not None
        with suppress(ConnectionError):
            client.stdin.write("".join(f"{key} {about}\n" for key, about in questions).encode())
            await client.stdin.drain()
        for _ in range(min(count, len(questions))):
            async with asyncio.timeout(PATIENCE_S):
                line = await client.stdout.readline()
            if not line:
                return False
            self._note(line)
        return True

    def _note(self, line: bytes) -> None:
        key, position, message_id = line.decode().split()
        self.acknowledged[key] = Acknowledged(key, int(position), message_id)

    # Looking.

    async def records(self) -> list[Record]:
        """The whole log."""
        store = await open_store(self.url)
        try:
            found: list[Record] = []
            while more := await store.log.read(len(found), 10_000):
                found += more
            return found
        finally:
            await store.close()

    async def until_done(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Return when every question that was acknowledged has its answer, or is parked."""
        wanted = set(self.acknowledged)
        store = await open_store(self.url)
        try:
            done: set[str | None] = set()
            position = 0
            async with self._limit(timeout_s):
                while not wanted <= done:
                    with suppress(NotReady):  # Its servers may be killed, too.
                        await store.log.wait(position, 1.0)
                        for record in await store.log.read(position, 1000):
                            position = record.position
                            if record.name in ENDS:
                                done.add(record.subject)
        finally:
            await store.close()

    async def insert(self, name: str, body: bytes, *, version: int = 1) -> int:
        """Append a message by hand, as no application would, and return its position."""
        store = await open_store(self.url)
        try:
            head = await store.log.head()
            [record] = make_records(1, after=head, name=name, body=body)
            await store.log.append([msgspec.structs.replace(record, version=version)], after=head)
            return record.position
        finally:
            await store.close()

    async def until_called(self, keys: Sequence[str], count: int) -> None:
        """Return when the service was called for so many of the jobs."""
        async with self._limit(PATIENCE_S):
            while sum(self.calls[key] > 0 for key in keys) < count:  # noqa: ASYNC110  # a count sets no event
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def _limit(self, timeout_s: float) -> AsyncIterator[None]:
        """What does not come in time is told with the end of the log, and with what the processes are saying."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            for record in (await self.records())[-50:]:
                sys.stderr.write(f"{record.position} {record.name} {record.subject} {record.body.decode()}\n")
            await self.close()
            raise

    async def findings(self, *, make: Callable[..., App] = make_app, **options: Any) -> Findings:
        """What the log says; the log itself has to be whole, and to be applied by everybody in the same way."""
        records = await self.records()
        if self.url.startswith("sqlite:"):
            assert await asyncio.to_thread(self._integrity) == "ok"
        assert len(await self._state_hashes(make)) == 1, "a snapshot and a replay disagree"
        return await asyncio.to_thread(check, records, self.acknowledged.values(), self.calls, **options)

    def _integrity(self) -> Any:
        if not self._in_a_file:
            return "ok"  # The server looks after its files itself.
        connection = apsw.Connection(self.url.removeprefix("sqlite:///"))
        try:
            return connection.execute("PRAGMA integrity_check").get
        finally:
            connection.close()

    async def _state_hashes(self, make: Callable[..., App]) -> set[str]:
        """Of the state with a snapshot that a process under test has kept, and of the whole log applied."""
        hashes = set()
        for every in (None, 500):
            async with make("", snapshot_every=every).running(self.url, workers=False) as app:
                hashes.add(await app.state_hash())
        return hashes


@asynccontextmanager
async def laboratory(place: Path, *, seed: int = SEED, url: str | None = None) -> AsyncIterator[Lab]:
    """A laboratory on a fresh store, at `url` or in a file. Says its seed; kills what runs at its end."""
    calls: Counter[str] = Counter()

    def reply(request: Request) -> Reply:
        key = request.headers["idempotency-key"]
        calls[key] += 1
        return hang() if key.startswith(HANGS_ONCE) and calls[key] == 1 else ok("answered")

    async with FakeLLM([reply]) as service:
        lab = Lab(url or f"sqlite:///{place / 'log.db'}", service, calls, seed)
        sys.stdout.write(f"seed {seed}\n")
        try:
            yield lab
        finally:
            await lab.close()


def _thread_states(pid: int) -> list[str]:
    """The state of each thread of a process, T for a stopped one: proc(5), /proc/pid/stat."""
    stats = [path.read_text(encoding="utf-8") for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return [stat.rpartition(")")[2].split()[0] for stat in stats]


def questions_of(prefix: str, count: int, *, subjects: int, chance: random.Random | None = None) -> Questions:
    """Questions about so many subjects, in order; some of them fail at first, or for ever, if chance is given."""
    found = []
    for number in range(count):
        drawn = chance.random() if chance is not None else 1.0
        kind = "fails-" if drawn < 0.05 else "fails-once-" if drawn < 0.15 else ""
        found.append((f"{kind}{prefix}{number}", f"{prefix}subject-{number % subjects}"))
    return found


def report(experiment: str, lab: Lab, findings: Findings, *, fired: int, fault: str, **more: object) -> None:
    """Print what was found; with JOURNEYMAN_CRASH_REPORT, keep it as a line of JSON there.

    Args:
        fired: how often the fault happened that the experiment is about.
        fault: what that is, in words.
    """
    line = {
        "experiment": f"{experiment}{lab.place}",
        "seed": lab.seed,
        "fired": fired,
        "fault": fault,
        "all_fired": dict(sorted(lab.fired.items())),
        "broken": findings.broken,
        **more,
        **msgspec.to_builtins(findings),
    }
    sys.stdout.write(f"{json.dumps(line)}\n")
    if REPORT:
        with open(REPORT, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

"""Journeyman, as an application uses it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import msgspec
import uuid_utils

from benchmarks.http_client import measured
from benchmarks.load import (
    BUSY_PAUSE_S,
    PAUSE_S,
    Figures,
    drive,
    latency_figures,
    main,
    post_id,
    recorded_writings,
    resident_bytes,
)
from benchmarks.posts import (
    AskReview,
    GetPost,
    Reviews,
    SendLetter,
    SetReview,
    app_with,
    letters,
    letters_begun_s,
    plain_app,
    write_of,
)
from journeyman import App, Busy, Command, PauseWorker, Record, ResumeWorker, open_store
from journeyman.todo.jobs import JobStarted

#: Where it is measured: a file in the row's own folder, unless somebody names another store.
STORE = os.environ.get("BENCHMARK_STORE", "sqlite:///log.db")

#: How many callers open the jobs that are to wait.
CALLERS = 256

#: How long a contender waits for what must come, in seconds.
PATIENCE_S = 300.0


def commands(*, callers: int, count: int) -> Figures:
    """Callers that execute commands, each waiting for its receipt."""

    async def run() -> Figures:
        async with plain_app().running(STORE) as app:
            figures = await drive(lambda writing: _execute(app, write_of(writing)), callers=callers, count=count)
            return figures | {"durability": _durability(app)}

    return asyncio.run(run())


def commands_together(*, processes: int, callers: int, count: int) -> Figures:
    """The same by several processes on one log, which share the callers and the commands."""

    async def run() -> Figures:
        async with plain_app().running(STORE) as app:
            durability = _durability(app)
        share = {"callers": callers // processes, "count": count // processes}
        members = [await _started("member", first=number * share["callers"], **share) for number in range(processes)]
        for member in members:
            assert member.stdout is not None
            await member.stdout.readline()
        begun_s = time.monotonic()
        outputs = await asyncio.gather(*(member.communicate(b"\n") for member in members))
        if any(member.returncode for member in members):
            raise RuntimeError(f"of {processes} processes not all have ended well")
        figures = [json.loads(output) for output, _ in outputs]
        # Until the last command is told, as for one process alone: how long stopping takes is not measured there, too.
        elapsed_s = max(one["ended_s"] for one in figures) - begun_s
        slowest_ms = max(one["p99_ms"] for one in figures)
        return {"per_s": count / elapsed_s, "p99_ms": slowest_ms, "durability": durability}

    return asyncio.run(run())


def member(*, first: int, callers: int, count: int) -> Figures:
    """One of them: warms up, says that it is ready, and begins when it is told."""

    async def told() -> None:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

    async def run() -> Figures:
        async with plain_app().running(STORE) as app:
            figures = await drive(
                lambda writing: _execute(app, write_of(writing)),
                callers=callers,
                count=count,
                first=first,
                ready=told,
            )
            # On the clock that all processes of a machine share.
            return figures | {"ended_s": time.monotonic()}

    return asyncio.run(run())


async def _started(work: str, **options: object) -> asyncio.subprocess.Process:
    """Another process of this contender, that is spoken with."""
    command = [sys.executable, "-m", __spec__.name, work, json.dumps(options)]
    return await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _execute(app: App, command: Command) -> None:
    """Execute a command, again when the disk keeps the store busy: that is what callers do."""
    while True:
        try:
            await app.execute(command)
            return
        except Busy:
            await asyncio.sleep(BUSY_PAUSE_S)


def replay(*, times: int = 1) -> Figures:
    """Starts on a log that is there: all of it is read, decoded and applied."""

    async def run() -> Figures:
        store = await open_store(STORE)
        elapsed_s = position = 0.0
        for _ in range(times):
            app = plain_app()
            begun_s = time.perf_counter()
            async with app.running(store):
                elapsed_s += time.perf_counter() - begun_s
                position += app.position
        await store.close()
        return {"per_s": position / elapsed_s}

    return asyncio.run(run())


def replay_jobs() -> Figures:
    """The same for a log of jobs: opened, attempted and answered."""

    async def run() -> Figures:
        begun_s = time.perf_counter()
        async with app_with(Reviews()).running(STORE, workers=False) as app:
            return {"per_s": app.position / (time.perf_counter() - begun_s)}

    return asyncio.run(run())


def start(*, snapshot: bool, spawned_s: float) -> Figures:
    """From nothing to the first answer: of the application's start, and of the process."""

    async def run() -> Figures:
        app = plain_app(snapshot_every=10**9 if snapshot else None)
        begun_s = time.monotonic()
        async with app.running(STORE):
            await app.query(GetPost(post_id=post_id(0)))
            answered_s = time.monotonic()
            return {"start_s": answered_s - begun_s, "process_s": answered_s - spawned_s}

    return asyncio.run(run())


def queries(*, count: int, rows: int) -> Figures:
    """One caller that asks for one post after the other."""

    async def run() -> Figures:
        async with plain_app().running(STORE) as app:
            wanted = [post_id(number % rows) for number in range(count)]
            begun_s = time.perf_counter()
            for identity in wanted:
                await app.query(GetPost(post_id=identity))
            return {"per_s": count / (time.perf_counter() - begun_s)}

    return asyncio.run(run())


def http(*, connections: int, count: int) -> Figures:
    """Clients that send commands over HTTP, from another process."""
    from journeyman.doors.serving import serving  # Here, so that no other row pays for loading a web framework.

    async def run() -> Figures:
        app = plain_app()
        async with app.running(STORE), serving(app, port=0) as url:
            figures = await measured(int(url.rpartition(":")[2]), connections=connections, count=count)
            return figures | {"durability": _durability(app)}

    return asyncio.run(run())


# Workers.


def reaction(*, samples: int) -> Figures:
    """From the receipt to the beginning of `perform`, while nothing else happens. The command itself opens the job."""

    async def run() -> Figures:
        worker = Reviews()
        async with app_with(worker).running(STORE) as app:
            told_s = await _execute_now_and_then(lambda key: _execute(app, AskReview(review_id=key)), samples)
            return _reaction_figures(told_s, worker.begun_s)

    return asyncio.run(run())


def reaction_by_function(*, samples: int) -> Figures:
    """The same for a job made from one function: a reaction asks for it by another recorded command."""

    async def run() -> Figures:
        async with App(features=[letters], snapshot_every=None).running(STORE) as app:
            told_s = await _execute_now_and_then(lambda key: _execute(app, SendLetter(letter_id=key)), samples)
            return _reaction_figures(told_s, letters_begun_s)

    return asyncio.run(run())


def reaction_elsewhere(*, samples: int) -> Figures:
    """The same between two processes: this one executes, the other one runs the workers."""

    async def run() -> Figures:
        performer = await _started("perform")
        assert performer.stdout is not None
        await performer.stdout.readline()
        async with app_with(Reviews()).running(STORE, workers=False) as app:
            told_s = await _execute_now_and_then(lambda key: _execute(app, AskReview(review_id=key)), samples)
        output, _ = await performer.communicate(b"")  # which closes its input
        return _reaction_figures(told_s, json.loads(output))

    return asyncio.run(run())


def perform() -> Figures:
    """The other process: runs the workers until its input ends, then tells when each job began."""

    async def run() -> Figures:
        worker = Reviews()
        async with app_with(worker).running(STORE):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
        return dict(worker.begun_s)

    return asyncio.run(run())


async def _execute_now_and_then(execute: Callable[[str], Awaitable[object]], samples: int) -> dict[str, float]:
    """When each command was told to its caller. The first ones warm up, and are left out."""
    told_s: dict[str, float] = {}
    for number in range(samples + 10):
        await asyncio.sleep(random.uniform(*PAUSE_S))
        key = f"job-{number}"
        await execute(key)
        told_s[key] = time.monotonic()
    await asyncio.sleep(1.0)
    return dict(islice(told_s.items(), 10, None))


def _reaction_figures(told_s: dict[str, float], begun_s: dict[str, float]) -> Figures:
    return latency_figures([max(0.0, begun_s[key] - at_s) for key, at_s in told_s.items()])


def jobs(*, count: int) -> Figures:
    """Jobs that wait already: until each has its recorded attempt and its recorded answer."""

    async def run() -> Figures:
        worker = Reviews()
        async with app_with(worker).running(STORE) as app:
            await app.execute(PauseWorker(worker=worker.name))
            await _ask(app, count, callers=CALLERS)
            begun_s = time.perf_counter()
            receipt = await app.execute(ResumeWorker(worker=worker.name))
            await _reach(app, receipt.position + 2 * count)
            elapsed_s = time.perf_counter() - begun_s
            await _check_answers(app, receipt.position, count)
            return {"per_s": count / elapsed_s, "durability": _durability(app)}

    return asyncio.run(run())


def jobs_whole(*, count: int, callers: int) -> Figures:
    """Jobs from the command that opens them to their recorded answer, while callers open others."""

    async def run() -> Figures:
        async with app_with(Reviews()).running(STORE) as app:
            before, begun_s = app.position, time.perf_counter()
            await _ask(app, count, callers=callers)
            await _reach(app, before + 3 * count)
            elapsed_s = time.perf_counter() - begun_s
            await _check_answers(app, before, count)
            return {"per_s": count / elapsed_s, "durability": _durability(app)}

    return asyncio.run(run())


async def _ask(app: App, count: int, *, callers: int) -> None:
    """Open so many jobs, by so many callers together."""
    numbers = iter(range(count))

    async def call() -> None:
        for number in numbers:
            await _execute(app, AskReview(review_id=f"job-{number}"))

    await asyncio.gather(*(call() for _ in range(callers)))


async def _reach(app: App, position: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while app.position < position:
            await app.store.log.wait(app.position, 1.0)
            await asyncio.sleep(0.001)


async def _check_answers(app: App, after: int, count: int) -> None:
    """A rate of jobs without one attempt and one answer each would mean nothing."""
    records = await app.store.log.read(after, 10 * count)
    names = [record.name for record in records]
    found = names.count("journeyman/job-started"), names.count("posts/set-review")
    if found != (count, count):
        raise RuntimeError(f"{count} jobs have (attempts, answers) {found}")


def idle(*, seconds: float) -> Figures:
    """The processor time of an application that waits, with a worker."""

    async def run() -> Figures:
        async with app_with(Reviews()).running(STORE) as app:
            await app.execute(AskReview(review_id="job"))
            await asyncio.sleep(2.0)
            begun_s, used_s = time.perf_counter(), time.process_time()
            await asyncio.sleep(seconds)
            return {"cpu_percent": 100 * (time.process_time() - used_s) / (time.perf_counter() - begun_s)}

    return asyncio.run(run())


# Memory.


def memory(*, many_rows: int, few_rows: int, messages: int, long_messages: int) -> Figures:
    """What a row takes, by logs of many and of few rows; what a message takes, by a long and a short log."""
    many, few, long = (_resident_after(log) for log in ("many.db", "few.db", "long.db"))
    return {
        "bytes_per_row": (many - few) / (many_rows - few_rows),
        "bytes_per_message": (long - many) / (long_messages - messages),
    }


def _resident_after(log: str) -> int:
    command = [sys.executable, "-m", __spec__.name, "resident", json.dumps({"log": log})]
    told: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
    return told["bytes"]


def resident(*, log: str) -> Figures:
    async def run() -> Figures:
        async with plain_app().running(f"sqlite:///{log}"):
            gc.collect()
            return {"bytes": resident_bytes()}

    return asyncio.run(run())


# Logs to begin with.


def prepare(*, messages: int, rows: int, jobs: int, snapshot: bool) -> Figures:
    """Write a log: messages to so many posts in turn, then jobs with one attempt and one answer each."""

    async def run() -> Figures:
        store = await open_store(STORE)
        after, records = 0, _records(messages, rows, jobs)
        while batch := list(islice(records, 1000)):
            await store.log.append(batch, after=after)
            after += len(batch)
        await store.close()
        if snapshot:
            async with plain_app().running(STORE) as app:
                await app.take_snapshot()
        return {"position": after}

    return asyncio.run(run())


def _records(messages: int, rows: int, jobs: int) -> Iterator[Record]:
    encode, position = msgspec.json.Encoder(order="deterministic").encode, 0
    for position, writing in enumerate(recorded_writings(messages, rows), start=1):
        yield _record(position, "posts/write", writing.post_id, encode(write_of(writing)))
    for number in range(jobs):
        key, opened_at = f"earlier-{number}", position + 1
        asked = encode(AskReview(review_id=key))
        started = JobStarted(worker=Reviews.name, job=key, opened_at=opened_at, attempt=1, instance="earlier")
        yield _record(opened_at, "posts/ask-review", key, asked)
        yield _record(opened_at + 1, "journeyman/job-started", key, encode(started))
        answer = encode(SetReview(review_id=key, verdict="good"))
        yield _record(opened_at + 2, "posts/set-review", key, answer, fence=opened_at + 1)
        position += 3


def _record(position: int, name: str, subject: str, body: bytes, *, fence: int | None = None) -> Record:
    identity = str(uuid_utils.uuid7())
    return Record(position, identity, name, 1, subject, body, time.time_ns() // 1000, identity, fence=fence)


def _durability(app: App) -> str:
    """What the connection that writes is set to, asked of itself: a benchmark may look inside."""
    if not STORE.startswith("sqlite:"):
        return app.store.durability
    log: Any = app.store.log
    connection = log._writer.connection
    return f"journal_mode={connection.pragma('journal_mode')} synchronous={connection.pragma('synchronous')}"


if __name__ == "__main__":
    main(
        {
            "commands": commands,
            "commands-together": commands_together,
            "member": member,
            "replay": replay,
            "replay-jobs": replay_jobs,
            "start": start,
            "queries": queries,
            "http": http,
            "reaction": reaction,
            "reaction-by-function": reaction_by_function,
            "reaction-elsewhere": reaction_elsewhere,
            "perform": perform,
            "jobs": jobs,
            "jobs-whole": jobs_whole,
            "idle": idle,
            "memory": memory,
            "resident": resident,
            "prepare": prepare,
        }
    )

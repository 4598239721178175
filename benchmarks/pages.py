"""How long the console's pages take on a long log, and how long its index takes to be built: `make bench-pages`.

The log is written first: posts, and reviews of them as jobs that ended, failed, or wait. Nothing else should run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import uuid_utils

from benchmarks.load import CONTENT, post_id
from benchmarks.machine import about
from benchmarks.posts import AskReview, Reviews, SetReview, Write, app_with
from benchmarks.runs import ROOT
from journeyman import App, Record, open_store
from journeyman.doors.serving import serving
from journeyman.todo.jobs import JobFailed, JobStarted, PauseWorker

#: Of so many messages, each job that ended takes three, each that failed at first five; the open ones one each.
OPEN_JOBS = 100_000
POSTS = 100_000

#: Over what time the log is spread, in seconds.
SPREAD_S = 86_400

#: How often each page is asked for, and how many callers record commands for how long, in seconds.
TIMES = 20
CALLERS = 16
COMMANDS_S = 5.0

BEGIN, END = "<!-- pages -->", "<!-- end of pages -->"


class Writing:
    """Makes the records of a long log, one after the other."""

    def __init__(self, messages: int) -> None:
        self._encode = msgspec.json.Encoder(order="deterministic").encode
        self._position = 0
        self._begun_us = time.time_ns() // 1000 - SPREAD_S * 1_000_000
        self._step_us = SPREAD_S * 1_000_000 // messages

    def record(
        self, name: str, subject: str | None, body: Any, *, cause: Record | None = None, fence: int | None = None
    ) -> Record:
        self._position += 1
        identity = str(uuid_utils.uuid7())
        return Record(
            self._position,
            identity,
            name,
            1,
            subject,
            self._encode(body),
            self._begun_us + self._position * self._step_us,
            cause.correlation_id if cause is not None else identity,
            cause.id if cause is not None else None,
            "benchmark",
            None,
            fence,
        )

    def write(self, number: int) -> Record:
        turn, post = divmod(number, POSTS)
        body = Write(post_id=post_id(post), title=f"Revision {turn + 1}", content=CONTENT, revision=turn + 1)
        return self.record("posts/write", body.post_id, body)

    def job(self, key: str, cause: Record, *, fails: bool) -> Iterator[Record]:
        asked = self.record("posts/ask-review", key, AskReview(review_id=key), cause=cause)
        yield asked
        for attempt in (1, 2) if fails else (1,):
            body = JobStarted(worker=Reviews.name, job=key, opened_at=asked.position, attempt=attempt, instance="then")
            started = self.record("journeyman/job-started", key, body, cause=asked)
            yield started
            if fails and attempt == 1:
                failed = JobFailed(fence=started.position, error="the service said 500", retry_after_s=1.0)
                yield self.record("journeyman/job-failed", None, failed, cause=asked)
        verdict = SetReview(review_id=key, verdict="good")
        yield self.record("posts/set-review", key, verdict, cause=asked, fence=started.position)


def records(messages: int) -> Iterator[Record]:
    """The log: half writes, half jobs that are over, and at the end the open ones. The worker is paused."""
    writing, number = Writing(messages), 0
    open_jobs = min(OPEN_JOBS, messages // 10)
    made = 0
    while made < messages - open_jobs - 1:
        written = [writing.write(number * 4 + one) for one in range(4)]
        group = [*written, *writing.job(f"review-{number}", written[-1], fails=number % 10 == 0)]
        made += len(group)
        number += 1
        yield from group
    yield writing.record("journeyman/pause-worker", Reviews.name, PauseWorker(worker=Reviews.name))
    for waiting in range(open_jobs):
        yield writing.record("posts/ask-review", f"open-{waiting}", AskReview(review_id=f"open-{waiting}"))


async def prepare(url: str, messages: int) -> None:
    store = await open_store(url)
    after, made = 0, records(messages)
    while batch := list(islice(made, 1000)):
        await store.log.append(batch, after=after)
        after += len(batch)
    await store.close()


# Measuring.


class PageTime(msgspec.Struct, frozen=True):
    """How long a page took, in milliseconds, and how large it was."""

    what: str
    p50_ms: float
    max_ms: float
    kib: float


class Figures(msgspec.Struct, frozen=True):
    """All that one run measured."""

    messages: int
    rows: int
    open_jobs: int
    built_s: float
    built_cpu_s: float
    index_mib: float
    pages: list[PageTime]
    command_cpu_us: dict[str, float]
    travel_s: float


async def measure(url: str, folder: Path) -> Figures:
    app = app_with(Reviews())
    async with app.running(url, workers=False), serving(app, port=0) as site:
        bare_us = await command_cpu_us(app, "bare")
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.to_thread(fetch, f"{site}/console")  # The first look is what begins the index.
        built_s = await until_indexed(site, begun_s)
        built_cpu_s = time.process_time() - begun_cpu_s
        pages = [await timed(site, what, path) for what, path in pages_of(app).items()]
        beside_us = await command_cpu_us(app, "beside")
        travel_s = await travelled(site, app.position // 2)
        messages = app.position
        rows = await app.state(
            lambda state: sum(len(t) for one in state.features.values() for t in one.tables().values())
        )
    index = folder / "pages.db-index"
    return Figures(
        messages=messages,
        rows=rows,
        open_jobs=OPEN_JOBS,
        built_s=built_s,
        built_cpu_s=built_cpu_s,
        index_mib=index.stat().st_size / 2**20,
        pages=pages,
        command_cpu_us={"nobody looks": bare_us, "the index follows": beside_us},
        travel_s=travel_s,
    )


def pages_of(app: App) -> dict[str, str]:
    """The pages, by what they show. In the middle of the log is a job that is over."""
    middle, end = app.position // 2, app.position
    worker = Reviews.name
    job = f"review-{middle // 9 // 2}"
    return {
        "overview, last hour": "/console",
        "overview, last week": "/console?span=week",
        "workers": "/console/workers",
        "a worker, 100,000 jobs waiting": f"/console/worker?name={worker}&standing=waiting",
        "the same, page 1,000": f"/console/worker?name={worker}&standing=waiting&offset=50000",
        "its jobs that are over": f"/console/worker?name={worker}&over=true",
        "a job that is over": f"/console/job?worker={worker}&job={job}",
        "a job that waits": f"/console/job?worker={worker}&job=open-500",
        "log, newest": "/console/log",
        "log, in the middle": f"/console/log?before={middle}",
        "log, one feature": "/console/log?feature=journeyman",
        "log, one name, in the middle": f"/console/log?name=posts/set-review&before={middle}",
        "log, one subject": f"/console/log?subject={post_id(77)}",
        "a message": f"/console/log/{middle}",
        "state, all tables": "/console/state",
        "a table of 100,000 rows, by key": f"/console/state?table=posts/posts&after=%22{post_id(50_000)}%22",
        "the same, by an index": "/console/state?table=journeyman/jobs/jobs&order=due&offset=50000",
        "a row": f"/console/state/row?table=posts/posts&key={post_id(4711)}",
        "do": "/console/do",
        "store": f"/console/store?{end}",
    }


def fetch(url: str) -> int:
    """The size of a page, in bytes."""
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # of our own server
        return len(answer.read())


async def timed(site: str, what: str, path: str) -> PageTime:
    times_ms: list[float] = []
    size = await asyncio.to_thread(fetch, site + path)
    for _ in range(TIMES):
        begun_s = time.perf_counter()
        size = await asyncio.to_thread(fetch, site + path)
        times_ms.append((time.perf_counter() - begun_s) * 1000)
    return PageTime(what, median(times_ms), max(times_ms), size / 1024)


async def until_indexed(site: str, begun_s: float) -> float:
    """How long the index took, in seconds, from its beginning."""
    while True:
        page = await asyncio.to_thread(read, f"{site}/console/store")
        if "Histories and filters read an index" not in page:
            return time.perf_counter() - begun_s
        await asyncio.sleep(0.2)


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310  # of our own server
        text: str = answer.read().decode()
        return text


async def command_cpu_us(app: App, name: str) -> float:
    """What a command costs this process, in microseconds of processor time, while CALLERS callers record them.

    Not how many it records in a second: on a busy disk that tells of the disk.
    """
    until_s, begun_cpu_s = time.perf_counter() + COMMANDS_S, time.process_time()
    count = 0

    async def call(caller: int) -> None:
        nonlocal count
        number = 0
        while time.perf_counter() < until_s:
            await app.execute(AskReview(review_id=f"{name}-{caller}-{number}"))
            number += 1
            count += 1

    await asyncio.gather(*map(call, range(CALLERS)))
    return (time.process_time() - begun_cpu_s) / count * 1_000_000


async def travelled(site: str, position: int) -> float:
    """How long the state at a position takes to be computed, in seconds."""
    begun_s = time.perf_counter()
    while "On the way to" in await asyncio.to_thread(read, f"{site}/console/state?as_of={position}"):
        pass  # The page waits a moment by itself.
    return time.perf_counter() - begun_s


# Telling.


def table(figures: Figures) -> str:
    lines = ["| page | median | longest of 20 | size |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {page.what} | {page.p50_ms:.0f} ms | {page.max_ms:.0f} ms | {page.kib:.0f} KiB |" for page in figures.pages
    ]
    lines += ["", f"| processor time of a command, {CALLERS} callers | |", "| --- | ---: |"]
    lines += [f"| {when} | {cost_us:.0f} µs |" for when, cost_us in figures.command_cpu_us.items()]
    head = (
        f"A log of {figures.messages:,} messages, {figures.rows:,} rows, of which {figures.open_jobs:,} are jobs that "
        f"wait. The index took {figures.built_s:.0f} s to build, {figures.built_cpu_s:.0f} s of processor time (pages "
        f"were asked for meanwhile), and {figures.index_mib:.0f} MiB. "
        f"The state as of half the log took {figures.travel_s:.1f} s to compute."
    )
    return "\n".join([head, "", *lines, "", f"{about_machine()}."])


def about_machine() -> str:
    told = about(ROOT / "build", rounds=1, quick=False)
    return f"{told['machine']}; {told['disk']}; load {told['load']}; Python {told['python']}; {told['versions']}"


def publish(text: str) -> None:
    """The results into docs/performance.md, between marks of their own."""
    page = ROOT / "docs/performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--directory", default=str(ROOT / "build"))
    parser.add_argument("--publish", action="store_true", help="write the results into docs/performance.md")
    options = parser.parse_args()
    Path(options.directory).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        url = f"sqlite:///{folder}/pages.db"
        asyncio.run(prepare(url, options.messages))
        text = table(asyncio.run(measure(url, Path(folder))))
    print(text)
    if options.publish:
        publish(text)


if __name__ == "__main__":
    main()

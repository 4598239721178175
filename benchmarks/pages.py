"""How long the console's pages take on a long log, and how long its index takes to be built: `make bench-pages`.

The log is written first: posts, and reviews of them as jobs that ended, failed, or wait. Nothing else should run.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import uuid_utils

from benchmarks.load import CONTENT, post_id
from benchmarks.posts import AskReview, Reviews, SetReview, Write, app_with
from journeyman import Record, open_store
from journeyman.todo.jobs import JobFailed, JobStarted, PauseWorker

#: Of so many messages, each job that ended takes three, each that failed at first five; the open ones one each.
OPEN_JOBS = 100_000
POSTS = 100_000

#: Over what time the log is spread, in seconds.
SPREAD_S = 86_400


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


async def measure(url: str) -> None:
    from journeyman.doors.console.index.follower import Index

    app = app_with(Reviews())
    async with app.running(url, workers=False):
        index = Index(app)
        begun_s = time.perf_counter()
        await index.ask(lambda reader: reader.position) if False else index.begin()
        await index.until(app.position, timeout_s=600)
        print("built", time.perf_counter() - begun_s, await index.progress())
        await index.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--directory", default="build")
    options = parser.parse_args()
    Path(options.directory).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        url = f"sqlite:///{folder}/pages.db"
        asyncio.run(prepare(url, options.messages))
        asyncio.run(measure(url))


if __name__ == "__main__":
    main()

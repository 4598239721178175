"""The limits: the same work in plain scripts, on the same driver, with the same durability, without a framework.

Whatever a framework does, it can't be faster than these by more than luck.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

import apsw
import msgspec
import uuid_utils

from benchmarks.load import (
    PAUSE_S,
    Figures,
    Writing,
    drive,
    drive_in_place,
    latency_figures,
    main,
    post_id,
    resident_bytes,
    writings,
)

#: The most commands in one transaction, and records in one read: Journeyman's own bounds.
BATCH_MAX = 1000

_CREATE = """
CREATE TABLE messages (
    position INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, subject TEXT,
    body BLOB NOT NULL, recorded_at_us INTEGER NOT NULL, correlation_id TEXT NOT NULL, causation_id TEXT, actor TEXT,
    idempotency_key TEXT, fence INTEGER, meta BLOB
) STRICT
"""
_INSERT = """
INSERT INTO messages (position, id, name, version, subject, body, recorded_at_us, correlation_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_READ = "SELECT * FROM messages WHERE position > ? ORDER BY position LIMIT ?"
_READ_BODIES = "SELECT position, name, body FROM messages WHERE position > ? ORDER BY position LIMIT ?"


class Write(msgspec.Struct, frozen=True):
    post_id: str
    title: str
    content: str
    revision: int


class Post(msgspec.Struct, frozen=True):
    post_id: str
    title: str
    content: str
    revision: int


class Refused(Exception):
    """The revision is not the next one."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Write).decode


class Log:
    """A table of messages, and the posts they make. `judge` applies a command, `commit` makes a batch durable."""

    def __init__(self, path: str = "log.db") -> None:
        self.connection = apsw.Connection(path)
        self.connection.pragma("journal_mode", "wal")
        self.connection.pragma("synchronous", 2)  # FULL
        self.connection.execute(_CREATE)
        self.posts: dict[str, Post] = {}
        self.position = 0

    def judge(self, write: Write, body: bytes) -> tuple[object, ...]:
        """Validate and apply; the message that is to be recorded."""
        post = self.posts.get(write.post_id)
        if write.revision != (1 if post is None else post.revision + 1):
            raise Refused(write.post_id)
        self.posts[write.post_id] = Post(write.post_id, write.title, write.content, write.revision)
        self.position += 1
        identity = str(uuid_utils.uuid7())
        return self.position, identity, "posts/write", 1, write.post_id, body, time.time_ns() // 1000, identity

    def commit(self, messages: list[tuple[object, ...]]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(_INSERT, messages)
        self.connection.execute("COMMIT")

    @property
    def durability(self) -> str:
        return settings(self.connection)


class GroupCommit:
    """One thread that judges what asyncio callers queue, commits all that waits in one transaction, and answers."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[tuple[Write, bytes, asyncio.Future[int]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def execute(self, write: Write) -> int:
        """Record a command; its position, once it is durable."""
        answer: asyncio.Future[int] = self._loop.create_future()
        self._queue.put((write, _encode(write), answer))
        return await answer

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            messages: list[tuple[object, ...]] = []
            answers: list[tuple[asyncio.Future[int], int | Refused]] = []
            for write, body, answer in [first, *self._waiting()]:
                try:
                    messages.append(self._log.judge(write, body))
                    answers.append((answer, self._log.position))
                except Refused as refused:
                    answers.append((answer, refused))
            self._log.commit(messages)
            self._loop.call_soon_threadsafe(_tell, answers)

    def _waiting(self) -> Iterator[tuple[Write, bytes, asyncio.Future[int]]]:
        for _ in range(BATCH_MAX - 1):
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if item is None:
                self._queue.put(None)
                return
            yield item


def _tell(answers: list[tuple[asyncio.Future[int], int | Refused]]) -> None:
    for answer, outcome in answers:
        if isinstance(outcome, Refused):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def settings(connection: apsw.Connection) -> str:
    return f"journal_mode={connection.pragma('journal_mode')} synchronous={connection.pragma('synchronous')}"


def write_of(writing: Writing) -> Write:
    return Write(writing.post_id, writing.title, writing.content, writing.revision)


# What is measured.


def insert_and_commit(*, count: int) -> Figures:
    """One caller: judge, insert and commit in place, one command a transaction."""
    log = Log()

    def execute(writing: Writing) -> None:
        write = write_of(writing)
        log.commit([log.judge(write, _encode(write))])

    return drive_in_place(execute, count=count) | {"durability": log.durability}


def group_commit(*, callers: int, count: int) -> Figures:
    """Many callers, and one thread that commits for them."""
    log = Log()

    async def run() -> Figures:
        commits = GroupCommit(log)
        try:
            return await drive(lambda writing: commits.execute(write_of(writing)), callers=callers, count=count)
        finally:
            commits.close()

    return asyncio.run(run()) | {"durability": log.durability}


def replay(*, bodies_only: bool = False) -> Figures:
    """Read a log, decode and apply it: whole messages, or only what this feature's `apply` looks at."""
    begun_s = time.perf_counter()
    _, position = _replayed("log.db", bodies_only=bodies_only)
    return {"per_s": position / (time.perf_counter() - begun_s)}


def _replayed(path: str, *, bodies_only: bool = False) -> tuple[dict[str, Post], int]:
    connection = apsw.Connection(path)
    column, sql = (2, _READ_BODIES) if bodies_only else (5, _READ)
    posts: dict[str, Post] = {}
    position = 0
    row: Any
    while rows := connection.execute(sql, (position, BATCH_MAX)).fetchall():
        for row in rows:
            if row[0] != position + 1:
                raise ValueError(f"a gap after {position}")
            position += 1
            write = _decode(row[column])
            posts[write.post_id] = Post(write.post_id, write.title, write.content, write.revision)
    connection.close()
    return posts, position


def queries(*, count: int, rows: int) -> Figures:
    """An awaited look into a dict."""
    posts, _ = _replayed("log.db")
    wanted = [post_id(number % rows) for number in range(count)]

    async def get(identity: str) -> Post:
        return posts[identity]

    async def run() -> float:
        begun_s = time.perf_counter()
        for identity in wanted:
            await get(identity)
        return time.perf_counter() - begun_s

    return {"per_s": count / asyncio.run(run())}


def jobs(*, count: int, concurrency: int) -> Figures:
    """Two durable messages for each job, one after the other, and so many jobs side by side."""
    log = Log()

    async def run() -> float:
        commits, waiting = GroupCommit(log), iter(range(count))

        async def work() -> None:
            for number in waiting:
                await commits.execute(Write(f"job-{number}", "attempt", "", 1))
                await commits.execute(Write(f"job-{number}", "answer", "good", 2))

        begun_s = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(concurrency)))
        elapsed_s = time.perf_counter() - begun_s
        commits.close()
        return elapsed_s

    return {"per_s": count / asyncio.run(run()), "durability": log.durability}


def reaction(*, samples: int) -> Figures:
    """Two commits, one after the other, after a pause: how long the second one takes, which nobody could leave out."""
    log, source = Log(), writings(0)
    taken_s: list[float] = []

    def execute() -> None:
        write = write_of(next(source))
        log.commit([log.judge(write, _encode(write))])

    for _ in range(samples):
        time.sleep(random.uniform(*PAUSE_S))
        execute()
        begun_s = time.perf_counter()
        execute()
        taken_s.append(time.perf_counter() - begun_s)
    return latency_figures(taken_s) | {"durability": log.durability}


def memory(*, many_rows: int, few_rows: int) -> Figures:
    """The memory of a dict with the rows, by the difference between many and few."""
    many, few = (_resident_after(log) for log in ("many.db", "few.db"))
    return {"bytes_per_row": (many - few) / (many_rows - few_rows)}


def _resident_after(log: str) -> int:
    command = [sys.executable, "-m", __spec__.name, "resident", msgspec.json.encode({"log": log}).decode()]
    told: dict[str, int] = msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout)  # noqa: S603
    return told["bytes"]


def resident(*, log: str) -> Figures:
    kept: Any = _replayed(log)
    gc.collect()
    return {"bytes": resident_bytes(), "rows": len(kept[0])}


if __name__ == "__main__":
    main(
        {
            "insert-and-commit": insert_and_commit,
            "group-commit": group_commit,
            "replay": replay,
            "queries": queries,
            "jobs": jobs,
            "reaction": reaction,
            "memory": memory,
            "resident": resident,
        }
    )

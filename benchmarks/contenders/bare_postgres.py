"""The limit on PostgreSQL: the same loop as on SQLite, by batches with the driver, without a framework."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import asyncpg
import msgspec
import uuid_utils

from benchmarks.load import Figures, drive, main
from benchmarks.posts import Post, Write, write_of

STORE = os.environ["BENCHMARK_STORE"]

#: The most commands in one transaction: Journeyman's own bound.
BATCH_MAX = 1000

_CREATE = """
CREATE TABLE messages (
    position bigint PRIMARY KEY, id text NOT NULL, name text NOT NULL, version int NOT NULL, subject text,
    body bytea NOT NULL, recorded_at_us bigint NOT NULL, correlation_id text NOT NULL
)
"""
_INSERT = """
INSERT INTO messages SELECT * FROM unnest(
    $1::bigint[], $2::text[], $3::text[], $4::int[], $5::text[], $6::bytea[], $7::bigint[], $8::text[]
)
"""

_encode = msgspec.json.Encoder().encode


class GroupCommit:
    """One task that judges what callers queue, inserts all that waits by one statement, and answers."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._queue: asyncio.Queue[tuple[Write, bytes, asyncio.Future[int]]] = asyncio.Queue()
        self._posts: dict[str, Post] = {}
        self._position = 0
        self._task = asyncio.create_task(self._run())

    async def execute(self, write: Write) -> int:
        """Record a command; its position, once it is durable."""
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((write, _encode(write), answer))
        return await answer

    async def _run(self) -> None:
        while True:
            batch = [await self._queue.get()]
            while not self._queue.empty() and len(batch) < BATCH_MAX:
                batch.append(self._queue.get_nowait())
            rows = [self._judge(write, body) for write, body, _ in batch]
            await self._connection.execute(_INSERT, *zip(*rows, strict=True))
            for row, (_, _, answer) in zip(rows, batch, strict=True):
                answer.set_result(row[0])

    def _judge(self, write: Write, body: bytes) -> tuple[Any, ...]:
        post = self._posts.get(write.post_id)
        if write.revision != (1 if post is None else post.revision + 1):
            raise ValueError(write.post_id)
        self._posts[write.post_id] = Post(write.post_id, write.title, write.content, write.revision)
        self._position += 1
        identity = str(uuid_utils.uuid7())
        return self._position, identity, "posts/write", 1, write.post_id, body, time.time_ns() // 1000, identity


def group_commit(*, callers: int, count: int) -> Figures:
    """Many callers, and one connection that commits for them."""

    async def run() -> Figures:
        connection = await asyncpg.connect(STORE)
        await connection.execute(_CREATE)
        durability = f"synchronous_commit={await connection.fetchval('SHOW synchronous_commit')}"
        commits = GroupCommit(connection)
        figures = await drive(lambda writing: commits.execute(write_of(writing)), callers=callers, count=count)
        commits._task.cancel()
        await connection.close()
        return figures | {"durability": durability}

    return asyncio.run(run())


if __name__ == "__main__":
    main({"group-commit": group_commit})

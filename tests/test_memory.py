"""Memory follows the state, not the length of the log."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path

import pytest

from journeyman import App
from journeyman.examples.blog.posts import CreatePost, UpdatePost, posts
from journeyman.follower import RECENT_MESSAGES_MAX
from journeyman.store import open_store

CALLERS = 50
ROUND = RECENT_MESSAGES_MAX + 500


@pytest.mark.blocks_loop("it collects all garbage of this process, with each allocation traced")
async def test_a_log_that_grows_by_updates_of_one_post_takes_no_more_memory(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path / 'blog.db'}")
    app = App(features=[posts])
    async with app.running(store):
        await app.execute(CreatePost(post_id="p", title="t", content="c"))
        # From the start: what was allocated untraced and is freed later would not count.
        tracemalloc.start()
        try:
            await _update(app)  # Caches are full from here on.
            before = _allocated_bytes()
            await _update(app)
            after = _allocated_bytes()
        finally:
            tracemalloc.stop()
        assert app.position == 1 + 2 * ROUND
    await store.close()

    assert after - before < 100 * 1024, "less than 25 bytes for each message"


def _allocated_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def _update(app: App) -> None:
    numbers = iter(range(ROUND))

    async def caller() -> None:
        for number in numbers:
            await app.execute(UpdatePost(post_id="p", title=f"Title {number}", content="x" * 1000))

    await asyncio.gather(*(caller() for _ in range(CALLERS)))

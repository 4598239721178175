"""The blog, served on a real SQLite file, with a summarizer that does what the text asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from journeyman import App, GiveUp, Receipt, Retry
from journeyman.doors.serving import serving
from journeyman.examples.blog.app import app as blog_app
from journeyman.examples.blog.posts import CreatePost, PostWorker, posts

#: What a text holds whose summary is made only when the test says so, and one that can't be summarised until then.
HELD = "(held)"
FAILS = "(fails)"


class TextualSummarizer:
    """Summarises at once, waits, or fails, as the text says."""

    description = "the test's own"

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.mended = asyncio.Event()

    async def summarize(self, title: str, content: str, *, key: str) -> str:
        if HELD in content:
            await self.release.wait()
        if FAILS in content and not self.mended.is_set():
            raise GiveUp("the model declined: this text is <b>too strange</b>")
        return f"In short: {content[:60]}"

    async def close(self) -> None:
        self.release.set()


class QuickPostWorker(PostWorker):
    """The worker with pauses that a test can wait for."""

    retry = Retry(attempts=2, first_s=0.001, max_s=0.002)


@dataclass(frozen=True)
class Blog:
    """The blog while it is served."""

    url: str
    app: App
    summarizer: TextualSummarizer

    async def write(self, post_id: str, title: str = "A title", content: str = "Some text.") -> Receipt:
        return await self.app.execute(CreatePost(post_id=post_id, title=title, content=content), actor="test")


@asynccontextmanager
async def serving_blog(folder: Path) -> AsyncIterator[Blog]:
    """The blog on a store in that folder, running and served."""
    summarizer = TextualSummarizer()
    app = App(features=[posts], workers=[QuickPostWorker(lambda: summarizer)], pages=blog_app.pages)
    async with app.running(f"sqlite:///{folder / 'blog.db'}", drain_s=0.1), serving(app, port=0) as url:
        yield Blog(url, app, summarizer)

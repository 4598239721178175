"""The streams of pages are counted, bounded and ended together; they tell when the log has grown, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from journeyman import App
from journeyman.doors.serving import serving
from journeyman.doors.web import streams as module
from journeyman.doors.web.streams import Streams, event
from journeyman.examples.blog.app import app as blog_app
from journeyman.examples.blog.posts import CreatePost, DeletePost, RequestSummaryGeneration, SetGeneratedSummary, posts
from tests.doors.http.shop import client_of, make_app, problem


def make_blog() -> App:
    return App(features=[posts], pages=blog_app.pages)


def create(post_id: str, content: str = "Text.") -> CreatePost:
    return CreatePost(post_id=post_id, title=f"Post {post_id}", content=content)


async def summarise(app: App, post_id: str, summary: str) -> None:
    request = RequestSummaryGeneration(request_id=f"r-{post_id}", post_id=post_id, content="Text.")
    await app.execute(request)
    await app.execute(SetGeneratedSummary(request_id=f"r-{post_id}", post_id=post_id, summary=summary))


def test_an_event_is_dispatched_whatever_its_data_holds() -> None:
    """HTML Standard, 9.2.6: an event without a line of data is dropped."""
    assert event("end", "") == b"event: end\ndata: \n\n"
    assert event("a", "one\ntwo\r\nthree") == b"event: a\ndata: one\ndata: two\ndata: three\n\n"


async def heads_of(streams: Streams, app: App, heads: asyncio.Queue[int]) -> None:
    async for head in streams.growth(app, after=0):
        heads.put_nowait(head)


async def test_growth_is_told_until_the_streams_end() -> None:
    app, streams, heads = make_app(), Streams(), asyncio.Queue[int]()
    async with app.running("memory:"), asyncio.timeout(30):
        touch = app.catalog.commands["shop/touch"].message_type.body
        following = asyncio.create_task(heads_of(streams, app, heads))
        for position in (1, 2, 3):
            await app.execute(touch())
            assert await heads.get() == position
        streams.end()
        await following


async def test_a_log_that_grows_fast_is_told_of_at_rests_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 3600.0)
    app, streams, heads = make_app(), Streams(), asyncio.Queue[int]()
    async with app.running("memory:"), asyncio.timeout(30):
        touch = app.catalog.commands["shop/touch"].message_type.body
        await app.execute(touch())
        following = asyncio.create_task(heads_of(streams, app, heads))
        assert await heads.get() == 1
        await app.execute(touch())
        for _ in range(50):  # Turns of the loop: a stream that did not rest would have told of it by then.
            await asyncio.sleep(0)
        streams.end()  # A rest ends with the streams.
        await following
        assert heads.empty()


async def test_a_page_hears_of_its_posts_only_and_of_each_until_it_has_its_summary() -> None:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        for post_id in ("a", "b", "c"):
            await app.execute(create(post_id))
        path = "/posts/summaries?post_id=a&post_id=b&after=0&part=teaser"
        async with client.stream("GET", path) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            await until(lines, "event: post-2")
            await summarise(app, "c", "Of c.")
            await summarise(app, "a", "Of <b>a</b>.")
            told = await until(lines, "event: post-1")
            await app.execute(DeletePost(post_id="b"))
            told += await until(lines, "event: end")

    assert "Of &lt;b&gt;a&lt;/b&gt;." in told
    assert "Of c." not in told


async def until(lines: AsyncIterator[str], wanted: str) -> str:
    """What is told up to that line, and the event that it begins."""
    told: list[str] = []
    async with asyncio.timeout(30):
        async for line in lines:
            told.append(line)
            if wanted in told and line == "":
                break
    return "\n".join(told)


async def test_streams_of_pages_are_bounded_and_a_closed_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 1)
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        await app.execute(create("a"))
        path = "/posts/summaries?post_id=a&after=0"
        async with client.stream("GET", path) as stream:
            lines = stream.aiter_lines()  # Kept, because the stream is closed together with what reads it.
            await until(lines, "event: post-1")
            problem(await client.get(path), 503, "busy")
        async with asyncio.timeout(30):
            while not (await client.get("/posts/summaries?post_id=nothing&after=0")).is_success:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_open_stream_does_not_hold_up_the_exit() -> None:
    app = make_blog()
    begun = asyncio.Event()

    async def read(url: str) -> list[str]:
        async with client_of(url) as client, client.stream("GET", "/posts/summaries?post_id=a&after=0") as stream:
            lines = []
            async for line in stream.aiter_lines():
                lines.append(line)
                begun.set()
            return lines

    async with app.running("memory:"):
        async with serving(app, port=0) as url:
            await app.execute(create("a"))
            reading = asyncio.create_task(read(url))
            await begun.wait()
        async with asyncio.timeout(1):
            assert (await reading)[0] == "event: post-1"


@pytest.mark.parametrize("query", ["", "post_id=a", "post_id=a&after=x", "&".join(["post_id=a"] * 101) + "&after=0"])
async def test_a_stream_that_says_nothing_sensible_is_refused(query: str) -> None:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        problem(await client.get(f"/posts/summaries?{query}"), 400, "bad-request")

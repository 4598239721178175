"""HEAD is answered as GET is, without the body, on every route: RFC 9110, 9.3.2."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx2
import pytest
from litestar import Litestar

from journeyman import App
from journeyman.doors.http import http_app
from journeyman.doors.site import site_app
from journeyman.doors.web.guard import Guard
from journeyman.doors.web.head import allowing_head
from journeyman.examples.blog.app import app as blog_app
from journeyman.examples.blog.posts import CreatePost, posts
from tests.doors.http.shop import by_asgi, make_app, problem, raw, shop

#: What stands for the parameters of paths, and what is asked where a path by itself would be refused.
VALUES = {"position": "1", "feature": "posts"}
ASKED = {
    "/posts/read": "?post_id=1",
    "/posts/edit": "?post_id=1",
    "/posts/delete": "?post_id=1",
    "/posts/summaries": "?post_id=1&after=0",
    "/queries/posts/get": "?post_id=1",
    "/console/worker": "?name=no-worker",
    "/console/job": "?worker=no-worker&job=1",
    "/console/log/jump": "?to=1",
    "/console/state/travel": "?as_of=1",
    "/console/state/changes": "?as_of=1",
    "/console/state/row": "?table=posts/posts&key=1",
}

#: What is not there is told by HEAD as by GET, too.
NOT_THERE = {
    (404, path)
    for path in (
        "/console/worker?name=no-worker",
        "/console/job?worker=no-worker&job=1",
        "/assets/create",
        "/console/assets/create",
    )
}

#: What a moment changes, or the other answer's connection.
MOMENTARY = ("date", "content-length")


def make_blog() -> App:
    return App(features=[posts], pages=blog_app.pages)


def get_routes(app: App) -> list[str]:
    """The path of every route of the site that GET leads to, with values for its parameters."""
    litestar = cast(Litestar, cast(Guard, site_app(app))._inner)
    found = []
    for route in litestar.routes:
        if "GET" not in getattr(route, "methods", ()):
            continue
        names = {"name": "list" if "/query/" in route.path else "create"} | VALUES
        path = "/".join(
            names[part[1:-1].partition(":")[0]] if part.startswith("{") else part for part in route.path.split("/")
        )
        found.append(path + ASKED.get(path, ""))
    return found


async def told(client: httpx2.AsyncClient, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and, where it ends, the body."""
    async with client.stream(method, path, headers={"accept": "text/html"}) as answer:
        headers = dict(answer.headers)
        is_endless = method == "GET" and headers["content-type"].startswith("text/event-stream")
        return answer.status_code, headers, b"" if is_endless else await answer.aread()


async def test_every_route_answers_head_as_get() -> None:
    app = make_blog()
    paths = get_routes(app)
    assert {"/", "/console", "/console/log", "/console/log/1", "/log/stream", "/queries/posts/list"} <= set(paths)
    async with shop(app) as client, asyncio.timeout(60):
        await app.execute(CreatePost(post_id="1", title="A title", content="Some text."))
        for path in paths:
            status, headers, _ = await told(client, "GET", path)
            assert status in (200, 303) or (status, path) in NOT_THERE, (status, path)
            head_status, head_headers, body = await told(client, "HEAD", path)
            assert (head_status, body) == (status, b""), path
            assert head_headers.keys() - {"transfer-encoding"} == headers.keys() - {"transfer-encoding"}, path
            for name in headers.keys() & head_headers.keys() - set(MOMENTARY):
                assert head_headers[name] == headers[name], (path, name)


async def test_the_length_is_that_of_the_body_that_is_left_out() -> None:
    async with shop() as client:
        body = await client.get("/commands")
        head = b"HEAD /commands HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        start, _, rest = (await raw(str(client.base_url), head)).partition(b"\r\n\r\n")

    assert start.startswith(b"HTTP/1.1 200 ")
    assert b"\r\ncontent-length: %d\r\n" % len(body.content) in start
    assert rest == b""


async def test_a_stream_is_not_begun_for_its_head() -> None:
    """Whoever asks for the head of streams over one connection holds none of them open."""
    app = make_app()
    async with shop(app) as client, asyncio.timeout(30):
        for _ in range(3):
            answer = await client.head("/log/stream")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        # The server tells it to the stream after it has told the client.
        while "journeyman_streams_open 0" not in (counted := (await client.get("/metrics")).text):
            pass

    assert 'method="HEAD",route="/log/stream"' in counted, "monitors see what was asked"


async def test_a_refusal_has_no_body_either_and_changes_nothing() -> None:
    async with shop() as client:
        for path, status in (("/nowhere", 404), ("/log?after=x", 422), ("/commands/shop/touch", 405)):
            answer = await client.head(path)
            assert (answer.status_code, answer.content) == (status, b""), path
        foreign = await client.head("/log", headers={"host": "evil.example"})
        assert (foreign.status_code, foreign.content) == (421, b"")
        assert (await client.get("/log")).json() == []


async def test_what_takes_get_says_that_it_takes_head() -> None:
    async with shop() as client:
        for allow in (
            (await client.options("/log")).headers["allow"],
            problem_allow(await client.post("/log", json={})),
        ):
            assert {"GET", "HEAD", "OPTIONS"} == set(allow.split(", "))
        assert "HEAD" not in problem_allow(await client.get("/commands/shop/touch"))


def problem_allow(answer: httpx2.Response) -> str:
    problem(answer, 405, "method-not-allowed")
    allow: str = answer.headers["allow"]
    return allow


@pytest.mark.parametrize("root_path", ["", "/mounted"])
async def test_the_scope_of_the_server_stays_as_it_is_and_nothing_but_the_head_is_sent(root_path: str) -> None:
    """A server looks at the method of its own scope to know that no body comes."""
    scope, sent = await by_asgi(http_app(make_app()), "HEAD", root_path + "/commands", root_path=root_path)

    assert scope["method"] == "HEAD"
    assert [(event["type"], event.get("status"), event.get("body")) for event in sent] == [
        ("http.response.start", 200, None),
        ("http.response.body", None, b""),
    ]


def test_head_is_allowed_where_get_is() -> None:
    assert allowing_head([(b"allow", b"OPTIONS, GET"), (b"x", b"GET")]) == [
        (b"allow", b"GET, HEAD, OPTIONS"),
        (b"x", b"GET"),
    ]
    assert allowing_head([(b"allow", b"POST")]) == [(b"allow", b"POST")]

"""One site holds the JSON door, the console and an application's pages: each answers in its way, under any prefix."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from litestar import Router, get

from journeyman import App, DefinitionError
from journeyman.doors.serving import serving
from journeyman.doors.site import load_pages, site_app
from journeyman.doors.web.guard import PAGE_HEADERS, SECURITY_HEADERS
from journeyman.examples.blog.app import app as blog_app
from journeyman.examples.blog.posts import CreatePost, posts
from journeyman.message import BODY_BYTES_MAX
from journeyman.web import Page, Request, Templates
from tests.doors.http.shop import SECRET, by_asgi, client_of, make_app, shop

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"content-type": "application/x-www-form-urlencoded", **BROWSER}


def make_blog() -> App:
    return App(features=[posts], pages=blog_app.pages)


@asynccontextmanager
async def served_blog() -> AsyncIterator[httpx2.AsyncClient]:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        yield client


async def proof(client: httpx2.AsyncClient, path: str = "/posts/write") -> str:
    """The field of a page that proves that a form is ours, ready to be sent."""
    return proof_in((await client.get(path)).text)


def proof_in(page: str) -> str:
    [value] = re.findall(r'name="_csrf" value="([^"]*)"', page)
    return f"_csrf={value}&"


@get("/broken")
async def broken(request: Request) -> Page:
    raise RuntimeError(SECRET)


@get("/unfinished")
async def unfinished(request: Request) -> Page:
    return Templates("journeyman.doors.web").page(request, "journeyman/problem.html")


broken_pages = Router("/", route_handlers=[broken, unfinished])
no_router = object()


# What there is.


async def test_the_three_stand_side_by_side() -> None:
    async with served_blog() as client:
        assert "<h1>Posts</h1>" in (await client.get("/")).text
        assert (await client.get("/console")).headers["content-type"] == "text/html; charset=utf-8"
        assert (await client.get("/queries/posts/list")).json()["total"] == 0


async def test_an_application_without_pages_begins_with_the_console() -> None:
    async with shop() as client:
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console")


@pytest.mark.parametrize(
    "name", ["", "nowhere", "nowhere:pages", "tests.doors.test_site", "tests.doors.test_site:nothing", ":x", "a b:c"]
)
def test_pages_that_can_not_be_had_are_told_with_the_way_to_name_them(name: str) -> None:
    with pytest.raises(DefinitionError, match="module:attribute"):
        site_app(App(features=[posts], pages=[name]))


def test_pages_must_be_a_router() -> None:
    with pytest.raises(DefinitionError, match="must be a litestar Router"):
        load_pages("tests.doors.test_site:no_router")
    with pytest.raises(DefinitionError, match="must be a list"):
        App(features=[posts], pages="tests.doors.test_site:broken_pages")


# Errors.


async def test_a_browser_gets_a_page_and_a_program_a_problem() -> None:
    async with served_blog() as client:
        for path, status in (("/nowhere", 404), ("/posts/read?post_id=x", 404), ("/?page=0", 400), ("/?at=x", 400)):
            page = await client.get(path, headers=BROWSER)
            assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8"), path
            assert f'<p class="problem-status">{status}</p>' in page.text
            document = await client.get(path)
            assert document.status_code == status
            assert document.headers["content-type"] == "application/problem+json"
        wrong_method = await client.post("/", headers=FORM, content=(await proof(client)).encode())
        assert wrong_method.status_code == 405
        assert "GET" in wrong_method.headers["allow"]
        assert "text/html" in wrong_method.headers["content-type"]
        foreign = await client.post("/posts/write", headers={**FORM, "origin": "https://evil.example"}, content=b"")
        assert (foreign.status_code, foreign.headers["content-type"]) == (403, "text/html; charset=utf-8")


async def test_what_breaks_is_told_without_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    app = App(features=[posts], pages=["tests.doors.test_site:broken_pages"])
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        for path in ("/broken", "/unfinished"):
            answer = await client.get(path, headers=BROWSER)
            assert answer.status_code == 500
            assert "Something broke" in answer.text
            assert SECRET not in answer.text
            assert "Traceback" not in answer.text
    assert SECRET in caplog.text


async def test_an_application_that_does_not_run_is_a_page_that_looks_again_by_itself() -> None:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        await app.stop()
        answer = await client.get("/posts/read?post_id=x", headers=BROWSER)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert '<meta http-equiv="refresh" content="1">' in answer.text
    assert "The application does not run" in answer.text


async def test_a_form_that_can_not_be_recorded_now_keeps_what_was_typed() -> None:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        body = await proof(client) + "_key=k1&title=Kept&content=As+typed"
        await app.stop()
        answer = await client.post("/posts/write", headers=FORM, content=body.encode())

    assert answer.status_code == 503
    assert 'value="Kept"' in answer.text
    assert "As typed</textarea>" in answer.text
    assert 'name="_key" value="k1"' in answer.text
    assert "http-equiv" not in answer.text


async def test_a_form_is_never_sent_again_unasked() -> None:
    app = make_blog()
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        body = await proof(client) + "post_id=x&title=T&content=C"
        await app.stop()
        answer = await client.post("/posts/edit", headers=FORM, content=body.encode())

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "http-equiv" not in answer.text
    assert "Go back in your browser" in answer.text


async def test_a_body_that_is_too_large_is_a_page() -> None:
    async with served_blog() as client:
        answer = await client.post("/posts/write", headers=FORM, content=b"content=" + b"x" * 2_000_000)

    assert (answer.status_code, answer.headers["content-type"]) == (413, "text/html; charset=utf-8")


async def test_a_text_that_is_too_long_is_refused_on_the_form() -> None:
    async with served_blog() as client:
        body = f"{await proof(client)}_key=k&title=T&content={'x' * (BODY_BYTES_MAX + 1)}"
        answer = await client.post("/posts/write", headers=FORM, content=body.encode())

    assert answer.status_code == 413
    assert "the limit is 524288" in answer.text
    assert "x" * (BODY_BYTES_MAX + 1) in answer.text


# Headers.


async def test_pages_have_a_policy_without_anything_inline_and_json_keeps_the_stricter_one() -> None:
    async with served_blog() as client:
        page = await client.get("/")
        document = await client.get("/queries/posts/list")
        problem_page = await client.get("/nowhere", headers=BROWSER)

    for answer in (page, problem_page):
        assert {name: answer.headers[name.decode()].encode() for name in PAGE_HEADERS} == PAGE_HEADERS
    assert {name: document.headers[name.decode()].encode() for name in SECURITY_HEADERS} == SECURITY_HEADERS
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none';")
    for needed in ("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert needed in policy
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on\w+=", page.text)


# What goes on behind the pages.


async def test_what_a_site_that_is_served_no_more_had_going_is_forgotten() -> None:
    app = make_blog()
    async with app.running("memory:"):
        await app.execute(CreatePost(post_id="1", title="T", content="C"))
        for _ in range(3):
            async with serving(app, port=0) as url, client_of(url) as client:
                assert (await client.get("/console")).status_code == 200
                assert (await client.get("/console/state?as_of=1")).status_code == 200
                assert len(app._beside) == 2, "its index and its past"
            assert len(app._beside) == 0
            site_app(app)
            assert len(app._beside) == 0, "nobody has looked at it yet"


async def test_what_a_mounted_site_has_going_ends_with_each_run_of_the_application() -> None:
    app = make_blog()
    site = site_app(app)
    for _ in range(2):
        async with app.running("memory:"):
            await app.execute(CreatePost(post_id="1", title="T", content="C"))
            for _ in range(2):
                assert (await ask(site, "GET", "", "/console"))[0] == 200
                assert (await ask(site, "GET", "", "/console/state?as_of=1"))[0] == 200
            assert "journeyman: console index" in {task.get_name() for task in asyncio.all_tasks()}
            assert len(app._beside) == 2
        assert "journeyman: console index" not in {task.get_name() for task in asyncio.all_tasks()}
        assert len(app._beside) == 0


# Under a prefix.


@pytest.mark.parametrize("root_path", ["", "/deep/inside"])
async def test_every_link_of_a_mounted_site_has_the_prefix(root_path: str) -> None:
    app = make_blog()
    site = site_app(app)
    async with app.running("memory:"):
        _, _, empty = await ask(site, "GET", root_path, "/posts/write")
        body = proof_in(empty) + "_key=k&title=T&content=C"
        written = await ask(site, "POST", root_path, "/posts/write", body.encode())
        pages = [
            await ask(site, "GET", root_path, path)
            for path in ("/", "/posts/read?post_id=k", "/posts/edit?post_id=k", "/nowhere")
        ]

    assert written[1][b"location"] == f"{root_path}/posts/read?post_id=k&at=1".encode()
    for _, _, body in pages:
        links = re.findall(r'(?:href|src|action|sse-connect)="([^"#][^"]*)"', body)
        assert links
        assert [link for link in links if not link.startswith(f"{root_path}/")] == []
        assert len([link for link in links if "/assets/" in link]) >= 4


async def ask(
    site: Any, method: str, root_path: str, target: str, body: bytes = b""
) -> tuple[int, dict[bytes, bytes], str]:
    """The answer to one request, by ASGI, of a site that is mounted at that path."""
    path, _, query = target.partition("?")
    headers = [(name.encode(), value.encode()) for name, value in FORM.items()]
    _, sent = await by_asgi(
        site, method, root_path + path, root_path=root_path, query=query.encode(), headers=headers, body=body
    )
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(event["body"] for event in sent[1:]).decode()


async def test_a_form_sent_twice_leads_to_the_same_place_which_shows_what_it_recorded() -> None:
    async with served_blog() as client:
        body = (await proof(client) + "_key=k&title=T&content=C").encode()
        written = await client.post("/posts/write", headers=FORM, content=body)
        assert written.status_code == 303
        again = await client.post("/posts/write", headers=FORM, content=body)
        shown = await client.get(written.headers["location"])

    assert again.headers["location"] == written.headers["location"] == "/posts/read?post_id=k&at=1"
    assert shown.status_code == 200


def test_importing_an_application_loads_no_web_framework() -> None:
    import subprocess
    import sys

    code = "import sys, journeyman.examples.blog.app; print('litestar' in sys.modules, 'jinja2' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told == "False False\n"
    assert make_app().pages == ()

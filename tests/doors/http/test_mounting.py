"""The door works inside a FastAPI and inside a Starlette application: docs/mounting.md is what runs here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi  # noqa: F401  # here, where it may take its time: the examples import it within a running loop
import httpx2
import pytest
import starlette.applications  # noqa: F401  # the same
import uvicorn

from journeyman.doors.serving import _Server
from tests.doors.http.shop import client_of, problem

DOCS = Path(__file__).parents[3] / "docs" / "mounting.md"
EXAMPLES = dict(re.findall(r"^## (\w+)\n+```python\n(.*?)```", DOCS.read_text(), re.MULTILINE | re.DOTALL))
POST = {"post_id": "1", "title": "A title", "content": "Some text."}


@asynccontextmanager
async def hosted(name: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the example's host, served with its lifespan."""
    module: dict[str, Any] = {"__name__": name}
    exec(compile(EXAMPLES[name], f"{DOCS.name}: {name}", "exec", dont_inherit=True), module)  # noqa: S102  # our own
    config = uvicorn.Config(
        module["host"], port=0, lifespan="on", log_config=None, log_level="warning", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await server.begun(task)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with client_of(f"http://localhost:{port}") as client:
            yield client
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("name", ["FastAPI", "Starlette"])
async def test_a_mounted_door_does_what_a_served_one_does(name: str) -> None:
    async with hosted(name) as client:
        created = await client.post("/journal/commands/posts/create", json=POST)
        found = await client.get("/journal/queries/posts/get?post_id=1")
        unknown = await client.post("/journal/commands/posts/craete", json=POST)
        nowhere = await client.get("/journal/nowhere")
        foreign = await client.get("/journal/log", headers={"host": "evil.example"})
        described = (await client.get("/journal/openapi.json")).json()
        async with client.stream("GET", "/journal/log/stream") as stream:
            assert await anext(stream.aiter_lines()) == "retry: 1000"

    assert created.status_code == 201, created.text
    assert found.json()["title"] == "A title"
    assert "posts/create" in problem(unknown, 404, "unknown-name")["detail"]
    problem(nowhere, 404, "unknown-path")
    problem(foreign, 421, "wrong-host")
    assert described["servers"] == [{"url": "/journal"}]


async def test_the_host_says_who_sends_a_command_and_uses_the_application_itself() -> None:
    async with hosted("FastAPI") as client:
        await client.post("/journal/commands/posts/create", json=POST)
        log = (await client.get("/journal/log")).json()
        title = (await client.get("/posts/1")).json()

    assert [entry["actor"] for entry in log if entry["name"] == "posts/create"] == ["user:nobody"]
    assert title == "A title"


@pytest.mark.parametrize(
    ("root_path", "path"),
    [("/c", "/c/commands"), ("/c", "/commands"), ("/commands", "/commands/commands"), ("", "/commands")],
)
async def test_the_path_is_found_whether_or_not_it_has_the_prefix(root_path: str, path: str) -> None:
    """ASGI says that it has; some hosts and proxies leave it out."""
    from journeyman.doors.http import http_app
    from tests.doors.http.shop import by_asgi, make_app

    _, sent = await by_asgi(http_app(make_app()), "GET", path, root_path=root_path)

    assert sent[0]["status"] == 200

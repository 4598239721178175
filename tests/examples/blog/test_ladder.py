"""The application on each rung of the ladder, by its URL alone; and its log, carried up all rungs and back down."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from journeyman import App
from journeyman.examples.blog.app import app as blog
from journeyman.examples.blog.posts import PostWorker, posts, summarizer_from_environment
from tests.examples.blog.test_demo import TIMEOUT_S
from tests.servers_nats import NatsServer, shared_server
from tests.servers_postgres import PostgresServer


@pytest.fixture(scope="module", autouse=True)
def server() -> NatsServer:
    """Started here, where no event loop waits."""
    return shared_server()


@pytest.fixture
def rungs(postgres_server: PostgresServer, tmp_path: Path) -> dict[str, str]:
    """A new store on each."""
    return {
        "sqlite": f"sqlite:///{tmp_path / 'first.db'}",
        "postgresql": postgres_server.url(),
        "nats": shared_server().url(f"ladder_{os.getpid()}_{tmp_path.name}"),
        "sqlite again": f"sqlite:///{tmp_path / 'last.db'}",
    }


def journeyman(store: str, *arguments: str) -> Any:
    finished = subprocess.run(
        [sys.executable, "-m", "journeyman", "--store", store, *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("rung", ["postgresql", "nats"])
def test_the_demo_runs_on_each_rung_and_again_without_doing_anything_twice(rung: str, rungs: dict[str, str]) -> None:
    first = journeyman(rungs[rung], "demo", "--exit")
    assert (first["imported"], first["done"], first["failed"], first["unanswered"]) == (120, 120, 0, 0)
    again = journeyman(rungs[rung], "demo", "--exit")
    assert (again["imported"], again["posts"], again["answers"]) == (0, 120, 120)


async def test_the_demos_log_is_carried_up_the_ladder_and_back_with_an_equal_state_at_each_stop(
    rungs: dict[str, str],
) -> None:
    stops = list(rungs.values())
    demo = await asyncio.to_thread(journeyman, stops[0], "demo", "--exit")
    digests = set()
    for source, target in pairwise(stops):
        copied = await asyncio.to_thread(journeyman, "memory:", "store", "copy", source, target)
        assert copied["messages"] == copied["copied"] >= demo["messages"]
        digests.add(copied["digest"])
    assert len(digests) == 1
    assert len({await state_hash(stop) for stop in stops}) == 1


async def test_the_application_goes_on_where_it_was_carried_to(rungs: dict[str, str]) -> None:
    """A post that was written on one rung and not summarised is summarised on the next."""
    post = {"post_id": "p", "title": "A title", "content": "One sentence. And another one about something else."}
    await asyncio.to_thread(journeyman, rungs["sqlite"], "execute", "posts/create", json.dumps(post))
    await asyncio.to_thread(journeyman, "memory:", "store", "copy", rungs["sqlite"], rungs["postgresql"])
    worker = PostWorker(summarizer_from_environment)
    async with App(features=[posts], workers=[worker]).running(rungs["postgresql"]) as app:
        async with asyncio.timeout(TIMEOUT_S):
            while not await app.store.log.read(0, 1, name="posts/set-generated-summary"):
                await app.store.log.wait(app.position, 1.0)


async def state_hash(url: str) -> str:
    async with blog.running(url, workers=False) as app:
        return await app.state_hash()

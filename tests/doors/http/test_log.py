"""The log can be read in pieces and followed as it grows, without a gap, and a stream never holds up the exit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from journeyman.doors.http import log
from journeyman.doors.serving import serving
from journeyman.doors.web import streams
from journeyman.message import Record
from tests.doors.http.shop import client_of, make_app, place, problem, shop


async def fill(client: httpx2.AsyncClient, count: int) -> None:
    await asyncio.gather(*(place(client, {"order_id": str(n), "number": n}) for n in range(count)))


async def events(client: httpx2.AsyncClient, path: str, **headers: str) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream: id, and data as JSON. Comments are left out."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("GET", path, headers=named) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, list[str]] = {}
        async for line in response.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields.setdefault(name, []).append(value)
            elif "data" in fields:
                yield {"id": int(fields["id"][0]), "data": json.loads("\n".join(fields["data"]))}
                fields = {}
            else:
                fields = {}


async def take(stream: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(30):
        return [await anext(stream) for _ in range(count)]


async def test_the_log_is_read_in_pieces_and_each_message_is_whole() -> None:
    async with shop() as client:
        await fill(client, 5)
        first = (await client.get("/log?limit=3")).json()
        rest = await client.get(f"/log?after={first[-1]['position']}&limit=1000")

    assert [entry["position"] for entry in [*first, *rest.json()]] == [1, 2, 3, 4, 5]
    assert rest.headers["journeyman-position"] == "5"
    entry = first[0]
    assert list(entry) == [
        "position",
        "id",
        "name",
        "version",
        "subject",
        "body",
        "recorded_at",
        "correlation_id",
        "causation_id",
        "actor",
    ]
    assert entry["body"]["order_id"] == entry["subject"]
    assert datetime.fromisoformat(entry["recorded_at"]).utcoffset() == timedelta(0)


async def test_an_answer_is_bounded_by_bytes_but_never_empty_while_there_is_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log, "ANSWER_BYTES_MAX", 1)
    monkeypatch.setattr(log, "READ_LIMIT", 2)
    async with shop() as client:
        await fill(client, 5)
        sizes = []
        after = 0
        while entries := (await client.get(f"/log?after={after}")).json():
            sizes.append(len(entries))
            after = entries[-1]["position"]

    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("query_string", "pointers"),
    [
        ("after=-1&limit=0", ["/after", "/limit"]),
        ("limit=1001", ["/limit"]),
        ("after=x", ["/after"]),
        (f"after={2**63}", ["/after"]),
        ("before=1", ["/before"]),
    ],
)
async def test_a_wrong_range_is_a_422(query_string: str, pointers: list[str]) -> None:
    async with shop() as client:
        document = problem(await client.get(f"/log?{query_string}"), 422, "invalid")

    assert [error["pointer"] for error in document["errors"]] == pointers


def test_a_body_that_is_no_json_is_shown_as_a_text() -> None:
    record = Record(1, "id", "a/b", 1, None, b'{"a": \xff', 0, "id")

    assert bytes(log.entry_of(record).body) == '"{\\"a\\": \ufffd"'.encode()
    assert log.entry_of(record).recorded_at.isoformat() == "1970-01-01T00:00:00+00:00"


async def test_a_stream_has_what_is_there_and_then_what_comes() -> None:
    async with shop() as client:
        await fill(client, 3)
        async with aclosing(events(client, "/log/stream")) as stream:  # type: ignore[type-var]
            before = await take(stream, 3)
            await place(client, {"order_id": "new", "number": 7})
            after = await take(stream, 1)
        logged = (await client.get("/log")).json()

    assert [event["id"] for event in before + after] == [1, 2, 3, 4]
    assert [event["data"] for event in before + after] == logged


async def test_a_stream_resumes_behind_the_last_event_whatever_its_path_says() -> None:
    async with shop() as client:
        await fill(client, 5)
        async with aclosing(events(client, "/log/stream?after=3")) as stream:  # type: ignore[type-var]
            assert [event["id"] for event in await take(stream, 2)] == [4, 5]
        async with aclosing(events(client, "/log/stream?after=0", last_event_id="4")) as stream:  # type: ignore[type-var]
            assert [event["id"] for event in await take(stream, 1)] == [5]
        problem(await client.get("/log/stream", headers={"last-event-id": "x"}), 400, "bad-header")


async def test_a_stream_says_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(streams, "WAIT_S", 0.05)
    async with shop() as client, client.stream("GET", "/log/stream") as response:
        lines = response.aiter_lines()
        async with asyncio.timeout(30):
            while not (await anext(lines)).startswith(": "):
                pass


async def test_too_many_streams_are_a_503_and_a_closed_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 1)
    async with shop() as client:
        async with client.stream("GET", "/log/stream") as response:
            await anext(response.aiter_lines())
            refused = await client.get("/log/stream")
        problem(refused, 503, "busy")
        async with asyncio.timeout(30):
            while True:
                async with client.stream("GET", "/log/stream") as response:
                    if response.status_code == 200:
                        break


async def test_open_streams_do_not_hold_up_the_exit_and_end_cleanly() -> None:
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(make_app().running("memory:"))
        async with serving(app, port=0) as url:
            client = await stack.enter_async_context(client_of(url))
            streams = []
            for _ in range(5):
                response = await stack.enter_async_context(client.stream("GET", "/log/stream"))
                streams.append(response.aiter_lines())
                assert await anext(streams[-1]) == "retry: 1000"
            started = time.monotonic()
        assert time.monotonic() - started < 2
        assert [[line async for line in stream] for stream in streams] == [[""]] * 5


async def test_streams_end_when_the_application_stops_before_the_server() -> None:
    app = make_app()
    await app.start("memory:")
    async with serving(app, port=0) as url, client_of(url) as client:
        async with client.stream("GET", "/log/stream") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "retry: 1000"
            await app.stop()
            async with asyncio.timeout(5):
                assert [line async for line in lines] == [""]
        problem(await client.get("/log/stream"), 503, "not-running")

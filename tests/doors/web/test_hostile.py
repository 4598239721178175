"""Whatever hostile clients send has its one answer, records nothing that it should not, and the server lives on."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from journeyman import App, Attempt, Command
from journeyman.doors import serving as server
from journeyman.doors.serving import serving
from journeyman.doors.web import bodies, protocol
from tests.doors.http.shop import SECRET, client_of, make_app
from tests.doors.web.hostile import GROUPS, TOUCH, Case, post, request
from tests.todo.desk import Answer, Ask, answered, make, running, until

DOCS = (Path(__file__).parents[3] / "docs/security.md").read_text()


@pytest.mark.parametrize("group", GROUPS)
async def test_each_has_its_answer(group: str) -> None:
    app, cases = make_app(), list(GROUPS[group]())
    assert len({case.name for case in cases}) == len(cases)
    async with app.running("memory:"), serving(app, port=0) as url, client_of(url) as client:
        told = [(case.name, await wrong_with(case, app, url, client)) for case in cases]
    wrong = [f"{name}: {what}" for name, what in told if what]
    assert not wrong, "\n" + "\n".join(wrong)


async def wrong_with(case: Case, app: App, url: str, client: httpx2.AsyncClient) -> str:
    """What is not as it must be; empty when all is."""
    before = app.position
    answer = await asyncio.to_thread(exchange, url, case.data)
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0
    kinds = re.findall(r"urn:problem-type:journeyman:([a-z-]+)", body.decode(errors="replace"))
    if (status, "".join(kinds) if b"problem+json" in head else "") != (case.status, case.kind):
        return f"{status} {kinds} instead of {case.status} {case.kind!r}: {answer[:300]!r}"
    if leaks := [leak for leak in LEAKS if leak in answer]:
        return f"{leaks} are told: {answer[:300]!r}"
    if b"\r\nset-cookie" in head.lower() or b"access-control" in head.lower():
        return f"a header that nobody set: {head!r}"
    if (recorded := app.position - before) != case.recorded:
        return f"{recorded} messages were recorded instead of {case.recorded}"
    if recorded:
        await forget(app)
    alive = await client.get("/health/live")
    return "" if alive.status_code == 200 else f"the server answers {alive.status_code} from then on"


#: What no answer may hold.
LEAKS = (SECRET.encode(), b"Traceback", b"journeyman/doors", b'.py"')


def exchange(url: str, data: bytes) -> bytes:
    """Bytes over a connection of their own, as far as the server takes them, and all that comes back."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    received = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection, suppress(ConnectionError):
        with suppress(ConnectionError):
            connection.sendall(data)
        while part := connection.recv(65536):
            received += part
    return received


async def forget(app: App) -> None:
    """Let the next order have the same name: the state is made anew."""
    await app.stop()
    await app.start("memory:")


# Those who take their time.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_PATIENCE_S", {"head": 0.3, "body": 0.3})


@pytest.mark.usefixtures("impatient")
async def test_a_head_that_does_not_come_is_not_waited_for() -> None:
    async with running_shop() as url:
        assert await asyncio.to_thread(exchange, url, b"") == b""
        answer = await asyncio.to_thread(exchange, url, b"GET /log HTTP/1.1\r\nHost: ")
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.usefixtures("impatient")
async def test_a_head_that_drips_is_not_waited_for_either() -> None:
    async with running_shop() as url:
        reader, writer = await connect(url)
        with suppress(ConnectionError):
            for byte in b"GET /log HTTP/1.1\r\nX: " + b"a" * 200:
                writer.write(bytes([byte]))
                await writer.drain()
                if reader.at_eof() or writer.is_closing():
                    break
                await asyncio.sleep(0.01)
        assert writer.is_closing() or reader.at_eof()
        writer.close()


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_nobody_reads_is_not_waited_for() -> None:
    async with running_shop() as url:
        head = b"GET /log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        answer = await asyncio.to_thread(exchange, url, head + b"{")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_body_that_does_not_come_is_a_408_and_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S_MAX", 0.2)
    app = make_app()
    async with app.running("memory:"), serving(app, port=0) as url:
        answer = await asyncio.to_thread(exchange, url, post(b"{", TOUCH, raw=b"Content-Length: 2\r\n", length=False))
        assert app.position == 0
    assert b"body-timeout" in answer


@pytest.mark.usefixtures("impatient")
async def test_whoever_sends_in_time_is_not_cut_off_while_the_answer_goes_on() -> None:
    """A stream outlives every patience: it is the server that sends."""
    async with running_shop() as url, client_of(url) as client, client.stream("GET", "/log/stream") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == "retry: 1000"
        for _ in range(3):
            await asyncio.sleep(0.2)
            assert (await client.post(TOUCH, json={})).status_code == 201
        seen = [line async for line in _first(lines, 3)]
    assert [line.partition(" ")[2] for line in seen] == ["1", "2", "3"]


async def _first(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("id: "):
            yield line
            count -= 1
            if not count:
                return


async def test_whoever_takes_nothing_of_the_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_S_MAX", 1)
    async with running_shop() as url, client_of(url) as client:
        for number in range(16):
            large = {"order_id": str(number), "number": 1, "extra": {"x": "a" * 500_000}}
            assert (await client.post("/commands/shop/place", json=large)).status_code == 201
        reader, writer = await connect(url, limit=1)
        writer.write(request("/log?limit=1000"))
        await reader.read(1)
        with pytest.raises(ConnectionError):
            await write_on(writer)
        writer.close()


async def write_on(writer: asyncio.StreamWriter) -> None:
    """Write until the connection is found broken."""
    async with asyncio.timeout(20):
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)


async def test_connections_beyond_the_limit_are_told_or_closed_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 5)
    monkeypatch.setattr(protocol, "OVER_LIMIT_MAX", 2)
    async with running_shop() as url:
        idle = [await connect(url) for _ in range(4)]
        assert b" 503 " in await asyncio.to_thread(exchange, url, request())
        idle += [await connect(url) for _ in range(3)]
        assert await asyncio.to_thread(exchange, url, request()) == b""
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        async with client_of(url) as client:
            assert (await client.get("/log")).status_code == 200


@asynccontextmanager
async def running_shop() -> AsyncIterator[str]:
    app = make_app()
    async with app.running("memory:"), serving(app, port=0) as url:
        yield url


async def connect(url: str, *, limit: int = 65536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, limit=limit)


# What people and models write.

TEXTS = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "]]>--></style></textarea>{{ 7*7 }}{% raw %}${7*7}",
    "\u202egnp.exe \u2066\u2067\u2069\u200f\u061c",
    "\x1b[2J\x1b]0;title\x07\b\b\b\r\ndata: forged\n\nid: 99\n\n",
    "\0\x01\x7f\x85\u2028\u2029\ufeff\ufffe\uffff",
    "Z\u0351\u0300" * 500,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0010ffff",
    "'; DROP TABLE messages; --\\",
    "=cmd|' /C calc'!A0",
)


async def test_what_people_and_models_write_comes_back_as_it_was_and_as_nothing_but_text() -> None:
    async def perform(attempt: Attempt[Ask]) -> Command:
        return Answer(key=attempt.id, text=TEXTS[int(attempt.id)])

    keys = [str(number) for number in range(len(TEXTS))]
    async with running(make(perform)) as app, serving(app, port=0) as url, client_of(url) as client:
        for key, text in zip(keys, TEXTS, strict=True):
            assert (await client.post("/commands/desk/note", json={"text": text[:100]})).status_code in (201, 422)
            assert (await client.post("/commands/desk/ask", json={"key": key})).status_code == 201
        await until(app, answered(*keys))
        log = await client.get("/log")
        async with client.stream("GET", "/log/stream") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            events = [line async for line in _first(stream.aiter_lines(), len(log.json()))]

    assert log.headers["content-type"] == "application/json"
    assert log.headers["x-content-type-options"] == "nosniff"
    told = {entry["body"]["key"]: entry["body"]["text"] for entry in log.json() if entry["name"] == "desk/answer"}
    assert [told[key] for key in keys] == list(TEXTS)
    assert events == [f"id: {position}" for position in range(1, len(events) + 1)], "no text made an event of its own"


def test_the_documents_count_is_the_true_one() -> None:
    counted = {group: sum(1 for _ in cases()) for group, cases in GROUPS.items()}
    told = {name: int(number) for name, number in re.findall(r"^\| ([\w ,]+) \| (\d+) \|", DOCS, re.MULTILINE)}
    assert told == counted | {"all": sum(counted.values())}

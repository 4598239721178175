"""No page on the web can reach the door through somebody's browser, and no answer invites a browser to misuse it."""

from __future__ import annotations

import pytest

from journeyman.doors.web.guard import host_of
from journeyman.doors.web.protocol import HEAD_BYTES_MAX
from tests.doors.http.shop import JSON, place, problem, raw, shop

GOOD = {"order_id": "a", "number": 1}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "[::2]", ""]
)
async def test_a_foreign_host_is_refused_whatever_is_asked(host: str) -> None:
    async with shop() as client:
        for path in ("/log", "/health/live", "/no/such/path"):
            problem(await client.get(path, headers={"host": host}), 421, "wrong-host")
        problem(await place(client, GOOD, host=host), 421, "wrong-host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:65535", "[::1]:80", "[::1]"])
async def test_the_port_of_the_host_does_not_matter(host: str) -> None:
    async with shop() as client:
        assert (await client.get("/health/live", headers={"host": host})).status_code == 200


async def test_a_request_without_a_host_is_refused() -> None:
    async with shop() as client:
        answer = await raw(str(client.base_url), b"GET /log HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"bad-header" in answer


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_another_sites_page_can_not_send_a_command(headers: dict[str, str]) -> None:
    async with shop() as client:
        response = await client.post("/commands/shop/place", json=GOOD, headers=headers)
        log = (await client.get("/log", headers=headers)).json()

    problem(response, 403, "foreign-origin")
    assert log == []


async def test_a_page_of_the_same_origin_can() -> None:
    async with shop() as client:
        origin = str(client.base_url).rstrip("/")
        headers = {"origin": origin, "sec-fetch-site": "same-origin"}
        assert (await client.post("/commands/shop/place", json=GOOD, headers=headers)).status_code == 201
        typed = {"sec-fetch-site": "none"}
        assert (await client.post("/commands/shop/touch", json={}, headers=typed)).status_code == 201


async def test_every_answer_carries_the_security_headers() -> None:
    async with shop() as client:
        answers = [
            await client.get("/log"),
            await client.get("/no/such/path"),
            await client.get("/log", headers={"host": "evil.example"}),
            await place(client, GOOD),
        ]

    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/commands/shop/x%0d%0aSet-Cookie:%20a=1", "/queries/shop/get?order_id=%0d%0aSet-Cookie:%20a=1", "/%0d%0aX: 1"],
)
async def test_a_line_break_in_a_path_makes_no_header(path: str) -> None:
    async with shop() as client:
        response = await client.get(path)

    assert response.status_code == 404
    assert "set-cookie" not in response.headers
    assert "x" not in response.headers


@pytest.mark.parametrize(
    "head",
    [
        b"GET /log HTTP/1.1\r\nHost: localhost\r\nX\x00Y: 1\r\n\r\n",
        b"GET /log HTTP/1.1\r\nHost: localhost\r\n : folded\r\n\r\n",
        b"GET /l\xffog HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /commands/shop/touch HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
)
async def test_what_is_not_http_is_a_400_and_the_connection_is_closed(head: bytes) -> None:
    async with shop() as client:
        answer = await raw(str(client.base_url), head)
        assert (await client.get("/log")).json() == []

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"Traceback" not in answer


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
async def test_a_head_without_end_is_refused(start: bytes) -> None:
    async with shop() as client:
        # Not a byte more than it takes: what the server leaves unread would make the system drop its answer.
        answer = await raw(str(client.base_url), start + b"x" * (HEAD_BYTES_MAX + 1 - len(start)))

    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_trailer_is_no_header() -> None:
    head = b"POST /commands/shop/touch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    body = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n"
    async with shop() as client:
        answer = await raw(str(client.base_url), head + body + b"Host: evil.example\r\nIdempotency-Key: k\r\n\r\n")
        again = await client.post("/commands/shop/touch", json={}, headers={"idempotency-key": "k"})

    assert answer.startswith(b"HTTP/1.1 201 ")
    assert again.status_code == 201
    assert "idempotent-replayed" not in again.headers, "the key in the trailer was not taken"


async def test_many_headers_of_one_name_are_refused() -> None:
    async with shop() as client:
        headers = [*JSON.items(), ("content-type", "text/plain")]
        problem(await client.post("/commands/shop/place", json=GOOD, headers=headers), 400, "bad-header")
        twice = b"GET /log HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert b"bad-header" in await raw(str(client.base_url), twice)


@pytest.mark.parametrize(
    ("authority", "host"), [("A:1", "a"), ("[::1]:1", "::1"), ("a", "a"), ("", ""), ("[::1", "::1"), ("a:b:c", "a")]
)
def test_the_host_of_an_authority(authority: str, host: str) -> None:
    assert host_of(authority) == host

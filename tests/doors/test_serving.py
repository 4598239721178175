"""The server begins or says why not, serves loopback only, and leaves signals to its caller."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from journeyman import DefinitionError, JourneymanError
from journeyman.doors import serving as server
from journeyman.doors.serving import serving
from tests.doors.http.shop import client_of, make_app, raw


async def test_a_free_port_is_taken_and_told() -> None:
    app = make_app()
    async with app.running("memory:"):
        async with serving(app, port=0) as url, client_of(url) as client:
            assert url.startswith("http://127.0.0.1:")
            assert (await client.get("/health/live")).json() == {"status": "live"}
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await raw(url, b"")


@pytest.mark.parametrize("host", ["::1", "[::1]", "localhost", "127.0.0.2"])
async def test_other_loopback_addresses_can_be_had(host: str) -> None:
    app = make_app()
    async with app.running("memory:"), serving(app, host=host, port=0) as url, client_of(url) as client:
        assert (await client.get("/health/live")).status_code == 200


async def test_a_taken_port_is_told_with_what_to_change() -> None:
    app = make_app()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with app.running("memory:"):
            with pytest.raises(JourneymanError, match=rf"Port {port} of 127.0.0.1 .*in use.*--port"):
                async with serving(app, port=port):
                    pass


@pytest.mark.parametrize("port", [-1, 65536])
async def test_an_impossible_port_is_told(port: int) -> None:
    with pytest.raises(JourneymanError, match="0 to 65535"):
        async with serving(make_app(), port=port):
            pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104  # refused
async def test_an_address_that_others_can_reach_is_refused(host: str) -> None:
    with pytest.raises(DefinitionError, match=r"journeyman token.*127\.0\.0\.1"):
        async with serving(make_app(), host=host):
            pass


@pytest.mark.parametrize("host", ["example.com", "", "127.0.0.1:80"])
async def test_what_is_no_address_is_told(host: str) -> None:
    with pytest.raises(DefinitionError, match=r"no address of this machine"):
        async with serving(make_app(), host=host):
            pass


async def test_signals_stay_the_callers() -> None:
    app = make_app()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    async with app.running("memory:"), serving(app, port=0):
        during = {number: signal.getsignal(number) for number in before}

    assert during == before


async def test_an_error_inside_the_block_ends_the_server_too() -> None:
    app = make_app()
    async with app.running("memory:"):
        with pytest.raises(RuntimeError, match="mine"):
            async with serving(app, port=0) as url:
                raise RuntimeError("mine")
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await raw(url, b"")


async def test_a_client_that_sends_no_end_does_not_hold_up_the_exit() -> None:
    app = make_app()
    async with app.running("memory:"):
        async with serving(app, port=0) as url:
            head = b"POST /commands/shop/touch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            half = asyncio.create_task(raw(url, head + b"Content-Length: 2\r\n\r\n{"))
            async with client_of(url) as client:
                assert (await client.get("/health/live")).status_code == 200
        async with asyncio.timeout(5):
            assert b"201" not in await half


async def test_many_requests_on_one_connection_are_answered_in_order() -> None:
    app = make_app()
    async with app.running("memory:"), serving(app, port=0) as url:
        one = (
            b"POST /commands/shop/touch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )
        last = b"GET /log?limit=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = await raw(url, one * 20 + last)

    assert answer.count(b"HTTP/1.1 201 ") == 20
    positions = [answer.index(b'{"position":%d,' % n) for n in range(1, 21)]
    assert positions == sorted(positions)


def test_answers_do_not_wait_for_an_acknowledgement() -> None:
    """asyncio sets TCP_NODELAY on the connections of a socket only if that names its protocol."""
    with server._listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP

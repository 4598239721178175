"""Serving an application on uvicorn, inside the running event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from typing import Final

import uvicorn

from journeyman.app import App
from journeyman.doors.site import build
from journeyman.doors.web.guard import LOOPBACK_HOSTS
from journeyman.doors.web.protocol import BoundedProtocol
from journeyman.doors.web.streams import Streams
from journeyman.errors import DefinitionError, JourneymanError

#: How long answers under way may take to end at the exit, in seconds; then their connections are closed.
GRACE_S: Final = 2

#: How many connections may be open at a time.
CONNECTIONS_MAX: Final = 1000

#: How many connections may wait to be taken.
BACKLOG: Final = 2048


@asynccontextmanager
async def serving(app: App, *, host: str = "127.0.0.1", port: int = 8000) -> AsyncIterator[str]:
    """Serve an application that runs already; yields the URL. Signals are left to the caller.

    Args:
        host: an address of this machine's loopback interface. Nothing asks clients who they are, so far.
        port: 0 takes a free one.

    Raises:
        DefinitionError: the host is not a loopback address.
        JourneymanError: the port can't be had.
    """
    address, streams = _loopback(host), Streams()
    site = build(app, streams=streams, allowed_hosts=(*LOOPBACK_HOSTS, host))
    listening = _listen(address, port)
    server = _Server(
        uvicorn.Config(
            site,
            http=BoundedProtocol,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[listening]), name="journeyman: HTTP server")
    try:
        await server.begun(task)
        yield _url(listening)
    finally:
        streams.end()
        server.should_exit = True
        try:
            await task
        finally:
            await streams.ended()


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers, and telling when it has begun."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._begun = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun.set()

    async def begun(self, task: asyncio.Task[None]) -> None:
        """Return when connections are taken; raise what the server's task raised, if it can't."""
        waiting = asyncio.ensure_future(self._begun.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await task


def _loopback(host: str) -> str:
    """The address to listen at."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        loopback = ip_address(host.strip("[]")).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise DefinitionError(
            f"{host} is not this machine's own address, and nothing asks clients who they are yet: use 127.0.0.1, "
            "with a proxy in front that does, or mount the door into an application that does."
        )
    return host.strip("[]")


def _listen(address: str, port: int) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY on connections of such sockets only: without it, each
    # answer, which is sent in two parts, waits 40 ms for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        why = error.strerror if isinstance(error, OSError) else "it must be 0 to 65535"
        raise JourneymanError(
            f"Port {port} of {address} can't be had: {why}. Choose another with --port; 0 takes a free one."
        ) from error
    return listening


def _url(listening: socket.socket) -> str:
    address, port = listening.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

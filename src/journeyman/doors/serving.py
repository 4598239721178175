"""Serving an application on uvicorn, inside the running event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import uvicorn

from journeyman.app import App
from journeyman.doors.site import build
from journeyman.doors.web.admission import Admission, ByToken, Local
from journeyman.doors.web.guard import LOOPBACK_HOSTS
from journeyman.doors.web.protocol import BoundedProtocol
from journeyman.doors.web.sign_in import SignIn
from journeyman.doors.web.streams import Streams
from journeyman.doors.web.tokens import OPERATOR_VARIABLE, Tokens, read_tokens
from journeyman.errors import DefinitionError, JourneymanError

Address = IPv4Address | IPv6Address

#: How long answers under way may take to end at the exit, in seconds; then their connections are closed.
GRACE_S: Final = 2

#: How many connections may be open at a time.
CONNECTIONS_MAX: Final = 1000

#: How long a client may take nothing of its answer, in seconds; then the connection is closed.
UNREAD_S_MAX: Final = 30

#: How many connections may wait to be taken.
BACKLOG: Final = 2048


@asynccontextmanager
async def serving(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_hosts: Sequence[str] = (),
    tokens: Tokens | None = None,
) -> AsyncIterator[str]:
    """Serve an application that runs already; yields the URL. Signals are left to the caller.

    Without tokens it serves this machine only, and takes whoever asks for its operator.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        allowed_hosts: the names, without port, that clients ask for, besides the address and this machine's own names.
        tokens: who may look, and who may act; those of the environment for None.

    Raises:
        DefinitionError: others than this machine could ask, and there are no tokens; or nothing says for which names.
        JourneymanError: the port can't be had.
    """
    tokens = read_tokens(os.environ) if tokens is None else tokens
    address = _address(host)
    hosts = _hosts(address, allowed_hosts, tokens)
    admission, sign_in = _admission(app, tokens)
    streams = Streams()
    site = build(app, streams=streams, allowed_hosts=hosts, admission=admission, sign_in=sign_in)
    listening = _listen(str(address), port)
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


def _address(host: str) -> Address:
    """The address to listen at."""
    if host == "localhost":
        return ip_address("127.0.0.1")
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        raise DefinitionError(f"{host!r} is no address of this machine: say 127.0.0.1, or 0.0.0.0 for all.") from None


def _hosts(address: Address, allowed_hosts: Sequence[str], tokens: Tokens) -> tuple[str, ...]:
    """The names that clients may ask for.

    Raises:
        DefinitionError: others than this machine could ask, and there are no tokens; or no name is said.
    """
    foreign = [name for name in allowed_hosts if name not in LOOPBACK_HOSTS]
    if not tokens and (foreign or not address.is_loopback):
        raise DefinitionError(
            f"Others could ask for {foreign[0] if foreign else address}, and nothing would ask who they are. Make a "
            f"token with `journeyman token`, and set {OPERATOR_VARIABLE} to it; or serve this machine only: 127.0.0.1."
        )
    if address.is_unspecified and not foreign:
        raise DefinitionError(
            f"Say for which name clients ask, when the server listens at {address}: --allowed-host NAME. Without that, "
            "a page on the web could reach it through somebody's browser, under a name of its own."
        )
    return *LOOPBACK_HOSTS, str(address), *allowed_hosts


def _admission(app: App, tokens: Tokens) -> tuple[Admission, SignIn | None]:
    """Who is let in, and where browsers sign in."""
    if not tokens:
        return Local(keys=lambda: app.store.keys), None
    by_token = ByToken(tokens, keys=lambda: app.store.keys)
    return by_token, SignIn(by_token)


def _listen(address: str, port: int) -> socket.socket:
    # The protocol is named because asyncio sets TCP_NODELAY on connections of such sockets only: without it, each
    # answer, which is sent in two parts, waits 40 ms for the client's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; its connections inherit it.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_S_MAX * 1000)
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

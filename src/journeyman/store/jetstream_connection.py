"""A connection to one of the servers, made again with backoff whenever it is lost.

The driver's own reconnecting is off: it keeps what was not sent for the next connection, where it would arrive long
after its caller was told that it timed out. Here a lost connection is gone, with everything that was on its way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Final

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from journeyman.errors import NotReady, TooLarge
from journeyman.message import BODY_BYTES_MAX
from journeyman.retry import draw_pause_s
from journeyman.store.jetstream_address import Address
from journeyman.store.jetstream_reply import PASSING, Nobody, NoReply, Refused, Reply, answer_of, status_of

#: How long connecting to one server may take, in seconds.
CONNECT_S: Final = 1.5

#: How long a call waits for a connection that is being made, in seconds.
CONNECTED_S: Final = 3.0

#: The pauses between rounds of trying all servers, in seconds.
PAUSE_FIRST_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0

#: How often a server is asked for a sign of life, in seconds, and how many may be missing: one that was stopped, or is
#: cut off without a word, is left after about so many pings.
PING_S: Final = 1.0
PINGS_MISSING_MAX: Final = 3

#: How long one reply may take, in seconds.
REPLY_S: Final = 2.0

#: How long closing a connection may take, in seconds: what waits in it goes nowhere if the server takes nothing.
CLOSE_S: Final = 1.0

#: The oldest server that has atomic batches.
VERSION_MIN: Final = (2, 12)

#: What a message may have beside its body, in bytes: the envelope and the headers.
ENVELOPE_BYTES_MAX: Final = 64 * 1024

#: How long one connection's requests may find no leader, in seconds, until another server is tried.
LEADERLESS_S: Final = 1.0

#: A subject, a content, and headers.
Outgoing = tuple[str, bytes, dict[str, str] | None]

Listener = Callable[[Msg], Awaitable[None]]


class Connection:
    """Requests to whichever of the servers answers. One event loop's own."""

    def __init__(self, address: Address) -> None:
        self._address = address
        #: Those that failed last come last.
        self._hosts = random.sample(address.hosts, len(address.hosts))
        self._client: Client | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._listeners: dict[str, Listener] = {}
        self._replies: dict[str, Reply] = {}
        self._inbox = ""
        self._numbers = count(1)
        self._failure: BaseException | str = "no server was tried yet"
        self._closed = False
        self._without_leader_since: float | None = None
        #: How many connections were made: what one has been told over an older one may be out of date.
        self.made = 0

    async def open(self) -> None:
        """Connect to one of the servers, trying each once.

        Raises:
            NotReady: none can be reached, or takes this login.
        """
        if not await self._try_all():
            raise self._unreachable()

    async def close(self) -> None:
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait({self._connecting})
        self.drop()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def drop(self, only: Client | None = None) -> None:
        """Give up this connection: it may be to a server that hangs. The next call makes another, to another server.

        Nothing happens if it is not the `only` one that is meant any more.
        """
        if only is not None and only is not self._client:
            return
        client, self._client = self._client, None
        self._fail_replies("the connection was given up")
        if client is not None:
            self._leave(client)

    async def listen(self, subject: str, listener: Listener) -> None:
        """Have the listener told of what is published to the subject, over this connection and all later ones."""
        self._listeners[subject] = listener
        client = self._client
        if client is not None and client.is_connected:
            await client.subscribe(subject, cb=listener)
        else:
            await self._connected()

    def ignore(self, subject: str) -> None:
        """Have nobody told of that subject over later connections."""
        self._listeners.pop(subject, None)

    # Asking.

    async def ask(self, what: str, request: object = None, *, timeout_s: float = REPLY_S) -> Any:
        """What JetStream's own interface answers, as decoded JSON.

        Raises:
            NotReady: nobody is there to answer.
            NoReply: perhaps done.
            Refused: the answer is an error.
        """
        data = b"" if request is None else msgspec.json.encode(request)
        return await self.publish([(f"$JS.API.{what}", data, None)], timeout_s=timeout_s)

    async def publish(self, messages: Sequence[Outgoing], *, timeout_s: float = REPLY_S) -> Any:
        """Publish the messages one after the other; what the stream's leader answers to the last, as decoded JSON.

        Raises:
            NotReady: nobody is there to answer: surely the last one did not arrive.
            NoReply: perhaps it did.
            Refused: the answer is an error.
        """
        client = await self._connected()
        with self._answered_by_leader(client), self._expecting() as reply:
            for subject, data, headers in messages[:-1]:
                await _publish(client, subject, data, headers, "")
            await _publish(client, *messages[-1], reply.inbox)
            return answer_of(await reply.last(timeout_s))

    @contextmanager
    def _answered_by_leader(self, client: Client) -> Iterator[None]:
        """A server that brings no request to a leader may be cut off from it, where another server is not."""
        try:
            yield
        except NoReply:
            # What is on its way must not stay in this connection, either.
            self.drop(client)
            raise
        except Nobody:
            self._leave_later(client)
            raise
        except Refused as refused:
            if refused.code in PASSING:
                self._leave_later(client)
            raise
        self._without_leader_since = None

    def _leave_later(self, client: Client) -> None:
        """Not at once: while a leader is chosen, it is the same everywhere."""
        now = asyncio.get_running_loop().time()
        if self._without_leader_since is None:
            self._without_leader_since = now
        elif now - self._without_leader_since > LEADERLESS_S:
            self._without_leader_since = None
            self.drop(client)

    async def call(self, subject: str, *, timeout_s: float) -> None:
        """Return when who listens to the subject has answered.

        Raises:
            Nobody: nobody listens.
            NotReady: there is no connection.
            NoReply: somebody listens, and did not answer.
        """
        client = await self._connected()
        with self._expecting() as reply:
            await _publish(client, subject, b"", None, reply.inbox)
            await reply.last(timeout_s)

    async def request_many(self, subject: str, data: bytes, *, idle_s: float = REPLY_S) -> tuple[list[bytes], str]:
        """The contents of all replies to one message, up to the one that has a status; and that status.

        Raises:
            NotReady: nobody is there to answer.
            NoReply: for `idle_s`, none of them came.
        """
        client = await self._connected()
        with self._expecting(many=True) as reply:
            await _publish(client, subject, data, None, reply.inbox)
            last = await reply.last_of_many(idle_s)
        return reply.contents, status_of(last) or ""

    async def tell(self, subject: str, data: bytes) -> None:
        """Publish a message that nobody has to receive. Nothing happens where there is no connection now."""
        client = self._client
        if client is not None and client.is_connected:
            with suppress(NotReady):
                await _publish(client, subject, data, None, "")

    @contextmanager
    def _expecting(self, *, many: bool = False) -> Iterator[Reply]:
        reply = Reply(f"{self._inbox}.{next(self._numbers)}", many=many)
        self._replies[reply.inbox] = reply
        try:
            yield reply
        finally:
            del self._replies[reply.inbox]
            reply.forget()

    async def _on_reply(self, message: Msg) -> None:
        reply = self._replies.get(message.subject)
        if reply is not None:
            reply.take(message)

    def _fail_replies(self, why: str) -> None:
        for reply in self._replies.values():
            reply.fail(why)

    # Connecting.

    async def _connected(self) -> Client:
        if self._client is not None and self._client.is_connected:
            return self._client
        if self._closed:
            raise NotReady("The store is closed. Open it again.")
        connecting = self._connecting
        if connecting is None or connecting.done():
            connecting = self._connecting = asyncio.create_task(self._connect(), name="journeyman: connecting to NATS")
        await asyncio.wait({connecting}, timeout=CONNECTED_S)
        if self._client is None or not self._client.is_connected:
            raise self._unreachable()
        return self._client

    async def _connect(self) -> None:
        """Try all servers until there is a connection, or the store is closed; also while nobody waits."""
        for tries in count(1):
            if await self._try_all():
                return
            await asyncio.sleep(draw_pause_s(PAUSE_FIRST_S, 2.0, PAUSE_MAX_S, tries, random.uniform))

    async def _try_all(self) -> bool:
        for host in list(self._hosts):
            try:
                self._use_last(host)
                self._client = await self._connect_to(host)
            except Exception as error:  # noqa: BLE001  # whatever the driver meets, another server may do better
                self._failure = error
            else:
                self.made += 1
                return True
        return False

    def _use_last(self, host: str) -> None:
        """Try that server again only after all others: it may hang."""
        self._hosts.remove(host)
        self._hosts.append(host)

    async def _connect_to(self, host: str) -> Client:
        client = _Client() if self._address.tls.required else Client()
        options = self._address.connect_options()

        async def lost() -> None:
            self._lose(client)

        try:
            async with asyncio.timeout(2 * CONNECT_S):
                await client.connect(
                    [f"nats://{host}"],
                    name=f"journeyman {self._address.name}",
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=CONNECT_S,  # type: ignore[arg-type]  # it is only ever slept and waited for
                    ping_interval=PING_S,  # type: ignore[arg-type]
                    max_outstanding_pings=PINGS_MISSING_MAX,
                    no_echo=True,
                    pending_size=0,
                    error_cb=self._note,
                    closed_cb=lost,
                    **options,
                )
                _check_server(client)
                self._learn_hosts(client)
                await self._listen_all(client)
        except BaseException:
            self._leave(client)
            raise
        return client

    async def _listen_all(self, client: Client) -> None:
        self._inbox = client.new_inbox()
        await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        for subject, listener in self._listeners.items():
            await client.subscribe(subject, cb=listener)

    def _learn_hosts(self, client: Client) -> None:
        """The servers of a cluster tell of each other: so one that is left out of the URL is tried, too."""
        for found in client.discovered_servers:
            if found.netloc not in self._hosts:
                self._hosts.append(found.netloc)

    async def _note(self, error: Exception) -> None:
        self._failure = error

    def _lose(self, client: Client) -> None:
        if self._client is client:
            self._client = None
            self._fail_replies("the connection was lost")

    def _leave(self, client: Client) -> None:
        leaving = asyncio.create_task(_close(client), name="journeyman: leaving NATS")
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    def _unreachable(self) -> NotReady:
        return NotReady(
            f"No NATS server can be used at {', '.join(self._hosts)}: {_in_words(self._failure)}. Is it up, is the "
            "address right, and the login? It is tried again."
        )


class _Client(Client):
    """Says nothing, and not its login above all, before TLS is spoken.

    The driver leaves that to the server's first word, which comes in plain text: whoever is on the way can change it.
    """

    def _connect_command(self) -> bytes:
        if not (self._server_info.get("tls_required") or self.options["tls_handshake_first"]):
            raise NotReady("the server does not speak TLS, which the URL asks for, so nothing was told to it")
        return super()._connect_command()


async def _publish(client: Client, subject: str, data: bytes, headers: dict[str, str] | None, inbox: str) -> None:
    """Put a message into the connection.

    Raises:
        TooLarge: it is larger than the server takes: surely not sent.
        NotReady: the connection is closed: surely not sent.
    """
    try:
        await client.publish(subject, data, reply=inbox, headers=headers)
    except nats.errors.MaxPayloadError as error:
        what = f"A message with the subject {subject}, of envelope and body,"
        raise TooLarge(what, size_bytes=len(data), limit_bytes=client.max_payload) from error
    except nats.errors.Error as error:
        raise NotReady(f"The connection to NATS takes nothing: {_in_words(error)}. Try again.") from error


def _check_server(client: Client) -> None:
    version = client.connected_server_version
    if (version.major, version.minor) < VERSION_MIN:
        wanted = ".".join(map(str, VERSION_MIN))
        raise NotReady(
            f"nats-server is {version.major}.{version.minor}, which lacks atomic batches: use {wanted} or newer"
        )
    if client.max_payload < BODY_BYTES_MAX + ENVELOPE_BYTES_MAX:
        raise NotReady(
            f"the server's max_payload is {client.max_payload} bytes, too little for a message of {BODY_BYTES_MAX}: "
            "set it to 1MB or more"
        )


async def _close(client: Client) -> None:
    with suppress(Exception):  # Whatever the driver meets, also where it had not even begun: nobody needs it any more.
        async with asyncio.timeout(CLOSE_S):
            await client.close()


def _in_words(error: BaseException | str) -> str:
    if isinstance(error, ImportError):
        return "a credentials file needs another package: pip install 'journeyman[jetstream]'"
    return str(error).removeprefix("nats: ") or type(error).__name__

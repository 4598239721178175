"""A small application with all that the HTTP door must carry, and ways to talk to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx2
from msgspec import Meta, Struct, field

from journeyman import App, Command, Feature, Message, NotFound, Query, Rejected, State, Store, Table
from journeyman.doors.serving import serving
from journeyman.executor import Limits

JSON = {"content-type": "application/json"}
SECRET = "the password is hunter2"

#: What is asked here is plain HTTP. Reading the world's certificates, as each client does by itself, takes it 40 ms.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Order(Struct, frozen=True):
    order_id: str
    number: int


class ShopState(State):
    orders: Table[str, Order] = Table(Order, key="order_id")


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    article: Annotated[str, Meta(min_length=1)]
    price: Annotated[float, Meta(gt=0)] = 1.0


class Echo(Struct, frozen=True):
    page: int
    tags: list[str]
    numbers: tuple[int, ...]
    open: bool | None
    status: str | None
    state: str
    line: Line | None


def make_app(limits: Limits = Limits()) -> App:
    """A new application: each test has its own."""
    shop = Feature("shop", state=ShopState)

    @shop.command("place", subject="order_id")
    class Place(Command):
        """Place an order.

        A number may be used twice.
        """

        order_id: Annotated[str, Meta(min_length=1, max_length=50)]
        number: Annotated[int, Meta(ge=0, le=1000)]
        note: Annotated[str, Meta(max_length=20)] | None = None
        kind: Literal["gift", "own"] = "own"
        due: datetime | None = None
        lines: tuple[Line, ...] = ()
        extra: dict[str, Any] = field(default_factory=dict)

        def validate(self, state: ShopState, message: Message[Place]) -> None:
            if self.order_id in state.orders:
                raise Rejected(f"There is an order {self.order_id} already.")

        def apply(self, state: ShopState, message: Message[Place]) -> None:
            if self.number == 666:
                raise RuntimeError(SECRET)
            state.orders.put(Order(self.order_id, self.number))

    @shop.command("touch")
    class Touch(Command):
        """Nothing but a mark."""

    @shop.query("get")
    class Get(Query[Order]):
        """One order."""

        order_id: str

        def run(self, state: ShopState) -> Order:
            if (order := state.orders.get(self.order_id)) is None:
                raise NotFound(f"There is no order {self.order_id}.")
            return order

    @shop.query("echo")
    class EchoFields(Query[Echo]):
        """What was asked, with names that frameworks like to keep for themselves."""

        page: Annotated[int, Meta(ge=1)] = 1
        tags: list[str] = field(default_factory=list)
        numbers: tuple[int, ...] = ()
        open: bool | None = None
        status: Literal["new", "done"] | None = None
        state: str = ""
        line: Line | None = None

        def run(self, state: ShopState) -> Echo:
            return Echo(self.page, self.tags, self.numbers, self.open, self.status, self.state, self.line)

    @shop.query("break")
    class Break(Query[int]):
        def run(self, state: ShopState) -> int:
            raise RuntimeError(SECRET)

    return App(features=[shop], limits=limits)


@asynccontextmanager
async def shop(app: App | None = None, store: str | Store = "memory:") -> AsyncIterator[httpx2.AsyncClient]:
    """The application, running and served, and a client of it."""
    app = app or make_app()
    async with app.running(store), serving(app, port=0) as url, client_of(url) as client:
        yield client


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that takes no proxy from the environment."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(
        base_url=url, trust_env=False, timeout=30, limits=limits, verify=NO_CERTIFICATES
    ) as client:
        yield client


async def place(client: httpx2.AsyncClient, body: Any, **headers: str) -> httpx2.Response:
    """Send the command shop/place: a JSON value, or bytes as they are."""
    named = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if isinstance(body, bytes):
        return await client.post("/commands/shop/place", content=body, headers=named)
    return await client.post("/commands/shop/place", json=body, headers=named)


def problem(response: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem document of a response, which must be of this kind."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["type"]) == (status, f"urn:problem-type:journeyman:{kind}"), document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in response.text
    assert SECRET not in response.text
    return document


async def raw(url: str, data: bytes) -> bytes:
    """Bytes over a connection of their own, and all that comes back until the server closes it."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(data)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


async def by_asgi(
    app: Any,
    method: str,
    path: str,
    *,
    root_path: str = "",
    query: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: bytes = b"",
) -> tuple[dict[str, Any], list[Any]]:
    """One request to an ASGI application, without a server: the scope as it is afterwards, and the events sent."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": root_path,
        "query_string": query,
        "headers": [(b"host", b"localhost"), *headers],
        "http_version": "1.1",
        "scheme": "http",
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, send)
    return scope, sent

"""A bakery: an application with all that the console must show. Orders become invoices, some of which fail."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast
from uuid import UUID, uuid5

import msgspec
import uvicorn
from litestar import Litestar
from msgspec import Meta, Struct

from journeyman import (
    App,
    Attempt,
    Command,
    Feature,
    Job,
    Message,
    NotFound,
    Query,
    Receipt,
    Rejected,
    Retry,
    State,
    Table,
    TodoWorker,
    ends,
    opens,
    reacts,
)
from journeyman.doors.console import console_router
from journeyman.doors.http.application import Refusals
from journeyman.doors.serving import _Server, serving
from journeyman.doors.web import error_pages
from journeyman.doors.web.access import ACCESS, Access, Role
from journeyman.doors.web.asgi import ASGIApp, Receive, Scope, Send
from journeyman.doors.web.streams import Streams
from journeyman.doors.web.templates import COMMON_ASSETS

#: What a note holds whose invoice fails, and one whose invoice is made when the test says so.
FAILS, HELD = "(fails)", "(held)"

#: A text that would do harm if a page took it for markup, or let it turn the line around.
HOSTILE = "<script>document.title = 'taken'</script>\u202egnp.exe"

Id = Annotated[str, Meta(min_length=1, max_length=60)]


class Address(Struct, frozen=True, forbid_unknown_fields=True):
    street: str
    city: str


class Order(Struct, frozen=True):
    order_id: str
    customer: str
    kind: str
    pieces: int
    express: bool
    note: str | None
    invoice: str | None = None


class OrdersState(State):
    orders: Table[str, Order] = Table(Order, key="order_id", index={"customer": ("customer",), "kind": ("kind",)})


orders = Feature("orders", state=OrdersState)


@orders.command("place", subject="order_id")
class PlaceOrder(Command):
    """Take an order."""

    order_id: Id
    customer: Annotated[str, Meta(min_length=1, max_length=80)]
    kind: Literal["bread", "cake", "rolls"] = "bread"
    pieces: Annotated[int, Meta(ge=1, le=500)] = 1
    price: Annotated[float, Meta(gt=0)] | None = None
    express: bool = False
    note: Annotated[str, Meta(max_length=2000)] | None = None
    address: Address | None = None
    tags: tuple[str, ...] = ()

    def validate(self, state: OrdersState, message: Message[PlaceOrder]) -> None:
        if self.order_id in state.orders:
            raise Rejected(f"There is an order {self.order_id} already.")

    def apply(self, state: OrdersState, message: Message[PlaceOrder]) -> None:
        state.orders.put(Order(self.order_id, self.customer, self.kind, self.pieces, self.express, self.note))


@orders.command("cancel", subject="order_id")
class CancelOrder(Command):
    """Take an order back."""

    order_id: Id

    def apply(self, state: OrdersState, message: Message[CancelOrder]) -> None:
        if self.order_id in state.orders:
            state.orders.delete(self.order_id)


@orders.command("request-invoice", subject="order_id")
class RequestInvoice(Command):
    invoice_id: str
    order_id: str
    note: str | None


@orders.command("set-invoice", subject="order_id")
class SetInvoice(Command):
    invoice_id: str
    order_id: str
    text: str

    def apply(self, state: OrdersState, message: Message[SetInvoice]) -> None:
        if (order := state.orders.get(self.order_id)) is not None:
            state.orders.put(msgspec.structs.replace(order, invoice=self.text))


@orders.query("get")
class GetOrder(Query[Order]):
    """One order."""

    order_id: Id

    def run(self, state: OrdersState) -> Order:
        if (order := state.orders.get(self.order_id)) is None:
            raise NotFound(f"There is no order {self.order_id}.")
        return order


@orders.query("list")
class ListOrders(Query[list[Order]]):
    """Orders of a kind."""

    kind: Literal["bread", "cake", "rolls"] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20

    def run(self, state: OrdersState) -> list[Order]:
        rows = (
            state.orders.find("kind", limit=self.limit) if self.kind is None else state.orders.find("kind", self.kind)
        )
        return rows[: self.limit]


class Invoices(TodoWorker):
    """Writes an invoice for each order."""

    name = "orders/invoices"
    concurrency = 4
    concurrency_total = 8
    requests_per_minute = 6000
    timeout_s = 600.0
    retry = Retry(attempts=2, first_s=0.002, factor=1, max_s=0.002)

    def __init__(self) -> None:
        self.mended = False
        self.release = asyncio.Event()

    @reacts(PlaceOrder, name="ask", since=0)
    def ask(self, message: Message[PlaceOrder]) -> RequestInvoice:
        body = message.body
        return RequestInvoice(
            invoice_id=str(uuid5(UUID(message.id), self.name)), order_id=body.order_id, note=body.note
        )

    @opens(RequestInvoice)
    def asked(self, message: Message[RequestInvoice]) -> Job:
        return Job(message.body.invoice_id, subject=message.body.order_id)

    @ends(SetInvoice)
    def answered(self, message: Message[SetInvoice]) -> str:
        return message.body.invoice_id

    async def perform(self, attempt: Attempt[RequestInvoice]) -> SetInvoice:
        request = attempt.message.body
        if HELD in (request.note or ""):
            await self.release.wait()
        if FAILS in (request.note or "") and not self.mended:
            raise ValueError(f"the printer jammed on <b>{request.order_id}</b>")
        return SetInvoice(invoice_id=request.invoice_id, order_id=request.order_id, text="To be paid.")


class RemindersState(State):
    pass


reminders = Feature("reminders", state=RemindersState)


@reminders.command("set", subject="reminder_id")
class SetReminder(Command):
    """Remind somebody later."""

    reminder_id: Id
    in_s: Annotated[float, Meta(ge=0)] = 3600.0


@reminders.command("sent", subject="reminder_id")
class ReminderSent(Command):
    reminder_id: str


class Reminders(TodoWorker):
    name = "reminders/send"

    @opens(SetReminder)
    def asked(self, message: Message[SetReminder]) -> Job:
        return Job(message.body.reminder_id, due_in_s=message.body.in_s)

    @ends(ReminderSent)
    def answered(self, message: Message[ReminderSent]) -> str:
        return message.body.reminder_id

    async def perform(self, attempt: Attempt[SetReminder]) -> ReminderSent:
        return ReminderSent(reminder_id=attempt.id)


@dataclass(frozen=True)
class Bakery:
    """The bakery while it is served."""

    url: str
    app: App
    invoices: Invoices

    async def place(self, order_id: str, **values: Any) -> Receipt:
        return await self.app.execute(PlaceOrder(**{"order_id": order_id, "customer": "Ada", **values}), actor="test")


def make_bakery(**options: Any) -> tuple[App, Invoices]:
    invoices = Invoices()
    return App(features=[orders, reminders], workers=[invoices, Reminders()], **options), invoices


def console_as(app: App, role: Role, streams: Streams) -> ASGIApp:
    """The console alone, as somebody with that role gets it from the guard; who asks is called eve."""
    site = Litestar(
        [console_router(app, streams), COMMON_ASSETS.handler()],
        exception_handlers={Exception: Refusals(app, answer=error_pages.answer)},
        openapi_config=None,
        logging_config=None,
    )

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        await cast(ASGIApp, site)({**scope, ACCESS: Access("eve", role, "")}, receive, send)

    return asked


@asynccontextmanager
async def serving_as(app: App, role: Role) -> AsyncIterator[str]:
    """Serve the console of a running application to somebody with that role."""
    streams, listening = Streams(), socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        console_as(app, role, streams), lifespan="off", log_config=None, timeout_graceful_shutdown=2
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        await server.begun(task)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        streams.end()
        server.should_exit = True
        await task
        await streams.ended()


@asynccontextmanager
async def serving_bakery(store: str = "memory:", *, workers: bool = True) -> AsyncIterator[Bakery]:
    """The bakery on a store, running and served."""
    app, invoices = make_bakery()
    async with app.running(store, workers=workers, drain_s=0.1), serving(app, port=0) as url:
        yield Bakery(url, app, invoices)

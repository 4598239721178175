"""A command on its way from its caller to the log: encoded, decoded again, and waiting to be judged."""

from __future__ import annotations

import asyncio

import msgspec

from journeyman.codec import encode_meta
from journeyman.errors import Invalid, JourneymanError, TooLarge, Undecodable
from journeyman.feature import Catalog, Command, CommandType
from journeyman.message import BODY_BYTES_MAX, NO_META, Message, Meta, Record
from journeyman.receipts import Receipt


class Envelope(msgspec.Struct, frozen=True):
    """What travels with a command: who sent it, why, and under which key, fence and meta."""

    actor: str | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    fence: int | None = None
    meta: Meta = NO_META


class Pending:
    """A command on its way, encoded and decoded again, and the caller who waits for it."""

    __slots__ = ("body", "data", "envelope", "future", "id", "kind", "meta", "outcome")

    def __init__(self, kind: CommandType, data: bytes, body: Command, envelope: Envelope, *, id: str) -> None:
        self.kind = kind
        self.data = data
        self.body = body
        self.envelope = envelope
        self.id = id
        self.meta = encode_meta(envelope.meta)
        self.future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.outcome: Receipt | JourneymanError | None = None

    def propose(self, *, position: int, recorded_at_us: int) -> Message[Command]:
        """The message this command becomes if it is taken at that position."""
        kind, envelope = self.kind.message_type, self.envelope
        record = Record(
            position,
            self.id,
            kind.name,
            kind.version,
            self.kind.subject_of(self.body),
            self.data,
            recorded_at_us,
            envelope.correlation_id or self.id,
            envelope.causation_id,
            envelope.actor,
            envelope.idempotency_key,
            envelope.fence,
            self.meta,
        )
        return Message(record, self.body, envelope.meta)

    def tell(self, outcome: Receipt | JourneymanError) -> None:
        """Tell the caller, if it still waits."""
        if self.future.done():
            return
        if isinstance(outcome, Receipt):
            self.future.set_result(outcome)
        else:
            self.future.set_exception(outcome)


def prepare(catalog: Catalog, command: Command, envelope: Envelope, *, id: str) -> Pending:
    """Encode the command, and decode it again: what is applied now is what every replay will see.

    Raises:
        UnknownName: its class belongs to no feature of the application.
        Invalid: its fields do not fit their types.
        TooLarge: its body is over BODY_BYTES_MAX.
    """
    kind = catalog.command_of(command)
    data = catalog.codec.encode(command)
    if len(data) > BODY_BYTES_MAX:
        raise TooLarge(f"The body of {kind.name}", size_bytes=len(data), limit_bytes=BODY_BYTES_MAX)
    try:
        body = catalog.codec.decode_body(kind.name, kind.message_type.version, data)
    except Undecodable as error:
        raise Invalid(kind.name, [str(error)]) from error
    return Pending(kind, data, body, envelope, id=id)

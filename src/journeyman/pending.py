"""A command on its way from its caller to the log: encoded, decoded again, and waiting to be judged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import perf_counter
from typing import Final

import msgspec
from msgspec import field

from journeyman.codec import encode_meta
from journeyman.errors import Busy, Invalid, JourneymanError, TooLarge
from journeyman.feature import Catalog, Command, CommandType
from journeyman.message import BODY_BYTES_MAX, NO_META, Message, Meta, Record
from journeyman.receipts import Receipt
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX

#: How many commands may wait, and with how many bytes of bodies together; above, callers are told Busy.
WAITING_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024

#: The longest actor, idempotency key and subject, in characters: each is kept in memory or indexed for long.
TEXT_LENGTH_MAX: Final = 500


class Envelope(msgspec.Struct, frozen=True):
    """What travels with a command: who sent it, why, and under which key, fence and meta."""

    actor: str | None = None
    idempotency_key: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    fence: int | None = None
    meta: Meta = NO_META


class Pending(msgspec.Struct, eq=False):
    """A command on its way, encoded and decoded again, and the caller who waits for it.

    `outcome` is what it was judged to: told once what it rests on is durable.
    """

    kind: CommandType
    id: str
    subject: str | None
    data: bytes
    body: Command
    envelope: Envelope
    future: asyncio.Future[Receipt]
    meta: bytes | None = None
    outcome: Receipt | JourneymanError | None = None
    #: When it came, on the clock that durations are measured with.
    submitted_s: float = field(default_factory=perf_counter)

    def propose(self, *, position: int, recorded_at_us: int) -> Message[Command]:
        """The message this command becomes if it is taken at that position."""
        kind, envelope = self.kind.message_type, self.envelope
        record = Record(
            position,
            self.id,
            kind.name,
            kind.version,
            self.subject,
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


class WaitingCommands:
    """The commands that wait to be judged, in order. Bounded by number and by bytes."""

    def __init__(self) -> None:
        self._pendings: deque[Pending] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._pendings)

    def add(self, pending: Pending) -> None:
        """Let one more wait, behind all others.

        Raises:
            Busy: too many wait, or too many bytes.
        """
        if len(self._pendings) >= WAITING_MAX or self._bytes + len(pending.data) > WAITING_BYTES_MAX:
            raise Busy(f"{len(self._pendings)} commands wait already.", retry_after_s=0.1)
        self._pendings.append(pending)
        self._bytes += len(pending.data)

    def take(self, beside: Sequence[Pending] = ()) -> list[Pending]:
        """Remove as many of the first as one append may carry beside those that it carries already."""
        batch: list[Pending] = []
        batch_bytes = sum([len(pending.data) for pending in beside])
        room = BATCH_RECORDS_MAX - len(beside)
        while self._pendings and len(batch) < room:
            batch_bytes += len(self._pendings[0].data)
            if batch_bytes > BATCH_BYTES_MAX:
                break
            pending = self._pendings.popleft()
            self._bytes -= len(pending.data)
            batch.append(pending)
        return batch

    def put_back(self, batch: list[Pending]) -> None:
        """Let what was taken wait again, before all others."""
        self._pendings.extendleft(reversed(batch))
        self._bytes += sum(len(pending.data) for pending in batch)

    def tell_all(self, error: JourneymanError) -> list[Pending]:
        """Tell every caller the error; nobody waits any more. Returns what had waited."""
        told, self._bytes = list(self._pendings), 0
        self._pendings.clear()
        for pending in told:
            pending.tell(error)
        return told


def prepare(
    catalog: Catalog, command: Command, envelope: Envelope, loop: asyncio.AbstractEventLoop, *, id: str
) -> Pending:
    """Encode the command, and decode it again: what is applied now is what every replay will see.

    Raises:
        UnknownName: its class belongs to no feature of the application.
        Invalid: its fields do not fit their types, or a text of its envelope can't be stored.
        TooLarge: its body is over BODY_BYTES_MAX.
    """
    kind = catalog.command_of(command)
    data, body = catalog.codec.recode(kind.name, command)
    if len(data) > BODY_BYTES_MAX:
        raise TooLarge(f"The body of {kind.name}", size_bytes=len(data), limit_bytes=BODY_BYTES_MAX)
    subject = kind.subject_of(body)
    for text in (subject, envelope.actor, envelope.idempotency_key):
        if text is not None and not (len(text) <= TEXT_LENGTH_MAX and text.isascii() and text.isprintable()):
            _check_text(kind.name, text)
    meta = None if envelope.meta is NO_META else encode_meta(envelope.meta)
    return Pending(kind, id, subject, data, body, envelope, loop.create_future(), meta)


def _check_text(command: str, text: str) -> None:
    """Refuse a text that some backend can't store: here that is its caller's error, at the append it were everybody's.

    Raises:
        Invalid: it is too long, or holds NUL (PostgreSQL) or half a surrogate pair (not UTF-8).
    """
    named = f"The subject, actor or idempotency key {text[:20]!r}"
    if len(text) > TEXT_LENGTH_MAX:
        raise Invalid(command, [f"{named} … has {len(text)} characters, {TEXT_LENGTH_MAX} are the most"])
    if "\0" in text:
        raise Invalid(command, [f"{named} holds a NUL character"])
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid(command, [f"{named} is no text: {error}"]) from error

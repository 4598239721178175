"""The two forms of one recorded fact: `Record`, as the store keeps it, and `Message`, as the application sees it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import msgspec

#: The largest body, in bytes, on every backend, so that a log can move between them.
BODY_BYTES_MAX = 512 * 1024

#: Names that start so belong to the framework: no feature may use them, and no door lets them in unasked.
INTERNAL_PREFIX = "journeyman/"

C = TypeVar("C", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Record(msgspec.Struct, frozen=True, gc=False):
    """One recorded fact, as a store keeps it: the envelope, and the body as bytes.

    Positions are 1, 2, 3 … without gaps. Ids are UUIDv7 in their canonical text form. `recorded_at_us` is
    microseconds since 1970-01-01 UTC, by the clock of the process that recorded it: for people to read, never for
    ordering. `body` is the command in JSON; `meta` is a small JSON object, or None.
    """

    position: int
    id: str
    name: str
    version: int
    subject: str | None
    body: bytes
    recorded_at_us: int
    correlation_id: str
    causation_id: str | None = None
    actor: str | None = None
    idempotency_key: str | None = None
    fence: int | None = None
    meta: bytes | None = None


class ReactionStep(msgspec.Struct, frozen=True, gc=False):
    """Which command of which reaction a message is.

    `number` counts the reaction's recorded steps 1, 2, 3 …: the state takes only the next one, which is what makes
    a reaction happen once. `position` is the message reacted to, `index` the place among the commands it led to.
    """

    worker: str
    reaction: str
    number: int
    position: int
    index: int = 0


class Meta(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What travels beside a body: the reaction step, a W3C trace parent, the error that an answer follows from."""

    reaction: ReactionStep | None = None
    traceparent: str | None = None
    error: str | None = None


NO_META = Meta()


class Message(msgspec.Struct, Generic[C], frozen=True, gc=False):
    """A record together with its decoded body: what `validate`, `apply`, reactions and workers see."""

    record: Record
    body: C
    meta: Meta = NO_META

    @property
    def position(self) -> int:
        return self.record.position

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def subject(self) -> str | None:
        return self.record.subject

    @property
    def actor(self) -> str | None:
        return self.record.actor

    @property
    def fence(self) -> int | None:
        return self.record.fence

    @property
    def correlation_id(self) -> str:
        return self.record.correlation_id

    @property
    def causation_id(self) -> str | None:
        return self.record.causation_id

    @property
    def recorded_at_us(self) -> int:
        return self.record.recorded_at_us

    @property
    def recorded_at(self) -> datetime:
        """When it was recorded, in UTC, by the recording process's clock."""
        return _EPOCH + timedelta(microseconds=self.record.recorded_at_us)

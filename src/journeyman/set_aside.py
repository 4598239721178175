"""Setting a message aside: an operator's recorded decision that one message is left out of every replay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta as Constraint

from journeyman.codec import Codec
from journeyman.errors import Conflict, Invalid, Outdated, Poisoned, Rejected, Undecodable
from journeyman.feature import Command, InternalFeature
from journeyman.message import Message, Record
from journeyman.store.base import MessageLog
from journeyman.tables import State, Table

#: How many decisions one read asks for.
READ_LIMIT: Final = 1000

#: How often the append is tried when other writers are faster.
ATTEMPTS_MAX: Final = 100


class SetAside(msgspec.Struct, frozen=True):
    """A message that no process applies, and the decision's own position."""

    position: int
    decided_at: int
    reason: str
    actor: str | None


class SetAsideState(State):
    """The messages set aside so far, for people to see. Replay reads the decisions from the log, before all else."""

    set_asides: Table[int, SetAside] = Table(SetAside, key="position")


set_asides = InternalFeature("set-asides", state=SetAsideState)


@set_asides.command("message-set-aside")
class MessageSetAside(Command):
    """The message at `position` is left out of every replay, to whatever position."""

    position: Annotated[int, Constraint(ge=1)]
    reason: Annotated[str, Constraint(min_length=1, max_length=1000)]

    def validate(self, state: SetAsideState, message: Message[Any]) -> None:
        # Executed, it would be recorded behind a state that has the message in it. `set_aside` writes to the log, and
        # every process, this one too, meets the decision there and builds its state anew.
        raise Rejected("A message is set aside in the log itself: journeyman log set-aside.")

    def apply(self, state: SetAsideState, message: Message[Any]) -> None:
        state.set_asides.put(SetAside(self.position, message.position, self.reason, message.actor))


NAME: Final = "journeyman/message-set-aside"

#: Reads the decisions without the application, whose code may be what is broken.
codec: Final = Codec(command.message_type for command in set_asides.commands)


async def read_set_asides(log: MessageLog) -> frozenset[int]:
    """The positions set aside by the whole log, whatever position one replays to.

    Raises:
        Outdated: a decision is of a newer version than this code knows.
        Poisoned: a decision is damaged.
    """
    positions: set[int] = set()
    after = 0
    while records := await log.read(after, READ_LIMIT, name=NAME):
        positions.update(map(_position_set_aside, records))
        after = records[-1].position
    return frozenset(positions)


def _position_set_aside(record: Record) -> int:
    try:
        decision: MessageSetAside = codec.decode_body(record.name, record.version, record.body)
    except Undecodable as error:
        kind = Outdated if error.newer else Poisoned
        raise kind(position=record.position, name=record.name, why=str(error)) from error
    return decision.position


async def set_aside(
    log: MessageLog,
    position: int,
    *,
    reason: str,
    actor: str | None,
    recorded_at_us: int,
    new_id: Callable[[], str],
) -> int:
    """Record the decision, and return its position. Needs no working state: it is for when there is none.

    Raises:
        Invalid: the reason is empty or too long.
        Rejected: there is no such message, or it is a decision of this kind itself.
        Conflict: other writers were faster ATTEMPTS_MAX times.
    """
    found = await log.read(position - 1, 1) if position > 0 else []
    if not found:
        raise Rejected(f"There is no message at position {position}; the log ends at {await log.head()}.")
    if found[0].name == NAME:
        raise Rejected(f"The message at position {position} is itself a decision to set one aside; it stays.")
    body = _encode(position, reason)
    message_id = new_id()
    async with log.turn():
        for attempt in range(1, ATTEMPTS_MAX + 1):
            head = await log.head()
            record = Record(head + 1, message_id, NAME, 1, None, body, recorded_at_us, message_id, found[0].id, actor)
            try:
                await log.append([record], after=head)
                return head + 1
            except Conflict:
                if attempt == ATTEMPTS_MAX:
                    raise
    raise AssertionError("unreachable")


def _encode(position: int, reason: str) -> bytes:
    body = codec.encode(MessageSetAside(position=position, reason=reason))
    try:
        codec.decode_body(NAME, 1, body)
    except Undecodable as error:
        raise Invalid(NAME, [str(error)]) from error
    return body

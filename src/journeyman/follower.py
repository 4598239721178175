"""Following the log: batches of messages from a position of one's own, and a cache of the newest ones."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from journeyman.codec import Codec
from journeyman.errors import Corrupt, Outdated, Poisoned, Undecodable
from journeyman.message import Message, Record
from journeyman.store.base import MessageLog

#: The newest messages kept in memory: at most so many, with so many bytes of bodies together.
RECENT_MESSAGES_MAX: Final = 4096
RECENT_BYTES_MAX: Final = 8 * 1024 * 1024

#: How many messages one read asks for: short reads keep SQLite's write-ahead log small.
READ_LIMIT: Final = 1000

#: Messages at most so far apart are read together: a read of its own costs as much as reading some that nobody needs.
NEAR: Final = 20

Decode = Callable[[Record], Message[Any] | None]


class RecentMessages:
    """The newest applied messages, without gaps: who is nearly up to date need not read the store."""

    def __init__(self, *, messages_max: int = RECENT_MESSAGES_MAX, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._messages: deque[Message[Any] | None] = deque()
        #: The position of the last message held.
        self._last = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._bytes = 0

    def extend(self, messages: Sequence[Message[Any] | None], *, after: int) -> None:
        """Add the messages at after+1 …, with None for one set aside. What does not join on is forgotten."""
        if after != self._last:
            self.clear()
        held = self._messages
        held.extend(messages)
        self._last = after + len(messages)
        self._bytes += _body_bytes(messages)
        if (surplus := len(held) - self._messages_max) > 0:
            self._bytes -= _body_bytes([held.popleft() for _ in range(surplus)])
        while self._bytes > self._bytes_max:
            self._bytes -= _body_bytes([held.popleft()])

    def clear(self) -> None:
        self._messages.clear()
        self._bytes = 0

    def after(self, after: int, limit: int) -> list[Message[Any] | None] | None:
        """At most `limit` messages behind `after`; None when the first of them is not held."""
        held = self._messages
        start = after - (self._last - len(held))
        if not 0 <= start < len(held):
            return None
        if limit == 1:
            return [held[start]]
        return list(islice(held, start, start + limit))


class MessageSource:
    """Decoded messages by position: from the cache, else from the log. Messages set aside are left out.

    Args:
        decode: what turns a record into its message, or None for one set aside.
    """

    def __init__(self, log: MessageLog, decode: Decode, recent: RecentMessages | None = None) -> None:
        self.log = log
        self._decode = decode
        self._recent = recent if recent is not None else RecentMessages()

    async def read(self, after: int, limit: int) -> tuple[list[Message[Any]], int]:
        """Messages behind `after`, in order, and the position that was read up to (`after` when at the head).

        Raises:
            Poisoned, Outdated: a message can't be decoded by this code.
            NotReady: the store can't be read now.
            Corrupt: the log has a gap.
        """
        messages = self._recent.after(after, limit)
        if messages is None:
            records = await self.log.read(after, limit)
            if records:
                check_no_gap(records, after=after)
            messages = [self._decode(record) for record in records]
        return [message for message in messages if message is not None], after + len(messages)

    async def get(self, position: int) -> Message[Any] | None:
        """The message at a position; None when there is none, or it is set aside."""
        return (await self.get_each([position]))[0]

    async def get_each(self, positions: Sequence[int]) -> list[Message[Any] | None]:
        """The messages at these positions, one for each. Those that lie near each other are read together.

        Raises:
            Poisoned, Outdated: a message can't be decoded by this code.
            NotReady: the store can't be read now.
            Corrupt: the log has a gap.
        """
        held = {position: self._recent.after(position - 1, 1) for position in positions}
        found = {position: messages[0] for position, messages in held.items() if messages is not None}
        for first, last in _spans(sorted(held.keys() - found.keys())):
            records = await self.log.read(first - 1, last - first + 1)
            check_no_gap(records, after=first - 1)
            found |= {record.position: self._decode(record) for record in records if record.position in held}
        return [found.get(position) for position in positions]


def _spans(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and last of each run of positions that one read should take, from ascending ones."""
    start = 0
    for number, position in enumerate(positions, start=1):
        following = positions[number] if number < len(positions) else None
        if following is None or following - position > NEAR or following - positions[start] >= READ_LIMIT:
            yield positions[start], position
            start = number


class Follower:
    """Reads a log from a position of its own and keeps that position.

    `position` is the last position that was handed out; save it, and give it as `after` next time.
    """

    def __init__(self, source: MessageSource, *, after: int = 0) -> None:
        self._source = source
        self.position = after

    async def read(self, limit: int = READ_LIMIT) -> list[Message[Any]]:
        """The next messages, at most `limit`; empty at the head.

        Raises:
            Poisoned, Outdated: a message can't be decoded by this code.
            NotReady: the store can't be read now.
        """
        while True:
            before = self.position
            messages, self.position = await self._source.read(before, limit)
            if messages or self.position == before:
                return messages

    async def follow(self, *, wait_s: float = 1.0) -> AsyncGenerator[list[Message[Any]], None]:
        """Batches for ever: what is there, then what comes. Ends only with its task."""
        while True:
            if messages := await self.read():
                yield messages
            else:
                await self._source.log.wait(self.position, wait_s)


def decode_record(codec: Codec, record: Record, *, started: bool = True) -> Message[Any]:
    """The message of a record.

    Raises:
        Poisoned: it can't be decoded.
        Outdated: once the application has `started`, its name or version is not known to this code.
    """
    try:
        return codec.decode(record)
    except Undecodable as error:
        raise as_stop(error, record, started=started) from error


def as_stop(error: Undecodable, record: Record, *, started: bool) -> Outdated | Poisoned:
    """What it means for a process that it can't decode a record."""
    kind = Outdated if error.newer and started else Poisoned
    return kind(position=record.position, name=record.name, why=str(error))


def check_no_gap(records: Sequence[Record], *, after: int) -> None:
    """Refuse records that are not those at after+1, after+2 …

    Raises:
        Corrupt: there is a gap, or another order.
    """
    if [record.position for record in records] == list(range(after + 1, after + 1 + len(records))):
        return
    for expected, record in enumerate(records, start=after + 1):
        if record.position != expected:
            raise Corrupt(
                f"The log has a gap: after position {expected - 1} comes {record.position}. "
                "Restore the store from a backup that is whole."
            )


def _body_bytes(messages: Iterable[Message[Any] | None]) -> int:
    return sum([len(message.record.body) for message in messages if message is not None])

"""The message log: a stream whose sequence numbers are the positions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import takewhile
from typing import Final, TypeVar
from uuid import uuid4

from journeyman.errors import Corrupt, NotReady, OutcomeUnknown, TooLarge
from journeyman.message import BODY_BYTES_MAX, Record
from journeyman.store.jetstream_connection import Connection, Outgoing
from journeyman.store.jetstream_direct import Chunk, Direct
from journeyman.store.jetstream_record import decode_record, encode_record, name_subject, rest_of
from journeyman.store.jetstream_reply import PASSING, NoReply, Refused, reading
from journeyman.store.jetstream_watch import Watch
from journeyman.store.limits import check_batch, check_written

#: How long one append may take, in seconds: then nobody knows, and the connection is given up.
APPEND_S: Final = 2.0

#: How long a read is repeated that finds less than there is, in seconds: a replica is behind.
READ_S: Final = 2.0

#: The pause before looking again, in seconds.
PAUSE_S: Final = 0.005

#: JetStream's numbers of refusals, server/errors.json in nats-server: the leader sees another head; too large.
_OTHER_HEAD: Final = frozenset({10071, 10164})
_TOO_LARGE: Final = frozenset({10054, 10199})

_EXPECTED: Final = "Nats-Expected-Last-Sequence"

A = TypeVar("A")
B = TypeVar("B")


class JetStreamLog:
    """See MessageLog. `news` is the subject over which handles tell each other of appends."""

    def __init__(self, connection: Connection, stream: str, *, replicated: bool) -> None:
        self.news = f"{stream}-news"
        self.watch = Watch(self._ask_head, replicated=replicated)
        self._connection = connection
        self._stream = stream
        self._direct = Direct(connection, stream)
        self._replicated = replicated
        self._subjects = _Subjects(stream)

    # Reading.

    async def head(self) -> int:
        """See MessageLog. While only a part of a batch is there, it is not told yet."""
        give_up_at = asyncio.get_running_loop().time() + READ_S
        while True:
            head = await self.watch.head()
            newest = await self._direct.at(head) if head else None
            if newest is None or not rest_of(newest.content) or asyncio.get_running_loop().time() > give_up_at:
                return head
            await asyncio.sleep(PAUSE_S)

    async def _ask_head(self) -> int:
        with reading():
            info = await self._connection.ask(f"STREAM.INFO.{self._stream}")
        head: int = info["state"]["last_seq"]
        return head

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        if limit <= 0:
            return []
        if name is not None:
            return await self._read_named(name_subject(self._stream, name), after, limit)
        records = await self._read_all(after, limit)
        if records:
            self.watch.saw(records[-1].position)
        return records

    async def _read_all(self, after: int, limit: int) -> list[Record]:
        """Read until there are `limit`, or the head is reached: what one answer lacks, the next one may have.

        A server that is writing a batch shows a part of it for a moment. What ends in the middle of one is read on,
        unless the rest does not come: then the stream was restored from a backup that was taken in such a moment.
        """
        records: list[Record] = []
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + READ_S
        rest = 0
        while (missing := limit - len(records)) > 0:
            last = after + len(records)
            chunk, head = await self._read_once(last, missing)
            found = [decode_record(content) for content in chunk.contents]
            joined = _joined(found, after=last)
            records = records + joined if records else joined
            if joined:
                rest = rest_of(chunk.contents[len(joined) - 1])
            if after + len(records) >= head and (not rest or loop.time() > give_up_at):
                break
            if not joined:
                if loop.time() > give_up_at:
                    self._connection.drop()
                    raise _incomplete(found, last, head)
                await asyncio.sleep(PAUSE_S)
        return records

    async def _read_once(self, after: int, limit: int) -> tuple[Chunk, int]:
        """One answer, and the head: where one server has the log, its answer is all there is."""
        if self._replicated:
            head, chunk = await _both(self.watch.head(), self._direct.chunk(after + 1, limit))
            return chunk, head
        chunk = await self._direct.chunk(after + 1, limit)
        return chunk, after + len(chunk.contents) + (not chunk.ended)

    async def _read_named(self, subject: str, after: int, limit: int) -> list[Record]:
        """The messages of a subject. That there are no more of them, only the leader can say."""
        if self._replicated:
            await self.watch.head()
        records: list[Record] = []
        while (missing := limit - len(records)) > 0:
            last = records[-1].position if records else after
            chunk = await self._direct.chunk(last + 1, missing, subject=subject)
            records += map(decode_record, chunk.contents)
            if chunk.ended and not (self._replicated and await self._read_next(subject, records, after)):
                break
        return records[:limit]

    async def _read_next(self, subject: str, records: list[Record], after: int) -> bool:
        """Add the leader's next message of the subject, if there is one that the replica did not have."""
        found = await self._direct.next((records[-1].position if records else after) + 1, subject)
        if found is not None:
            records.append(decode_record(found.content))
        return found is not None

    # Appending.

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        check_batch(records, after=after)
        if not records:
            return await self._check_head(after)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + APPEND_S
        while not await self._write(records, after):
            if loop.time() > give_up_at:
                # A leader that was cut off refuses for what it can't finish: another server may know another leader.
                self._connection.drop()
                raise NotReady(f"JetStream took no append within {APPEND_S:g} s. Nothing was written; try again.")
            await asyncio.sleep(PAUSE_S)
        self.watch.saw(after + len(records))
        await self._connection.tell(self.news, b"%d" % (after + len(records)))
        return None

    async def _check_head(self, after: int) -> None:
        head = await self.watch.head(at_least=after)
        if head != after:
            check_written((), (), after=after, head=head)

    async def _write(self, records: Sequence[Record], after: int) -> bool:
        """Try once; False when it surely was not written, and nothing else stands there either."""
        try:
            acknowledged = await self._connection.publish(self._outgoing(records, after), timeout_s=APPEND_S)
        except NoReply as error:
            raise OutcomeUnknown(f"JetStream did not say whether it was written: {error}. Append it again.") from error
        except Refused as refused:
            return await self._was_refused(refused, records, after)
        return acknowledged["seq"] == after + len(records) or await self._stands(records, after)

    async def _was_refused(self, refused: Refused, records: Sequence[Record], after: int) -> bool:
        if refused.code in _OTHER_HEAD:
            return await self._stands(records, after)
        if refused.code in PASSING:
            return False
        if refused.code in _TOO_LARGE:
            largest = max(len(record.body) for record in records)
            what = f"A batch of {len(records)} records, which the server refuses ({refused}),"
            raise TooLarge(what, size_bytes=largest, limit_bytes=BODY_BYTES_MAX) from refused
        # A disk that failed may have taken it all the same.
        raise OutcomeUnknown(f"JetStream failed to write: {refused}. Append it again.") from refused

    def _outgoing(self, records: Sequence[Record], after: int) -> list[Outgoing]:
        """One message by itself, which is far faster than a batch of one; several as one atomic batch (ADR-50)."""
        rests = range(len(records) - 1, -1, -1)
        contents = [
            (self._subjects[record.name], encode_record(record, rest=rest))
            for record, rest in zip(records, rests, strict=True)
        ]
        if len(contents) == 1:
            return [(*contents[0], {_EXPECTED: str(after)})]
        # A new id each time: what is left of a try that was cut off must not join this one.
        batch = uuid4().hex
        headers = [{"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(n)} for n in range(1, len(contents) + 1)]
        headers[0][_EXPECTED] = str(after)
        headers[-1]["Nats-Batch-Commit"] = "1"
        return [(*content, header) for content, header in zip(contents, headers, strict=True)]

    async def _stands(self, records: Sequence[Record], after: int) -> bool:
        """Whether the batch is in the log. An empty read, or a part of the batch, decides nothing.

        Raises:
            Conflict: a different id was read at one of its positions.
            WrongLog: the head is below `after`.
        """
        first = await self._direct.at(after + 1)
        stored = [] if first is None else [decode_record(first.content)]
        if stored and stored[0].id == records[0].id:
            stored = await self._read_all(after, len(records))
        head = await self.watch.head(at_least=after)
        ids = [record.id for record in stored]
        if head < after or ids != [record.id for record in records[: len(ids)]]:
            check_written(records, ids, after=after, head=head)
        return len(ids) == len(records)

    async def wait(self, after: int, timeout_s: float) -> None:
        await self.watch.wait(after, timeout_s)

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Nothing: JetStream can make nobody wait."""
        return nullcontext()


class _Subjects(dict[str, str]):
    """The subject of each name that was written; an application has as many as it has commands."""

    def __init__(self, stream: str) -> None:
        super().__init__()
        self._stream = stream

    def __missing__(self, name: str) -> str:
        subject = self[name] = name_subject(self._stream, name)
        return subject


def _joined(records: list[Record], *, after: int) -> list[Record]:
    """The records up to the first one that does not follow its predecessor."""
    if not records or records[-1].position == after + len(records):
        return records
    return [record for number, record in takewhile(_in_place, enumerate(records, start=after + 1))]


def _in_place(numbered: tuple[int, Record]) -> bool:
    number, record = numbered
    return record.position == number


def _incomplete(found: list[Record], after: int, head: int) -> Exception:
    if found:
        return Corrupt(f"The log has a gap: after position {after} comes {found[0].position}. Restore a backup.")
    return NotReady(f"The servers give no message behind {after}, where {head} is the head. Try again.")


async def _both(one: Awaitable[A], other: Awaitable[B]) -> tuple[A, B]:
    """Await both at once, to their ends: the first one's error comes first."""
    first, second = await asyncio.gather(one, other, return_exceptions=True)
    for outcome in (first, second):
        if isinstance(outcome, BaseException):
            raise outcome
    return first, second  # type: ignore[return-value]  # neither is an exception

"""`GET /log` and `GET /log/stream`: the messages as they are recorded, the framework's own among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from journeyman.app import App
from journeyman.doors.http.answers import JsonAnswer, freshness
from journeyman.doors.web.headers import POSITION_MAX, position
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.doors.web.streams import HEARTBEAT, HEARTBEAT_S, Streams
from journeyman.message import Record

#: How many bytes of bodies one answer of the log carries, about; at least one message, whatever its size.
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024

#: How many messages are read from the store at a time.
READ_LIMIT: Final = 100

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]


class LogRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages: those behind `after`, in order, at most `limit`."""

    after: Position = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class StreamStart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """From where: the messages behind `after`."""

    after: Position = 0


class LogEntry(msgspec.Struct, frozen=True):
    """One message. `recorded_at` is in RFC 3339, by the clock of the process that recorded it."""

    position: int
    id: str
    name: str
    version: int
    subject: str | None
    body: msgspec.Raw
    recorded_at: datetime
    correlation_id: str
    causation_id: str | None
    actor: str | None


def log_handlers(app: App, streams: Streams) -> list[HTTPRouteHandler]:
    """The handlers of `/log` and `/log/stream`."""
    log_range = QueryStringReader(LogRange)
    stream_start = QueryStringReader(StreamStart)

    @get("/log")
    async def log(request: Request[Any, Any, Any]) -> JsonAnswer:
        wanted = log_range.read(request.scope["query_string"])
        entries = await _entries(app, wanted)
        return JsonAnswer(entries, headers=freshness(app, app.position))

    @get("/log/stream")
    async def log_stream(request: Request[Any, Any, Any]) -> Stream:
        start = stream_start.read(request.scope["query_string"])
        resumed = position(request.scope, b"last-event-id")
        await app.store.log.head()  # A store that can't be read is told now, not by a stream that ends at once.
        return streams.answer(_events(app, streams, start.after if resumed is None else resumed))

    return [log, log_stream]


async def _entries(app: App, wanted: LogRange) -> list[LogEntry]:
    entries: list[LogEntry] = []
    size, after = 0, wanted.after
    while len(entries) < wanted.limit and size < ANSWER_BYTES_MAX:
        records = await app.store.log.read(after, min(READ_LIMIT, wanted.limit - len(entries)))
        if not records:
            break
        entries += map(entry_of, records)
        size += sum(len(record.body) for record in records)
        after = records[-1].position
    return entries


async def _events(app: App, streams: Streams, after: int) -> AsyncIterator[bytes]:
    """The log as server-sent events, until the streams are ended."""
    loop = asyncio.get_running_loop()
    yield b"retry: 1000\n\n"
    told_at = loop.time()
    while not streams.ending:
        records = await app.store.log.read(after, READ_LIMIT)
        if records:
            after = records[-1].position
            yield b"".join(map(_event, records))
            told_at = loop.time()
            continue
        if loop.time() - told_at >= HEARTBEAT_S:
            yield HEARTBEAT
            told_at = loop.time()
        await streams.wait(app, after)


def _event(record: Record) -> bytes:
    lines = msgspec.json.encode(entry_of(record)).splitlines()
    return b"id: %d\ndata: %b\n\n" % (record.position, b"\ndata: ".join(lines))


def entry_of(record: Record) -> LogEntry:
    """A record as clients see it. A body that is no JSON is shown as a text."""
    return LogEntry(
        position=record.position,
        id=record.id,
        name=record.name,
        version=record.version,
        subject=record.subject,
        body=_raw(record.body),
        recorded_at=_EPOCH + timedelta(microseconds=record.recorded_at_us),
        correlation_id=record.correlation_id,
        causation_id=record.causation_id,
        actor=record.actor,
    )


def _raw(body: bytes) -> msgspec.Raw:
    try:
        body.decode()
        return msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.Raw(msgspec.json.encode(body.decode(errors="replace")))

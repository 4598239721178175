"""The log: as it grows, by what it is about, and message by message with causes and effects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream

from journeyman.doors.console.chains import chain_of
from journeyman.doors.console.console import PATH, Console, templates
from journeyman.doors.console.index.reader import Entry, Filter, JobEvent, TooSlow
from journeyman.doors.console.index.threads import NotIndexed
from journeyman.doors.web.answers import Page, SeeOther
from journeyman.doors.web.headers import POSITION_MAX
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.doors.web.streams import event
from journeyman.errors import NotFound
from journeyman.message import Record

#: How many messages a page shows.
PAGE_MESSAGES: Final = 50

#: How many new messages one event of the live tail brings: of more, the newest.
TAIL_MESSAGES: Final = 50

#: How many effects of a message are listed.
EFFECTS_MAX: Final = 100

Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which messages: those that fit all that is given, below `before` or above `after`; else the newest.

    `since` and `until` are times of the day in UTC, as a browser's field for them writes them.
    """

    feature: str = ""
    name: str = ""
    subject: str = ""
    correlation: str = ""
    since: str = ""
    until: str = ""
    before: Position | None = None
    after: Position | None = None
    at: Position | None = None

    @property
    def filter(self) -> Filter:
        """What the index is asked for."""
        return Filter(
            feature=self.feature or None,
            name=self.name or None,
            subject=self.subject or None,
            correlation_id=self.correlation or None,
            since_us=_moment(self.since),
            until_us=_moment(self.until),
        )

    @property
    def is_newest(self) -> bool:
        """Whether new messages belong on top."""
        return self.before is None and self.after is None and not self.until

    def values(self) -> dict[str, str]:
        """The filter as values of a link."""
        fields = ("feature", "name", "subject", "correlation", "since", "until")
        return {field: text for field in fields if (text := getattr(self, field))}


class JumpQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to jump to: a position, or the id of a message."""

    to: str = ""


class Listed(msgspec.Struct, frozen=True):
    """Some messages, newest first, and whether there are older and newer ones. `trouble` is why there are none."""

    entries: list[Entry]
    has_older: bool = False
    has_newer: bool = False
    trouble: str | None = None


class Related(msgspec.Struct, frozen=True):
    """What the index knows around a message."""

    cause: int | None = None
    effects: list[Entry] = []
    jobs: list[JobEvent] = []


def log_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The list, its live tail, and each message."""
    reader, jumps = QueryStringReader(LogQuery), QueryStringReader(JumpQuery)

    @get("/log")
    async def log(request: Request[Any, Any, Any]) -> Page:
        wanted = reader.read(request.scope["query_string"])
        await console.see(wanted.at)
        catalog = console.app.catalog
        return await console.page(
            request,
            "log.html",
            wanted=wanted,
            listed=await _list(console, wanted),
            features=sorted(catalog.features),
            names=sorted(catalog.commands),
        )

    @get("/log/stream")
    async def stream(request: Request[Any, Any, Any]) -> Stream:
        wanted = reader.read(request.scope["query_string"])
        after = console.app.position if wanted.after is None else wanted.after
        return console.streams.answer(_tail(console, request, wanted.filter, after))

    @get("/log/jump")
    async def jump(request: Request[Any, Any, Any]) -> SeeOther:
        return SeeOther(f"{PATH}/log/{await _jump(console, jumps.read(request.scope['query_string']).to.strip())}")

    @get("/log/{position:int}")
    async def message(request: Request[Any, Any, Any], position: FromPath[int]) -> Page:
        return await _message_page(console, request, position)

    return [log, stream, jump, message]


async def _list(console: Console, wanted: LogQuery) -> Listed:
    """Without a filter from the log itself; with one by the index, as far as that reaches."""
    try:
        entries = await _entries(console, wanted)
    except NotIndexed as error:
        return Listed([], trouble=str(error))
    except TooSlow:
        return Listed(
            [], trouble="Few messages fit this, and finding them takes too long. Narrow it by time or subject."
        )
    shown = entries[:PAGE_MESSAGES]
    more = len(entries) > PAGE_MESSAGES
    if wanted.after is not None:
        return Listed(shown[::-1], has_older=True, has_newer=more)
    return Listed(shown, has_older=more, has_newer=wanted.before is not None)


async def _entries(console: Console, wanted: LogQuery) -> list[Entry]:
    """One more than a page, in the direction that is asked for."""
    limit = PAGE_MESSAGES + 1
    if not wanted.filter.is_empty:
        await console.index.gather()
        return await console.index.ask(
            lambda index: index.find(wanted.filter, before=wanted.before, after=wanted.after, limit=limit)
        )
    log = console.app.store.log
    if wanted.after is not None:
        return [_entry(record) for record in await log.read(wanted.after, limit)]
    end = min(wanted.before - 1 if wanted.before else POSITION_MAX, await log.head())
    records = await log.read(max(0, end - limit), min(limit, max(0, end)))
    return [_entry(record) for record in reversed(records)]


def _entry(record: Record) -> Entry:
    return Entry(
        record.position,
        record.name,
        record.subject,
        record.recorded_at_us,
        record.actor,
        record.fence,
        record.causation_id is not None,
    )


def _fits(wanted: Filter, record: Record) -> bool:
    return (
        wanted.feature in (None, record.name.partition("/")[0])
        and wanted.name in (None, record.name)
        and wanted.subject in (None, record.subject)
        and wanted.correlation_id in (None, record.correlation_id)
        and record.recorded_at_us >= (wanted.since_us or 0)
    )


async def _tail(console: Console, request: Request[Any, Any, Any], wanted: Filter, after: int) -> AsyncIterator[bytes]:
    """New messages as rows of the table, as they come; of a burst the newest."""
    yield b"retry: 1000\n\n"
    async for head in console.streams.growth(console.app, after=after):
        records = await console.app.store.log.read(max(after, head - TAIL_MESSAGES), TAIL_MESSAGES)
        after = head
        if entries := [_entry(record) for record in reversed(records) if _fits(wanted, record)]:
            yield event("messages", templates.render(request.scope, "log_rows.html", entries=entries, fresh=True))
        yield event("head", f"{head:,}")


async def _jump(console: Console, text: str) -> int:
    """The position that somebody means.

    Raises:
        NotFound: there is no such message.
    """
    bare = text.replace(",", "").replace(".", "")
    if bare.isascii() and bare.isdigit() and len(bare) < 19:
        return int(bare)
    if (position := await _position_of(console, text)) is None:
        raise NotFound(f"There is no message with the id {text[:100]!r}, as far as the index reaches.")
    return position


async def _position_of(console: Console, id: str) -> int | None:
    await console.index.gather()
    try:
        return await console.index.ask(lambda index: index.position_of(id))
    except (NotIndexed, TooSlow):
        return None


async def _message_page(console: Console, request: Request[Any, Any, Any], position: int) -> Page:
    records = await console.app.store.log.read(position - 1, 1) if 0 < position <= POSITION_MAX else []
    if not records or records[0].position != position:
        raise NotFound(f"There is no message at position {position}; the log ends at {console.app.position}.")
    [record] = records
    return await console.page(
        request,
        "message.html",
        record=record,
        recorded="recorded" in request.query_params,
        related=await _related(console, record),
        chain=await chain_of(console, record.correlation_id),
        own={position},
    )


async def _related(console: Console, record: Record) -> Related:
    await console.index.gather()
    try:
        return await console.index.ask(
            lambda index: Related(
                None if record.causation_id is None else index.position_of(record.causation_id),
                index.effects(record.id, limit=EFFECTS_MAX),
                index.jobs_of(record.position, limit=EFFECTS_MAX),
            )
        )
    except (NotIndexed, TooSlow):
        return Related()


def _moment(text: str) -> int | None:
    """Microseconds since 1970 of what a field of a browser says, in UTC; None for what is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return round(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1_000_000)

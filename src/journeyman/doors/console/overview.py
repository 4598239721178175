"""The first page: is it well, what waits, what went on lately."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from markupsafe import Markup

from journeyman.doors.console.charts import SPANS, Span, bars, ticks
from journeyman.doors.console.console import Console
from journeyman.doors.console.index.reader import Bucket, TooSlow
from journeyman.doors.console.index.threads import NotIndexed
from journeyman.doors.console.wording import SECOND_US
from journeyman.doors.web.answers import Page
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.heartbeat import Note
from journeyman.status import NOT_RUNNING, WorkerStatus
from journeyman.tables import AppState
from journeyman.todo.jobs import JobRow
from journeyman.todo.ledger import jobs_state
from journeyman.todo.overview import oldest_waiting

#: Over how long the present rate is counted, in seconds.
RATE_S: Final = 10.0

#: From which age on a job that could be tried is said to wait for long, in seconds.
LONG_WAIT_S: Final = 300.0

#: How far a worker may be behind the head before that is said.
LAG_MAX: Final = 1000


class OverviewQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far back the charts go."""

    span: str = "hour"


class Concern(msgspec.Struct, frozen=True):
    """Something that somebody should look at, with the path of where to. `tone` is "bad" or "wait"."""

    tone: str
    text: str
    path: str


class Oldest(msgspec.Struct, frozen=True):
    """The job that could be tried, and waits for longest."""

    row: JobRow
    waits_us: int


class Chart(msgspec.Struct, frozen=True):
    """A drawn chart, with its sum."""

    what: str
    total: int
    most: int
    drawing: Markup
    tone: str


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What the page shows."""

    workers: list[WorkerStatus]
    processes: dict[str, Note]
    oldest: Oldest | None
    concerns: list[Concern]
    rate: float | None
    failures: int | None
    span: Span
    charts: list[Chart]
    ticks: list[str]

    @property
    def is_well(self) -> bool:
        """Whether nothing asks for a person."""
        return not self.concerns


def overview_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The overview, and the part of it that is renewed."""
    reader = QueryStringReader(OverviewQuery)

    async def look(request: Request[Any, Any, Any]) -> Overview:
        span = SPANS.get(reader.read(request.scope["query_string"]).span, SPANS["hour"])
        return await overview(console, span)

    @get("/")
    async def page(request: Request[Any, Any, Any]) -> Page:
        return await console.page(request, "overview.html", shown=await look(request), spans=list(SPANS))

    @get("/overview")
    async def part(request: Request[Any, Any, Any]) -> Page:
        """What the page asks for again and again."""
        return await console.page(request, "overview_part.html", shown=await look(request), spans=list(SPANS))

    return [page, part]


async def overview(console: Console, span: Span) -> Overview:
    """Look at everything once."""
    app = console.app
    workers, processes = await app.workers(), await app.instances()
    oldest = await app.state(lambda state: _oldest(state, [one.name for one in workers], console.now_us))
    rate, buckets = await _lately(console, span)
    hour = buckets if span.name == "hour" else (await _lately(console, SPANS["hour"]))[1]
    return Overview(
        workers=workers,
        processes=processes,
        oldest=oldest,
        concerns=[*_concerns_of_workers(workers, processes), *_concerns_of_app(console, oldest)],
        rate=rate,
        failures=sum(one.failures for one in hour) if hour else None,
        span=span,
        charts=_charts(buckets, span),
        ticks=ticks([one.start_us for one in buckets], span),
    )


def _oldest(state: AppState, workers: list[str], now_us: int) -> Oldest | None:
    rows = [row for worker in workers if (row := oldest_waiting(jobs_state(state), worker)) is not None]
    due = [row for row in rows if row.due_at_us <= now_us]
    if not due:
        return None
    row = min(due, key=lambda row: row.due_at_us)
    return Oldest(row, now_us - row.due_at_us)


async def _lately(console: Console, span: Span) -> tuple[float | None, list[Bucket]]:
    """The present rate, and the counts over time; none of them without an index."""
    now_us = console.now_us
    await console.index.gather()
    try:
        return await console.index.ask(
            lambda index: (
                index.rate(now_us=now_us, over_s=RATE_S),
                index.buckets(until_us=now_us, minutes=span.minutes, count=span.count),
            )
        )
    except (NotIndexed, TooSlow):
        return None, []


def _charts(buckets: list[Bucket], span: Span) -> list[Chart]:
    starts_us = [one.start_us for one in buckets]
    counted = {
        ("Messages", "accent"): [one.messages for one in buckets],
        ("Answers", "good"): [one.answers for one in buckets],
        ("Failures", "bad"): [one.failures for one in buckets],
    }
    return [
        Chart(what, sum(counts), max(counts), bars(counts, starts_us=starts_us, what=what, span=span, tone=tone), tone)
        for (what, tone), counts in counted.items()
        if buckets
    ]


def _concerns_of_workers(workers: list[WorkerStatus], processes: dict[str, Note]) -> list[Concern]:
    found = []
    if workers and not processes:
        found.append(Concern("bad", "No process runs the workers: start journeyman work.", "/console/store"))
    for worker in workers:
        path = f"/console/worker?name={worker.name}"
        if worker.parked:
            jobs = "1 job is" if worker.parked == 1 else f"{worker.parked:,} jobs are"
            found.append(
                Concern("bad", f"{worker.name}: {jobs} parked and need a decision.", f"{path}&standing=parked")
            )
        if worker.status == "paused":
            found.append(Concern("wait", f"{worker.name} is paused.", path))
        elif worker.status not in ("running", NOT_RUNNING):
            because = f": {worker.last_error}" if worker.last_error else ""
            found.append(Concern("bad", f"{worker.name} is {worker.status}{because}.", path))
        if (worker.lag or 0) > LAG_MAX:
            found.append(Concern("wait", f"{worker.name} is {worker.lag:,} messages behind.", path))
    return found


def _concerns_of_app(console: Console, oldest: Oldest | None) -> list[Concern]:
    found = []
    if (stalled_s := console.app.stalled_s) is not None:
        text = f"The store has not answered for {stalled_s:.0f} s: nothing can be recorded."
        found.append(Concern("bad", text, "/console/store"))
    if oldest is not None and oldest.waits_us > LONG_WAIT_S * SECOND_US:
        path = f"/console/worker?name={oldest.row.worker}&standing=waiting"
        found.append(Concern("wait", f"{oldest.row.worker}: a job has waited for long.", path))
    return found

"""`GET /metrics`: what monitors look at, in the format of Prometheus. Each is described in docs/observability.md.

All of it is read when it is asked for: from what the process counts, and from the state and the store, so that a
restart loses nothing of what the log knows. Labels have few values: names that the application declares, never what
somebody sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from journeyman.app import App
from journeyman.doors.web.answers import Answer
from journeyman.doors.web.streams import Streams
from journeyman.errors import JourneymanError
from journeyman.meter import Distribution
from journeyman.status import WorkerStatus
from journeyman.todo.jobs import WorkerRow
from journeyman.todo.ledger import jobs_state

#: How long the store and the state may take to be looked at, in seconds; then only what the process counts is told.
LOOK_S: Final = 2.0


class Seen(Struct, frozen=True, kw_only=True):
    """What the store and the state say at one scrape."""

    workers: list[WorkerStatus]
    rows: list[WorkerRow]
    processes: int
    snapshot_age: int


def metrics_handler(app: App, streams: Streams) -> HTTPRouteHandler:
    """The handler."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)

    @get("/metrics")
    async def metrics(request: Request[Any, Any, Any]) -> Answer:
        seen = await _look(app)
        told = generate_latest(_Scrape(metrics_of(app, streams, seen))) + generate_latest(registry)
        return Answer(told, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return metrics


class _Scrape(Collector):
    """The metrics of one moment."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


async def _look(app: App) -> Seen | None:
    """What the store and the state say; None while they can't be asked."""
    try:
        async with asyncio.timeout(LOOK_S):
            workers = await app.workers()
            rows = await app.state(lambda state: list(jobs_state(state).workers))
            processes = len(await app.instances())
            snapshots = await app.snapshots.list() if app.snapshots is not None else []
            kept = max((snapshot.position for snapshot in snapshots if snapshot.current), default=0)
            return Seen(workers=workers, rows=rows, processes=processes, snapshot_age=app.position - kept)
    except (JourneymanError, TimeoutError):
        return None


def metrics_of(app: App, streams: Streams, seen: Seen | None) -> Iterator[Metric]:
    """All metrics; without what the store and the state say, where they can't be asked."""
    yield _gauge("build_info", "Always 1; the version is a label.", 1, version=version("journeyman"))
    yield _gauge("store_readable", "1 while the store and the state can be asked, else 0.", int(seen is not None))
    yield _gauge("position", "The last position that queries of this process see.", app.position)
    yield _gauge("stalled_seconds", "For how long the store has not answered; 0 when all is well.", app.stalled_s or 0)
    yield _gauge("streams_open", "Streams of server-sent events that are open.", streams.open)
    yield from _commands(app)
    yield from _requests(app)
    if seen is not None:
        yield _gauge("processes", "Processes that run workers, and live.", seen.processes)
        yield _gauge("snapshot_age_messages", "Messages that a start would have to apply.", seen.snapshot_age)
        yield from _workers(seen.workers)
        yield from _totals(seen.rows)


def _commands(app: App) -> Iterator[Metric]:
    meter = app.meter
    commands = CounterMetricFamily(
        "journeyman_commands", "Commands given to this process, by what became of them.", labels=["command", "outcome"]
    )
    for labels, count in sorted(meter.commands.items()):
        if count:
            commands.add_metric(labels, count)
    yield commands
    waits = _histogram("command_duration_seconds", "From a command's coming to its receipt or refusal.")
    _add(waits, (), meter.command_s)
    yield waits
    appends = _histogram("append_duration_seconds", "How long the store takes to make a batch durable.")
    _add(appends, (), meter.append_s)
    yield appends
    sizes = _histogram("append_messages", "Messages in one batch.")
    _add(sizes, (), meter.append_messages)
    yield sizes
    attempts = _histogram("attempt_duration_seconds", "How long perform takes, however it ends.", "worker")
    for worker, seconds in sorted(meter.attempt_s.items()):
        _add(attempts, (worker,), seconds)
    yield attempts


def _requests(app: App) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "journeyman_http_requests", "Requests answered by this process.", labels=["method", "route", "status"]
    )
    for (method, route, status), count in sorted(app.meter.requests.items()):
        requests.add_metric((method, route, str(status)), count)
    yield requests
    seconds = _histogram("http_request_duration_seconds", "To the beginning of the answer.", "method", "route")
    for labels, distribution in sorted(app.meter.request_s.items()):
        _add(seconds, labels, distribution)
    yield seconds


def _workers(workers: Iterable[WorkerStatus]) -> Iterator[Metric]:
    lag = GaugeMetricFamily("journeyman_worker_lag_messages", "Messages not looked at yet.", labels=["worker"])
    running = GaugeMetricFamily("journeyman_worker_processes", "Processes that run the worker.", labels=["worker"])
    jobs = GaugeMetricFamily("journeyman_jobs", "Open jobs, by where they stand.", labels=["worker", "standing"])
    for worker in workers:
        running.add_metric((worker.name,), worker.processes)
        if worker.lag is not None:
            lag.add_metric((worker.name,), worker.lag)
        for standing in _STANDINGS:
            if (count := getattr(worker, standing)) is not None:
                jobs.add_metric((worker.name, standing), count)
    yield from (lag, running, jobs)


def _totals(rows: Iterable[WorkerRow]) -> Iterator[Metric]:
    """What the log says since it began: it does not begin anew with a process."""
    rows = list(rows)
    paused = GaugeMetricFamily("journeyman_worker_paused", "1 while the worker is paused.", labels=["worker"])
    for row in rows:
        paused.add_metric((row.worker,), int(row.paused))
    yield paused
    for field, (name, text) in _TOTALS.items():
        total = CounterMetricFamily(f"journeyman_{name}", f"{text}, since the log began.", labels=["worker"])
        for row in rows:
            total.add_metric((row.worker,), getattr(row, field))
        yield total


_STANDINGS: Final = ("waiting", "running", "retrying", "parked")

#: The totals that a worker's row in the state has, and what they are called.
_TOTALS: Final = {
    "opened": ("jobs_opened", "Jobs opened"),
    "answered": ("jobs_answered", "Jobs that got an answer of the application's"),
    "ended": ("jobs_ended", "Jobs that ended without an answer of the application's"),
    "discarded": ("jobs_discarded", "Jobs that a person discarded"),
    "attempts": ("attempts", "Attempts begun"),
    "failures": ("attempts_failed", "Attempts that failed by the job's own fault"),
}


def _gauge(name: str, text: str, value: float, **labels: str) -> Metric:
    gauge = GaugeMetricFamily(f"journeyman_{name}", text, labels=list(labels))
    gauge.add_metric(list(labels.values()), value)
    return gauge


def _histogram(name: str, text: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(f"journeyman_{name}", text, labels=labels)


def _add(family: HistogramMetricFamily, labels: tuple[str, ...], distribution: Distribution) -> None:
    bounds = [*map(str, distribution.bounds), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(distribution.counts), strict=True)), distribution.sum)

"""/metrics tells what happened, in a form that Prometheus reads, under bounded names and labels that are described."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from journeyman import App, Attempt, Command, NotReady, Store
from journeyman.doors.serving import serving
from journeyman.executor import Limits
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held
from tests.doors.http.shop import client_of, make_app, place, shop
from tests.todo.desk import Answer, Ask, Desk, Parking, answered, make, running, standing, until

DOCS = (Path(__file__).parents[3] / "docs/observability.md").read_text()


async def scrape(client: httpx2.AsyncClient) -> dict[str, Metric]:
    """The metrics, by name without _total."""
    response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {metric.name: metric for metric in text_string_to_metric_families(response.text)}


def value(metrics: dict[str, Metric], name: str, **labels: str) -> float:
    """A sample: a counter by its name with _total, a histogram's by its own with _count, _sum or _bucket."""
    samples = [sample for metric in metrics.values() for sample in metric.samples]
    [found] = [sample.value for sample in samples if (sample.name, sample.labels) == (name, labels)]
    return float(found)


async def test_commands_are_counted_by_name_and_outcome() -> None:
    async with shop() as client:
        for number in (1, 2):
            assert (await place(client, {"order_id": "a", "number": number})).status_code == (201, 409)[number - 1]
        await place(client, {"order_id": "b", "number": 666})
        metrics = await scrape(client)

    counted = {
        outcome: value(metrics, "journeyman_commands_total", command="shop/place", outcome=outcome)
        for outcome in ("recorded", "rejected", "broken")
    }
    assert counted == {"recorded": 1, "rejected": 1, "broken": 1}
    assert value(metrics, "journeyman_command_duration_seconds_count") == 3
    assert value(metrics, "journeyman_append_messages_sum") == 1
    assert value(metrics, "journeyman_position") == 1


async def test_requests_are_counted_by_route_and_never_by_what_somebody_put_into_the_path() -> None:
    async with shop() as client:
        for path in ("/queries/shop/get?order_id=secret", "/no/secret", "/commands/shop/secret", "/log?after=7"):
            await client.get(path)
        await client.request("SECRET", "/log")
        await client.get("/log", headers={"host": "secret.example"})
        text = (await client.get("/metrics")).text
        metrics = await scrape(client)

    assert "secret" not in text.lower()

    def count(method: str, route: str, status: str) -> float:
        return value(metrics, "journeyman_http_requests_total", method=method, route=route, status=status)

    assert count("GET", "/queries/shop/get", "404") == 1
    assert count("GET", "/log", "200") == 1
    assert count("GET", "none", "404") == 2
    assert count("GET", "none", "421") == 1
    assert count("GET", "/metrics", "200") == 1
    assert value(metrics, "journeyman_http_request_duration_seconds_count", method="GET", route="/log") == 1
    routes = {sample.labels["route"] for sample in metrics["journeyman_http_requests"].samples}
    assert routes <= {"none", "/log", "/queries/shop/get", "/metrics"}


async def test_an_open_stream_is_counted_when_it_begins() -> None:
    async with shop() as client, client.stream("GET", "/log/stream") as stream:
        assert stream.status_code == 200
        metrics = await scrape(client)

    assert value(metrics, "journeyman_streams_open") == 1
    assert value(metrics, "journeyman_http_requests_total", method="GET", route="/log/stream", status="200") == 1


async def test_jobs_and_attempts_are_counted_by_worker_and_a_restart_loses_none_of_the_logs_totals() -> None:
    async def perform(attempt: Attempt[Ask]) -> Command:
        if attempt.id == "bad":
            raise ValueError("bad")
        return Answer(key=attempt.id, text="")

    store = MemoryStore()
    async with desk_of(make(perform, Parking), store) as (app, client):
        await app.execute(Ask(key="good"))
        await app.execute(Ask(key="bad"))
        await app.execute(Ask(key="late", due_in_s=1000.0))
        await until(app, standing("bad", "parked"))
        await until(app, answered("good"))
        before = await scrape(client)
    async with desk_of(make(perform, Parking), store) as (app, client):
        after = await scrape(client)

    for metrics in (before, after):
        for name, count in {"jobs_opened": 3, "jobs_answered": 1, "attempts": 4, "attempts_failed": 3}.items():
            assert value(metrics, f"journeyman_{name}_total", worker=Desk.name) == count, name
        for standing_, count in {"parked": 1, "waiting": 1, "running": 0, "retrying": 0}.items():
            assert value(metrics, "journeyman_jobs", worker=Desk.name, standing=standing_) == count, standing_
        assert value(metrics, "journeyman_worker_processes", worker=Desk.name) == 1
        assert value(metrics, "journeyman_worker_paused", worker=Desk.name) == 0
        assert value(metrics, "journeyman_processes") == 1
        assert value(metrics, "journeyman_worker_lag_messages", worker=Desk.name) == 0
    assert value(before, "journeyman_attempt_duration_seconds_count", worker=Desk.name) == 4
    assert value(before, "journeyman_snapshot_age_messages") == value(before, "journeyman_position")


@asynccontextmanager
async def desk_of(worker: Desk, store: Store) -> AsyncIterator[tuple[App, httpx2.AsyncClient]]:
    async with running(worker, store=store) as app, serving(app, port=0) as url, client_of(url) as client:
        yield app, client


async def test_while_the_store_is_away_what_the_process_counts_is_told_all_the_same() -> None:
    store = FaultyStore(MemoryStore())
    async with shop(store=store) as client:
        await client.post("/commands/shop/touch", json={})
        store.faulty_log.fail_reads(NotReady("away"))
        away = await scrape(client)
        store.faulty_log.fail_reads(None)
        back = await scrape(client)

    assert value(away, "journeyman_store_readable") == 0
    assert value(away, "journeyman_commands_total", command="shop/touch", outcome="recorded") == 1
    assert "journeyman_processes" not in away
    assert value(back, "journeyman_store_readable") == 1


async def test_a_stalled_store_is_told_with_how_long_it_stalls() -> None:
    store = FaultyStore(MemoryStore())
    app = make_app(Limits(stall_s=0.01))
    async with shop(app, store) as client:
        held = store.faulty_log.fail_next(Held())
        waiting = asyncio.create_task(client.post("/commands/shop/touch", json={}))
        await held.arrived.wait()
        while app.stalled_s is None:  # noqa: ASYNC110  # what stalls sets no event
            await asyncio.sleep(0.001)
        metrics = await scrape(client)
        held.release()
        assert (await waiting).status_code == 201

    assert value(metrics, "journeyman_stalled_seconds") > 0


async def test_two_applications_in_one_process_are_counted_apart() -> None:
    async with shop() as one, shop() as two:
        await one.post("/commands/shop/touch", json={})
        metrics = await scrape(two)

    assert value(metrics, "journeyman_append_messages_sum") == 0
    assert value(metrics, "process_open_fds") > 0


async def test_every_metric_is_described_and_nothing_else_is() -> None:
    async def all_names() -> set[str]:
        worker = make()
        async with desk_of(worker, MemoryStore()) as (app, client):
            await app.execute(Ask(key="a"))
            await until(app, answered("a"))
            return {_told(metric) for metric in (await scrape(client)).values() if "journeyman" in metric.name}

    described = set(re.findall(r"^\| `(journeyman_\w+)` \|", DOCS, re.MULTILINE))
    assert described == await all_names()


def _told(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


async def test_names_and_units_follow_the_rules_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/: base units, plural, at the end; _total for what only grows."""
    async with shop() as client:
        metrics = [metric for metric in (await scrape(client)).values() if metric.name.startswith("journeyman_")]
    assert len(metrics) > 10
    for metric in metrics:
        assert metric.documentation.endswith("."), metric.name
        assert not re.search(r"_(ms|milliseconds|minutes|count|sum|bucket)$", metric.name), metric.name
        assert not set().union(*(sample.labels for sample in metric.samples)) & {"subject", "job", "path", "actor"}
        if metric.type == "histogram":
            assert metric.name.endswith(("_seconds", "_messages")), metric.name

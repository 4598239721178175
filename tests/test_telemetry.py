"""One trace leads from a request to the answer, over processes; what was said in it is in no span."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from journeyman import App, Attempt, Command, Message, Record, TodoWorker, reacts
from journeyman.codec import decode_meta
from journeyman.doors.serving import serving
from journeyman.spans import LINKS_MAX
from journeyman.store.memory import MemoryStore
from journeyman.telemetry import Tracing
from journeyman.traceparent import taken
from tests.doors.http.shop import client_of
from tests.todo.desk import Answer, Ask, Desk, Note, answered, desk, idle, log_of, make, running, until

SECRET = "what a person wrote"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REQUEST = f"00-{TRACE}-{SPAN}-01"


class Echo(TodoWorker):
    """Asks for what a note says."""

    name = "desk/echo"

    @reacts(Note, name="ask", since=0)
    def ask(self, message: Message[Note]) -> Ask:
        return Ask(key=message.body.text.partition(":")[0])


async def call_a_model(attempt: Attempt[Ask]) -> Command:
    """What an instrumented client library does inside `perform`."""
    with trace.get_tracer("model").start_as_current_span("chat"):
        return Answer(key=attempt.id, text=SECRET)


def make_workers() -> list[TodoWorker]:
    return [Echo(), make(call_a_model)]


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Collects spans, for this test only: OpenTelemetry lets a process set its provider once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def one(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    [found] = named(exporter, name)
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def traceparent(record: Record) -> str | None:
    return decode_meta(record.meta).traceparent if record.meta is not None else None


async def note(client: httpx2.AsyncClient, text: str, **headers: str) -> httpx2.Response:
    return await client.post("/commands/desk/note", json={"text": text}, headers=headers)


async def test_one_trace_leads_from_the_request_to_the_answer(spans: InMemorySpanExporter) -> None:
    async with (
        running(*make_workers()) as app,
        serving(app, port=0) as url,
        client_of(url) as client,
    ):
        assert (await note(client, f"k:{SECRET}", traceparent=REQUEST)).status_code == 201
        await until(app, answered("k"))
        await until(app, idle)
        records = await log_of(app, "desk/note", "desk/ask", "desk/answer")

    request, execute = one(spans, "POST /commands/desk/note"), one(spans, "execute desk/note")
    react, attempt, chat = one(spans, "react desk/echo ask"), one(spans, "attempt desk/answers"), one(spans, "chat")
    assert parent_of(request) == int(SPAN, 16)
    assert [parent_of(execute), parent_of(react), parent_of(attempt), parent_of(chat)] == [
        id_of(request),
        id_of(execute),
        id_of(react),
        id_of(attempt),
    ]
    assert (request.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    for name in ("apply", "append"):
        below = {parent_of(span) for span in named(spans, name) if span.parent is not None}
        assert below >= {id_of(execute), id_of(react), id_of(attempt)}, name
    assert {span.context.trace_id for span in spans.get_finished_spans() if span.context} == {int(TRACE, 16)}
    assert [traceparent(record) for record in records] == [
        f"00-{TRACE}-{id_of(span):016x}-01" for span in (execute, react, attempt)
    ]
    assert all(SECRET not in span.to_json() for span in spans.get_finished_spans())


async def test_it_goes_on_in_another_process_and_through_one_that_collects_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'desk.db'}"
    async with (
        running(*make_workers(), store=url, workers_run=False) as app,
        serving(app, port=0) as address,
        client_of(address) as client,
    ):
        await note(client, f"k:{SECRET}", traceparent=REQUEST)
    finished = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "tests.traced_process", url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    told = {span["name"]: span for span in map(json.loads, finished.stdout.splitlines())}
    assert told["react desk/echo ask"]["parent_id"] == f"0x{SPAN}"
    assert told["attempt desk/answers"]["parent_id"] == told["react desk/echo ask"]["context"]["span_id"]
    assert told["chat"]["parent_id"] == told["attempt desk/answers"]["context"]["span_id"]
    assert {span["context"]["trace_id"] for span in told.values()} == {f"0x{TRACE}"}
    assert SECRET not in finished.stdout


async def test_a_process_that_collects_nothing_passes_the_trace_on_through_its_own_workers() -> None:
    async with running(*make_workers()) as app, serving(app, port=0) as url, client_of(url) as client:
        assert not app.tracing.collects
        await note(client, "k", traceparent=REQUEST)
        await note(client, "other")
        await until(app, answered("k", "other"))
        await until(app, idle)
        records = await log_of(app, "desk/note", "desk/ask", "desk/answer")

    ours = [record for record in records if '"k"' in record.body.decode()]
    assert [traceparent(record) for record in ours] == [REQUEST] * 3
    others = [record for record in records if '"other"' in record.body.decode()]
    assert [traceparent(record) for record in others] == [None] * 3
    assert others[0].meta is None, "what belongs to no trace has no meta for it"


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "00",
        REQUEST.upper(),
        REQUEST[:-1],
        REQUEST + "0",
        REQUEST + "-00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        "٠٠-" + REQUEST[3:],
        "x" * 60_000,
    ],
)
async def test_a_trace_parent_that_is_none_does_nothing(hostile: str) -> None:
    assert taken(hostile) is None
    async with running() as app, serving(app, port=0) as url, client_of(url) as client:
        headers = [(b"traceparent", hostile.encode())]
        answer = await client.post("/commands/desk/note", json={"text": "a"}, headers=headers)
        [record] = await log_of(app)

    assert answer.status_code == 201
    assert record.meta is None


async def test_two_trace_parents_are_none(spans: InMemorySpanExporter) -> None:
    async with running() as app, serving(app, port=0) as url, client_of(url) as client:
        twice = [("traceparent", REQUEST), ("traceparent", REQUEST.replace(SPAN, SPAN[::-1]))]
        await client.post("/commands/desk/note", json={"text": "a"}, headers=twice)

    request = one(spans, "POST /commands/desk/note")
    assert request.parent is None


async def test_what_is_not_sampled_stays_so_and_is_passed_on(spans: InMemorySpanExporter) -> None:
    unsampled = REQUEST[:-2] + "00"
    async with running(*make_workers()) as app, serving(app, port=0) as url, client_of(url) as client:
        await note(client, "k", traceparent=unsampled)
        await until(app, answered("k"))
        await until(app, idle)
        records = await log_of(app, "desk/note", "desk/ask", "desk/answer")

    assert spans.get_finished_spans() == ()
    told = [traceparent(record) or "" for record in records]
    assert [text[:36] + text[-2:] for text in told] == [unsampled[:36] + "00"] * 3


async def test_a_batch_of_many_commands_is_linked_to_each(spans: InMemorySpanExporter) -> None:
    async with running() as app:
        tracer = trace.get_tracer_provider().get_tracer("test")
        with tracer.start_as_current_span("caller"):
            await asyncio.gather(*(app.execute(Note(text=str(number))) for number in range(20)))
    executes = {id_of(span) for span in named(spans, "execute desk/note")}
    assert len(executes) == 20
    linked = [link.context.span_id for span in named(spans, "append") for link in span.links]
    single = [parent_of(span) for span in named(spans, "append") if not span.links]
    assert sorted(linked + single) == sorted(executes)
    assert max(len(span.links) for span in named(spans, "append")) <= LINKS_MAX


async def test_a_failed_attempt_tells_the_type_of_its_error_and_not_its_text(
    spans: InMemorySpanExporter,
) -> None:
    async def fail(attempt: Attempt[Ask]) -> Command:
        raise ValueError(SECRET)

    async with running(make(fail)) as app:
        await app.execute(Ask(key="k"))
        await until(app, answered("k"))
        await until(app, idle)

    attempts = named(spans, "attempt desk/answers")
    assert len(attempts) == Desk.retry.attempts
    for span in attempts:
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ValueError"
    assert all(SECRET not in span.to_json() for span in spans.get_finished_spans())


async def test_a_perform_in_a_thread_is_below_its_attempt(spans: InMemorySpanExporter) -> None:
    class Blocking(Desk):
        def perform(self, attempt: Attempt[Ask]) -> Any:
            with trace.get_tracer_provider().get_tracer("model").start_as_current_span("chat"):
                return Answer(key=attempt.id, text="")

    async with running(Blocking()) as app:
        await app.execute(Ask(key="k"))
        await until(app, answered("k"))
        await until(app, idle)

    assert parent_of(one(spans, "chat")) == id_of(one(spans, "attempt desk/answers"))


async def test_an_old_job_joins_the_trace_that_asked_for_it_after_a_restart(spans: InMemorySpanExporter) -> None:
    store = MemoryStore()
    async with running(*make_workers(), store=store, workers_run=False) as app:
        await app.execute(Ask(key="k"))
    async with running(*make_workers(), store=store) as app:
        await until(app, answered("k"))
        await until(app, idle)

    assert parent_of(one(spans, "attempt desk/answers")) == id_of(one(spans, "execute desk/ask"))


async def test_where_nothing_collects_nothing_is_measured() -> None:
    tracing = Tracing()
    tracing.begin()
    assert not tracing.collects
    with tracing.span("a") as span, tracing.batch("b", []) as batch:
        assert span is batch is None
    assert isinstance(tracing.span("a"), nullcontext)


async def test_a_request_that_is_refused_is_a_span_without_what_it_asked_for(spans: InMemorySpanExporter) -> None:
    async with running() as app, serving(app, port=0) as url, client_of(url) as client:
        await client.get(f"/{SECRET}?q={SECRET}", headers={"user-agent": SECRET})
    [span] = spans.get_finished_spans()
    assert span.name == "GET none"
    assert "wrote" not in span.to_json()


async def test_the_applications_own_span_is_above_what_it_executes(spans: InMemorySpanExporter) -> None:
    app = App(features=[desk])
    async with app.running("memory:"):
        tracer = trace.get_tracer_provider().get_tracer("mine")
        with tracer.start_as_current_span("mine") as mine:
            await app.execute(Note(text="a"))
    assert parent_of(one(spans, "execute desk/note")) == mine.get_span_context().span_id


async def test_a_start_that_tracing_fails_can_be_made_again() -> None:
    class Broken(Tracing):
        def begin(self) -> None:
            raise RuntimeError("the provider is broken")

    app = App(features=[desk], workers=[])
    whole, app.tracing = app.tracing, Broken()
    with pytest.raises(RuntimeError, match="the provider is broken"):
        await app.start("memory:")
    app.tracing = whole
    async with app.running("memory:"):
        assert app.position == 0

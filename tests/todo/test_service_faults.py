"""What each failure of a real HTTP service does to the job and to the worker, where people see it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import msgspec
import pytest

from journeyman import App, Attempt, Command, Record, ResumeWorker, Retry, RetryJob
from journeyman.examples.blog.posts.openai_service import OpenAISummarizer
from journeyman.testing import llm as fake
from journeyman.testing.llm import Ending, FakeLLM, Reply, Request
from journeyman.todo import lane as lanes
from tests.todo.desk import (
    WAIT_S,
    Answer,
    Ask,
    Desk,
    answered,
    answers,
    idle,
    log_of,
    make,
    running,
    standing,
    until,
)

#: How long a reply is waited for, in seconds: where replies hang, and where a slow machine must not look like that.
TOO_SLOW_S = 1.0
PATIENT_S = 10.0

IN_AN_HOUR = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


class Service:
    """A service that fails as told until it is mended, for all documents or for some."""

    def __init__(self, reply: Reply, *, fails_for: Callable[[str], bool] = lambda text: True) -> None:
        self._reply = reply
        self._fails_for = fails_for
        self.mended = False

    def __call__(self, request: Request) -> Reply:
        text = msgspec.json.decode(request.body["messages"][1]["content"])["text"]
        return self._reply if self._fails_for(text) and not self.mended else fake.ok(f"About {text}.")


@asynccontextmanager
async def client_of(base_url: str, *, timeout_s: float = PATIENT_S) -> AsyncIterator[Any]:
    """A `perform` whose real client calls the service."""
    client = OpenAISummarizer(
        base_url=base_url, api_key="sk-any", model="small", characters_max=500, timeout_s=timeout_s
    )

    async def perform(attempt: Attempt[Ask]) -> Command:
        return Answer(key=attempt.id, text=await client.summarize("A title", attempt.id, key=attempt.key))

    try:
        yield perform
    finally:
        await client.close()


@asynccontextmanager
async def calling(
    service: Service, *, too_slow_s: float = PATIENT_S, **attributes: Any
) -> AsyncIterator[tuple[App, FakeLLM]]:
    async with (
        FakeLLM([service]) as llm,
        client_of(llm.base_url, timeout_s=too_slow_s) as perform,
        running(make(perform, **attributes)) as app,
    ):
        yield app, llm


async def go_on(app: App, key: str) -> None:
    """A person resumes the worker, and lets the job be tried at once."""
    await app.execute(ResumeWorker(worker=Desk.name), actor="ann")
    if await app.state(standing(key, "retrying")):
        await app.execute(RetryJob(worker=Desk.name, job=key), actor="ann")


async def body_of(app: App, name: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(record.body) for record in await log_of(app, f"journeyman/{name}")]


@pytest.fixture
def quick_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PROBE_FIRST_S", 0.004)
    monkeypatch.setattr(lanes, "PROBE_MAX_S", 0.05)


@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (fake.status(429, headers={"Retry-After": "30"}), "lane paused", "RateLimited: The service answered 429"),
        (fake.status(429, headers={"Retry-After": IN_AN_HOUR}), "lane paused", "RateLimited: The service answered 429"),
        (fake.status(500), "running", "ServiceError: The service answered 500"),
        (fake.status(503), "running", "ServiceError: The service answered 503"),
        (fake.reset(), "running", "ServiceError: The exchange with the service broke off"),
        (fake.truncated(), "running", "ServiceError: The exchange with the service broke off"),
        (fake.malformed(), "running", "ServiceError: The service's answer is not a chat completion"),
        (fake.empty(), "running", "ServiceError: The model wrote nothing"),
        (fake.long(3_000_000), "running", "ServiceError: The service's answer has more than"),
        (fake.hang(), "running", "TimeoutError: The service gave no complete answer within 1 s"),
        (fake.trickle(), "running", "TimeoutError: The service gave no complete answer within 1 s"),
        (fake.status(401), "lane stopped", "Unauthorized: The service answered 401: correct OPENAI_API_KEY"),
        (fake.status(404), "lane stopped", "Unauthorized: The service answered 404: correct SUMMARY_MODEL"),
        (
            fake.status(307, headers={"Location": "http://127.0.0.1:1/"}),
            "lane stopped",
            "Unauthorized: The service answered 307, a redirect",
        ),
    ],
    ids=lambda value: f"{value.status} {value.ending.name}" if isinstance(value, Reply) else "",
)
async def test_a_failure_of_the_service_is_shown_on_the_job_and_charged_to_nobody(
    reply: Reply, status: str, told: str
) -> None:
    service = Service(reply)
    too_slow_s = TOO_SLOW_S if reply.ending in (Ending.HANG, Ending.TRICKLE) else PATIENT_S
    async with calling(service, too_slow_s=too_slow_s, retry=Retry(attempts=1)) as (app, _):
        await app.execute(Ask(key="a"))
        row = await until(app, standing("a", "retrying"))
        assert row.attempts == 0
        assert str(row.error).startswith(told)
        shown = (await app.workers())[0]
        assert (shown.status, shown.retrying) == (status, 1)
        if status != "running":
            assert str(shown.last_error).startswith(told)
        service.mended = True
        await go_on(app, "a")
        assert await until(app, answered("a")) == {"a": "answer: About a."}
        assert not await body_of(app, "job-failed")


@pytest.mark.parametrize("reply", [fake.refusal(), fake.filtered(), fake.status(400), fake.status(413)])
async def test_a_document_that_can_not_be_done_is_given_up_at_once(reply: Reply) -> None:
    async with calling(Service(reply)) as (app, llm):
        await app.execute(Ask(key="a"))
        assert (await until(app, answered("a")))["a"].startswith("fail: ")
        assert llm.calls == 1


async def test_a_service_that_refuses_connections_is_down_for_everybody() -> None:
    with socket.socket() as bound:  # Bound and not listening, so that nobody else gets the port.
        bound.bind(("127.0.0.1", 0))
        async with (
            client_of(f"http://127.0.0.1:{bound.getsockname()[1]}/v1") as perform,
            running(make(perform, concurrency=1)) as app,
        ):
            await app.execute(Ask(key="a"))
            row = await until(app, standing("a", "retrying"))
            shown = (await app.workers())[0]
            assert (shown.status, row.attempts) == ("lane paused", 0)
            assert str(shown.last_error).startswith("Unavailable: The service can't be reached")


@pytest.mark.usefixtures("quick_lane")
async def test_an_outage_gives_up_and_charges_no_job_and_ends_with_every_answer() -> None:
    service = Service(fake.status(503))
    async with calling(service, concurrency=8, retry=Retry(attempts=1)) as (app, llm):
        keys = [str(number) for number in range(8)]
        await asyncio.gather(*(app.execute(Ask(key=key)) for key in keys))
        async with asyncio.timeout(WAIT_S):
            await llm.wait_for_calls(50)
        service.mended = True
        found = await until(app, answered(*keys))
        assert found == {key: f"answer: About {key}." for key in keys}
        assert not await body_of(app, "job-failed")


@pytest.mark.usefixtures("quick_lane")
@pytest.mark.parametrize("poison", [{"3"}, {"3", "11"}], ids=len)
async def test_documents_that_always_give_500_are_given_up_and_hold_nobody_up(poison: set[str]) -> None:
    service = Service(fake.status(500), fails_for=poison.__contains__)
    retry = Retry(attempts=3, first_s=0.01, factor=1, max_s=0.01)
    async with calling(service, concurrency=8, retry=retry) as (app, _):
        sent = 0
        async with asyncio.timeout(WAIT_S):
            while not poison <= (await app.state(answers)).keys():
                await app.execute(Ask(key=str(sent)))
                await until(app, answered(*({str(sent)} - poison)))
                sent += 1
        await until(app, idle)
        found = await app.state(answers)
        assert {key for key, text in found.items() if text.startswith("fail: ")} == poison
        assert len(found) == sent
        assert len(await body_of(app, "job-failed")) == len(poison) * 2, "the third is the answer of give_up"
        assert (await app.workers())[0].status == "running"


@pytest.mark.usefixtures("quick_lane")
async def test_a_lone_document_that_always_gives_500_is_tried_after_growing_pauses_and_charged_nothing() -> None:
    service = Service(fake.status(500))
    async with calling(service, retry=Retry(attempts=1)) as (app, llm):
        await app.execute(Ask(key="a"))
        async with asyncio.timeout(WAIT_S):
            await llm.wait_for_calls(8)
        await until(app, standing("a", "retrying"))
        pauses = [body["retry_after_s"] for body in await body_of(app, "job-released")]
        assert all(0.002 * 2**number <= pause <= 0.05 for number, pause in enumerate(pauses[:4]))
        assert all(pause >= 0.025 for pause in pauses[4:])
        assert not await body_of(app, "job-failed")


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (FileNotFoundError(errno.ENOENT, "no such document"), "job-failed"),
        (httpx.ReadTimeout("a client's own error"), "job-failed"),
        (OSError(errno.ENETUNREACH, "network is unreachable"), "job-released"),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), "job-released"),
        (BrokenPipeError(), "job-released"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_errors_of_files_and_of_client_libraries_are_the_jobs_own(error: Exception, recorded: str) -> None:
    async def perform(attempt: Attempt[Ask]) -> Command:
        raise error

    async with running(make(perform, retry=Retry(attempts=2, first_s=30, max_s=30))) as app:
        await app.execute(Ask(key="a"))
        await until(app, standing("a", "retrying"))
        records: list[Record] = await log_of(app, "journeyman/job-failed", "journeyman/job-released")
        assert [record.name for record in records] == [f"journeyman/{recorded}"]

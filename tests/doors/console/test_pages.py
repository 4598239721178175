"""Every page answers, for readers too; only operators act; what is stored is text; and what is wrong is said."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from html import unescape
from typing import Any, Final, cast

import httpx2
import pytest
from msgspec import Struct

from journeyman import App, DiscardJob, OutcomeUnknown, PauseWorker, Store
from journeyman.doors.console import bulk
from journeyman.doors.web.access import Role
from journeyman.doors.web.streams import Streams
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, refuse, work
from journeyman.todo.jobs import JobFailed, JobRow, JobStarted
from journeyman.todo.ledger import jobs_state
from tests.doors.console.bakery import HOSTILE, Invoices, PlaceOrder, RequestInvoice, console_as, make_bakery
from tests.doors.console.histories import submit

WORKER: Final = Invoices.name


class Visitor(Struct, frozen=True):
    """A browser without a browser: asks for pages and sends forms."""

    client: httpx2.AsyncClient
    app: App

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        assert answer.headers["content-type"].startswith("text/html")
        return answer.text

    async def post(self, path: str, values: Mapping[str, Any] = {}, *, status: int = 303) -> httpx2.Response:
        answer = await self.client.post(path, data={"_csrf": "", **values})
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer

    async def follow(self, answer: httpx2.Response) -> str:
        return await self.get(answer.headers["location"])


@asynccontextmanager
async def visiting(
    role: Role = "operator", store: str | Store = "memory:", *, workers: bool = False
) -> AsyncIterator[Visitor]:
    app, _ = make_bakery()
    streams = Streams()
    async with app.running(store, workers=workers, drain_s=0.1):
        transport = httpx2.ASGITransport(app=cast(Any, console_as(app, role, streams)))
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://localhost", headers={"accept": "text/html"}
        ) as client:
            try:
                yield Visitor(client, app)
            finally:
                streams.end()
                await streams.ended()


async def place(app: App, *order_ids: str, **values: Any) -> None:
    for order_id in order_ids:
        await app.execute(PlaceOrder(**{"order_id": order_id, "customer": "Ada", **values}), actor="test")


async def ask(app: App, *keys: str) -> None:
    """Open jobs."""
    for key in keys:
        await app.execute(RequestInvoice(invoice_id=key, order_id=f"order-{key}", note=None), actor="test")


async def park(app: App, *keys: str) -> None:
    """Let attempts at these jobs fail for good."""
    for key in keys:
        await ask(app, key)
        row = await row_of(app, key)
        assert row is not None
        started = JobStarted(worker=WORKER, job=key, opened_at=row.opened_at, attempt=1, instance="one")
        cause = await app.messages.get(row.opened_at)
        fence = await submit(app, started, cause=cause)
        await submit(app, JobFailed(fence=fence, error=f"no ink for {key}", retry_after_s=None), cause=cause)


async def row_of(app: App, key: str) -> JobRow | None:
    return await app.state(lambda state: jobs_state(state).jobs.get((WORKER, key)))


def text_of(html: str) -> str:
    """What a page says, without its markup."""
    main = html.partition("<main")[2].partition("</main>")[0]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", "<main" + main)))


PAGES: Final = [
    "/console",
    "/console?span=week",
    "/console/overview",
    "/console/workers",
    f"/console/worker?name={WORKER}",
    f"/console/worker?name={WORKER}&standing=parked",
    f"/console/worker?name={WORKER}&over=true",
    f"/console/job?worker={WORKER}&job=broken",
    "/console/log",
    "/console/log?feature=orders&since=2020-01-01T00:00&until=2999-01-01T00:00:01",
    "/console/log?subject=no-such",
    "/console/log/1",
    "/console/state",
    "/console/state?table=orders/orders",
    "/console/state?table=orders/orders&order=customer",
    "/console/state?as_of=1",
    "/console/state?as_of=1&table=orders/orders",
    "/console/state/row?table=orders/orders&key=one",
    "/console/state/changes?since=0&as_of=2",
    "/console/do",
    "/console/do/command/orders/place",
    "/console/do/command/journeyman/pause-worker",
    "/console/do/query/orders/list",
    "/console/do/query/orders/list?_asked=1&kind=bread",
    "/console/store",
]


@pytest.mark.parametrize("role", ["operator", "reader"])
async def test_every_page_answers_and_a_reader_finds_no_button_that_acts(role: Role) -> None:
    async with visiting(role) as visitor:
        await place(visitor.app, "one", note=HOSTILE)
        await park(visitor.app, "broken")
        pages = {path: await visitor.get(path) for path in PAGES}

    for path, html in pages.items():
        acts = re.findall(r'method="post"', html)
        buttons = re.findall(r"<button[^>]*>([^<]*)", html)
        if role == "reader":
            assert not {"Pause", "Resume", "Retry", "Retry now", "Discard", "Record it", "Examine it"} & set(buttons), (
                path
            )
        if "overview" not in path:
            assert re.search(r"<title>[^<]+ · Console</title>", html), path
        assert "<script>document" not in html, path
        assert "\u202e" not in html, path
        assert acts == [] or 'name="_csrf"' in html, path
        assert "style=" not in html, path
        assert "onclick" not in html, path


ACTS: Final[dict[str, dict[str, str]]] = {
    "/console/worker/pause": {"name": WORKER},
    "/console/worker/resume": {"name": WORKER},
    "/console/worker/decide": {"name": WORKER, "decision": "retry", "standing": "parked", "everything": "true"},
    "/console/job/decide": {"worker": WORKER, "job": "broken", "decision": "discard"},
    "/console/do/command/orders/place": {"order_id": "by-form", "customer": "Ada"},
    "/console/state/cancel": {"as_of": "1"},
    "/console/store/examine": {},
}


@pytest.mark.parametrize("path", ACTS)
async def test_a_reader_can_not_act_whatever_form_it_sends(path: str) -> None:
    async with visiting("reader") as visitor:
        await park(visitor.app, "broken")
        position = visitor.app.position
        answer = await visitor.post(path, ACTS[path], status=403)

        assert "may look" in text_of(answer.text)
        assert visitor.app.position == position


@pytest.mark.parametrize("path", ACTS)
async def test_an_operator_can_with_the_same_form(path: str) -> None:
    async with visiting() as visitor:
        await park(visitor.app, "broken")
        await visitor.post(path, ACTS[path], status=200 if path.endswith("examine") else 303)


async def test_what_an_operator_does_is_recorded_with_who_did_it() -> None:
    async with visiting() as visitor:
        await park(visitor.app, "broken")
        await visitor.post("/console/worker/pause", {"name": WORKER})
        await visitor.post(
            "/console/job/decide", {"worker": WORKER, "job": "broken", "decision": "discard", "reason": "no more ink"}
        )
        [paused, discarded] = await visitor.app.store.log.read(visitor.app.position - 2, 2)
        page = await visitor.get(f"/console/log/{discarded.position}")

    assert [(record.name, record.actor) for record in (paused, discarded)] == [
        ("journeyman/pause-worker", "eve"),
        ("journeyman/discard-job", "eve"),
    ]
    assert "no more ink" in text_of(page)


async def test_a_job_tells_why_it_failed_and_what_led_to_it() -> None:
    async with visiting() as visitor:
        await park(visitor.app, "broken")
        parked = text_of(await visitor.get(f"/console/job?worker={WORKER}&job=broken"))
        await visitor.post("/console/job/decide", {"worker": WORKER, "job": "broken", "decision": "retry"})
        retried = text_of(await visitor.get(f"/console/job?worker={WORKER}&job=broken"))
        await visitor.app.execute(DiscardJob(worker=WORKER, job="broken", reason="enough"))
        over = text_of(await visitor.get(f"/console/job?worker={WORKER}&job=broken"))

    assert "It is parked: a person decides" in parked
    assert "no ink for broken" in parked
    assert "Attempt 1" in parked
    assert "orders/request-invoice" in parked
    assert "No process runs the worker" in retried
    assert "retried" in retried
    assert "Why it waits" not in over
    assert "enough" in over


async def test_the_sentence_says_what_a_job_waits_for() -> None:
    async with visiting() as visitor:
        for key in ("first", "second"):
            await visitor.app.execute(RequestInvoice(invoice_id=key, order_id="same", note=None))
        behind = await visitor.get(f"/console/job?worker={WORKER}&job=second")
        await visitor.app.execute(PauseWorker(worker=WORKER))
        paused = text_of(await visitor.get(f"/console/job?worker={WORKER}&job=first"))
        await visitor.post("/console/do/command/reminders/set", {"reminder_id": "later", "in_s": "3600"})
        delayed = text_of(await visitor.get("/console/job?worker=reminders/send&job=later"))

    assert "Another job of the same subject goes first. It is first" in text_of(behind)
    assert "Its worker is paused" in paused
    assert "It is opened to be due later. Until" in delayed


# The rows of a table.


async def test_the_link_of_a_row_leads_to_it_whatever_its_key_holds() -> None:
    key = 'a&b=c#d/e%20+ "<i>ä'
    async with visiting() as visitor:
        await place(visitor.app, key)
        table = await visitor.get("/console/state?table=orders/orders&as_of=1")
        [link] = re.findall(r'<th scope="row"><a href="([^"]*)"', table)
        row = await visitor.get(unescape(link))

    assert "You are looking at the past" in text_of(row)
    assert key in text_of(row)


# Many at once.


async def test_many_are_decided_at_once_and_refusals_are_told_with_their_reasons() -> None:
    async with visiting() as visitor:
        await park(visitor.app, "a", "b", "c")
        await visitor.app.execute(DiscardJob(worker=WORKER, job="b", reason="meanwhile"))
        # The page that was sent still showed b.
        values = {"name": WORKER, "decision": "retry", "standing": "parked", "job": ["a", "b"]}
        page = text_of(await visitor.follow(await visitor.post("/console/worker/decide", values)))
        rows = {key: await row_of(visitor.app, key) for key in "abc"}
        [retried] = await visitor.app.store.log.read(visitor.app.position - 1, 1)

    assert (retried.name, retried.actor) == ("journeyman/retry-job", "eve")
    assert "1 job is tried again; 1 was refused." in page
    assert f"1: {WORKER} has no open job b." in page
    assert {key: row.standing if row else None for key, row in rows.items()} == {
        "a": "waiting",
        "b": None,
        "c": "parked",
    }


async def test_all_of_a_standing_are_decided_in_bounded_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "JOBS_MAX", 5)
    monkeypatch.setattr(bulk, "TOGETHER", 2)
    values = {"name": WORKER, "decision": "discard", "standing": "parked", "everything": "true", "reason": "cleaning"}
    async with visiting() as visitor:
        await park(visitor.app, *(f"job-{number}" for number in range(7)))
        await ask(visitor.app, "waits")
        first = text_of(await visitor.follow(await visitor.post("/console/worker/decide", values)))
        second = text_of(await visitor.follow(await visitor.post("/console/worker/decide", values)))
        third = text_of(await visitor.follow(await visitor.post("/console/worker/decide", values)))
        left = await visitor.app.state(lambda state: [row.job for row in jobs_state(state).jobs])

    assert "5 jobs are discarded. 2 are left." in first
    assert "2 jobs are discarded." in second
    assert "0 jobs are discarded." in third
    assert left == ["waits"]


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("decision", ["retry", "discard"])
async def test_a_decision_that_the_store_breaks_off_is_told_with_its_account(
    monkeypatch: pytest.MonkeyPatch, decision: str, *, everything: bool
) -> None:
    monkeypatch.setattr(bulk, "JOBS_MAX", 6)
    monkeypatch.setattr(bulk, "TOGETHER", 2)
    store = FaultyStore(MemoryStore())
    jobs = [f"job-{number}" for number in range(8)]
    values: dict[str, Any] = {"name": WORKER, "decision": decision, "standing": "parked"}
    values |= {"everything": "true"} if everything else {"job": ["gone", *jobs[1:]]}
    async with visiting(store=store) as visitor:
        await park(visitor.app, *jobs)
        before = visitor.app.position
        store.faulty_log.fail_next(work)
        store.faulty_log.fail_others(refuse)
        page = text_of((await visitor.post("/console/worker/decide", values, status=503)).text)
        done = visitor.app.position - before
        store.faulty_log.fail_others(work)
        rest = text_of(await visitor.get(f"/console/worker?name={WORKER}&standing=parked"))

    assert done == (2 if everything else 1)
    assert "It was done in part" in page
    told = "tried again" if decision == "retry" else "discarded"
    if everything:
        assert f"Of the jobs, 2 {told}; 6 not decided about." in page
    else:
        assert f"Of the jobs, 1 {told}; 1 refused; 6 not decided about." in page
        assert f"1 refused: {WORKER} has no open job gone." in page
    assert "What ended it: The store is not ready, on purpose" in page
    assert "go back, load the page again, and decide about those that it shows then" in page
    assert f"Parked {8 - done}" in rest


def test_of_jobs_whose_decision_the_store_did_not_confirm_nothing_is_claimed() -> None:
    trouble = OutcomeUnknown("No reply came.")
    told = bulk.broken_off(bulk.Account(decision="discard", done=0, unknown=2, undone=3, trouble=trouble), trouble)

    assert (told.problem.title, told.problem.status) == ("It was done in part", 503)
    assert told.problem.detail.startswith(
        "Of the jobs, 2 perhaps recorded, as the store did not say; 3 not decided about."
    )


async def test_what_can_not_be_decided_is_refused_with_a_sentence() -> None:
    wrong = {"name": WORKER, "decision": "shred", "standing": "parked"}
    async with visiting() as visitor:
        answer = await visitor.post("/console/worker/decide", wrong, status=422)
        assert "decision: It must be one of" in text_of(answer.text)
        await visitor.post("/console/worker/pause", {"name": WORKER})
        again = await visitor.post("/console/worker/pause", {"name": WORKER}, status=409)
        unknown = await visitor.post("/console/worker/pause", {"name": "no/such"}, status=409)
        gone = await visitor.post(
            "/console/job/decide", {"worker": WORKER, "job": "none", "decision": "retry"}, status=409
        )

    assert f"{WORKER} is paused already." in text_of(again.text)
    assert "There is no to-do worker no/such." in text_of(unknown.text)
    assert f"{WORKER} has no open job none." in text_of(gone.text)


# Finding.


async def test_jumping_leads_to_a_position_or_an_id_and_says_when_there_is_none() -> None:
    async with visiting() as visitor:
        await place(visitor.app, "one", "two")
        [record] = await visitor.app.store.log.read(1, 1)
        for to in ("2", " 2 ", record.id):
            answer = await visitor.client.get("/console/log/jump", params={"to": to})
            assert answer.headers["location"] == "/console/log/2"
        assert "no message with the id" in text_of(await visitor.get("/console/log/jump?to=nothing", status=404))
        assert "the log ends at 2" in text_of(await visitor.get("/console/log/3", status=404))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/worker?name=no/such", 404),
        (f"/console/job?worker={WORKER}&job=none", 404),
        ("/console/log/0", 404),
        ("/console/log/99999999999999999999", 404),
        ("/console/log?before=x", 422),
        ("/console/state?table=none/none", 404),
        ("/console/state?as_of=99", 404),
        ("/console/state?table=orders/orders&order=weight", 404),
        ("/console/state/row?table=orders/orders&key=none", 404),
        ("/console/state/changes?since=9&as_of=1", 404),
        ("/console/do/command/orders/none", 404),
        ("/console/do/command/journeyman/job-started", 404),
        ("/console/do/query/orders/get?_asked=1&order_id=none", 404),
        ("/console/do/query/orders/list?_asked=1&limit=0", 422),
        ("/console/nothing", 404),
    ],
)
async def test_what_is_not_there_or_wrong_is_a_page_that_says_so(path: str, status: int) -> None:
    async with visiting() as visitor:
        await place(visitor.app, "one")
        assert len(text_of(await visitor.get(path, status=status))) > 60


# Doing.


async def test_a_command_is_recorded_from_its_form_with_every_kind_of_field() -> None:
    values = {
        "order_id": "by-form",
        "customer": "Grace",
        "kind": "cake",
        "pieces": "12",
        "price": "3.5",
        "express": "true",
        "note": "two\r\nlines",
        "address": '{"street": "Main St", "city": "York"}',
        "tags": "sweet\r\nfresh\r\n",
    }
    async with visiting() as visitor:
        page = await visitor.follow(await visitor.post("/console/do/command/orders/place", values))
        [message] = (await visitor.app.messages.read(0, 1))[0]

    assert "It is recorded." in text_of(page)
    body = message.body
    assert (body.kind, body.pieces, body.price, body.express) == ("cake", 12, 3.5, True)
    assert (body.note, body.address.city, body.tags) == ("two\nlines", "York", ("sweet", "fresh"))


async def test_wrong_fields_are_marked_and_what_was_typed_is_kept() -> None:
    values = {"order_id": "", "customer": "Grace", "pieces": "many", "address": "{", "tags": "one\r\ntwo"}
    async with visiting() as visitor:
        answer = await visitor.post("/console/do/command/orders/place", values, status=422)
        position = visitor.app.position

    assert position == 0
    assert re.findall(r'id="(\w+)-wrong"', answer.text) == ["order_id", "pieces", "address"]
    assert 'value="many"' in answer.text
    assert ">\none\ntwo</textarea>" in answer.text


async def test_a_refusal_of_the_application_is_a_sentence_on_the_form() -> None:
    async with visiting() as visitor:
        await place(visitor.app, "one")
        answer = await visitor.post(
            "/console/do/command/orders/place", {"order_id": "one", "customer": "Ada"}, status=409
        )

    assert "There is an order one already." in text_of(answer.text)


async def test_a_form_that_is_sent_twice_is_recorded_once() -> None:
    values = {"_key": "the-form", "order_id": "one", "customer": "Ada"}
    async with visiting() as visitor:
        answers = [await visitor.post("/console/do/command/orders/place", values) for _ in range(2)]
        assert visitor.app.position == 1

    assert len({answer.headers["location"] for answer in answers}) == 1


async def test_the_overview_says_what_needs_a_person() -> None:
    async with visiting() as visitor:
        await park(visitor.app, "a", "b")
        await visitor.app.execute(PauseWorker(worker=WORKER))
        page = text_of(await visitor.get("/console"))

    assert "3 things need a look" in page
    assert f"{WORKER}: 2 jobs are parked and need a decision." in page
    assert f"{WORKER} is paused." in page
    assert "No process runs the workers" in page


async def test_all_is_well_where_it_is() -> None:
    async with visiting(workers=True) as visitor:
        await place(visitor.app, "one")
        async with asyncio.timeout(30):
            while await visitor.app.state(lambda state: len(jobs_state(state).jobs) or not _answered(state)):
                await visitor.app.store.log.wait(visitor.app.position, 0.05)
        page = text_of(await visitor.get("/console"))

    assert "All is well" in page


def _answered(state: Any) -> int:
    row = jobs_state(state).workers.get(WORKER)
    return row.answered if row is not None else 0


async def test_charts_count_what_was_recorded() -> None:
    async with visiting() as visitor:
        await park(visitor.app, "a", "b")
        page = await visitor.get("/console")
        labels = list(_labels(page))

    assert any(label.startswith(f"Messages in the last hour: {6} in all") for label in labels), labels
    assert any(label.startswith("Failures in the last hour: 2 in all") for label in labels), labels


def _labels(html: str) -> Iterator[str]:
    return (unescape(label) for label in re.findall(r'<svg class="chart[^>]*aria-label="([^"]*)"', html))

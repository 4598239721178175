"""Health checks tell a process that lives from one that can be used, and a store's failures reach clients as 503."""

from __future__ import annotations

import asyncio

import pytest

from journeyman import App, Attempt, Command, Feature, Job, Message, State, TodoWorker, opens
from journeyman.executor import Limits
from journeyman.store.memory import MemoryStore
from journeyman.testing.faults import FaultyStore, Held, lose_request, refuse
from tests.doors.http.shop import make_app, place, problem, shop

GOOD = {"order_id": "a", "number": 1}


async def test_a_running_application_is_live_and_ready() -> None:
    async with shop() as client:
        await place(client, GOOD)
        assert (await client.get("/health/live")).json() == {"status": "live"}
        assert (await client.get("/health/ready")).json() == {"status": "ready", "position": 1}


async def test_a_store_that_is_not_ready_is_a_503() -> None:
    store = FaultyStore(MemoryStore())
    async with shop(store=store) as client:
        store.faulty_log.fail_next(refuse)
        response = await place(client, GOOD)
        again = await place(client, GOOD)

    problem(response, 503, "not-ready")
    assert response.headers["retry-after"] == "1"
    assert again.status_code == 201


async def test_an_outcome_that_is_unknown_is_a_503_that_says_to_repeat_with_the_key() -> None:
    app = make_app(Limits(settle_s=0.05, append_s=0.05))
    store = FaultyStore(MemoryStore())
    async with shop(app, store) as client:
        store.faulty_log.fail_others(lose_request)
        response = await place(client, GOOD, idempotency_key="k")
        store.faulty_log.fail_others(lambda append: append())
        again = await place(client, GOOD, idempotency_key="k")

    assert "idempotency key" in problem(response, 503, "outcome-unknown")["detail"]
    assert response.headers["retry-after"] == "1"
    assert again.status_code == 201


async def test_while_the_store_stalls_commands_are_busy_and_answers_tell_their_age() -> None:
    store = FaultyStore(MemoryStore())
    async with shop(store=store) as client:
        held = store.faulty_log.fail_next(Held())
        waiting = asyncio.create_task(place(client, GOOD))
        await held.arrived.wait()
        # It is answered by the executor once the append has stalled.
        busy = await place(client, GOOD | {"order_id": "b"})
        answer = await client.get("/queries/shop/echo")
        ready = await client.get("/health/ready")
        live = await client.get("/health/live")
        held.release()
        await waiting

    problem(busy, 503, "busy")
    assert int(busy.headers["retry-after"]) >= 1
    assert float(answer.headers["journeyman-age"]) >= 0
    assert answer.headers["journeyman-position"] == "0"
    problem(ready, 503, "not-ready")
    assert live.status_code == 200


async def test_a_message_that_can_not_be_applied_makes_it_poisoned_and_the_log_can_still_be_read() -> None:
    store = MemoryStore()
    other = Feature("shop", state=State)

    @other.command("place", subject="order_id")
    class Place(Command):
        order_id: str
        number: str

    async with shop(store=store) as client:
        async with App(features=[other]).running(store) as app:
            await app.execute(Place(order_id="a", number="hunter2"))
        ready = await client.get("/health/ready", headers={"journeyman-at-least": "1"})
        asked = await client.get("/queries/shop/echo", headers={"journeyman-at-least": "1"})
        ready = await client.get("/health/ready")
        told = await place(client, GOOD)
        log = (await client.get("/log")).json()
        live = await client.get("/health/live")

    for response in (asked, ready, told):
        document = problem(response, 503, "poisoned")
        assert "position 1 (shop/place)" in document["detail"]
        assert "hunter2" not in response.text
        assert "retry-after" not in response.headers
    assert [entry["name"] for entry in log] == ["shop/place"]
    assert live.status_code == 200


async def test_a_message_of_newer_code_makes_it_outdated() -> None:
    store = MemoryStore()
    other = Feature("newer", state=State)

    @other.command("come")
    class Come(Command):
        pass

    async with shop(store=store) as client:
        async with App(features=[other]).running(store) as app:
            await app.execute(Come())
        asked = await client.get("/queries/shop/echo", headers={"journeyman-at-least": "1"})
        ready = await client.get("/health/ready")

    for response in (asked, ready):
        problem(response, 503, "outdated")
        assert response.headers["retry-after"] == "1"


async def test_an_application_that_has_stopped_is_not_ready() -> None:
    app = make_app()
    async with shop(app) as client:
        await app.stop()
        for path in ("/health/ready", "/queries/shop/echo", "/log", "/workers"):
            problem(await client.get(path), 503, "not-running")
        problem(await place(client, GOOD), 503, "not-running")
        assert (await client.get("/health/live")).status_code == 200


async def test_each_worker_is_listed_with_its_jobs_and_can_be_paused() -> None:
    feature = Feature("tasks", state=State)

    @feature.command("ask", subject="task_id")
    class Ask(Command):
        task_id: str

    class Tasks(TodoWorker):
        name = "tasks/do"

        @opens(Ask)
        def asked(self, message: Message[Ask]) -> Job:
            return Job(message.body.task_id)

        async def perform(self, attempt: Attempt[Ask]) -> None:
            raise AssertionError("It is paused.")

    async with shop(App(features=[feature], workers=[Tasks()])) as client:
        paused = await client.post("/commands/journeyman/pause-worker", json={"worker": "tasks/do"})
        assert paused.status_code == 201, paused.text
        await client.post("/commands/tasks/ask", json={"task_id": "1"})
        [worker] = (await client.get("/workers")).json()

    assert list(worker) == [
        "name",
        "status",
        "processes",
        "position",
        "lag",
        "waiting",
        "running",
        "retrying",
        "parked",
        "last_error",
    ]
    assert (worker["name"], worker["status"], worker["waiting"]) == ("tasks/do", "paused", 1)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/workers", "/log", "/commands", "/queries"])
async def test_what_is_read_can_not_be_posted_to(path: str) -> None:
    async with shop() as client:
        response = await client.post(path, json={})

    problem(response, 405, "method-not-allowed")
    assert "GET" in response.headers["allow"]

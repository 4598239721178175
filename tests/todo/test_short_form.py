"""A job made of one function: `Feature.job`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from msgspec import Struct

from journeyman import (
    App,
    DefinitionError,
    FailResult,
    Feature,
    GiveUp,
    Job,
    Message,
    Retry,
    SetResult,
    State,
    Store,
    Table,
    TodoWorker,
    ends,
    opens,
    reacts,
)
from journeyman.feature import Command, JobFunction
from journeyman.tables import AppState
from tests.todo.desk import WAIT_S, idle, log_of, names, until


class Result(Struct, frozen=True):
    subject: str
    words: int | None = None
    error: str | None = None


class TextsState(State):
    results: Table[str, Result] = Table(Result, key="subject")


class Publish(Command):
    text_id: str
    text: str


def texts_feature() -> Feature[TextsState]:
    feature = Feature("texts", state=TextsState)
    feature.command("publish", subject="text_id")(Publish)
    return feature


def results(state: AppState) -> dict[str, Result]:
    found = state.features["texts"]
    assert isinstance(found, TextsState)
    return {row.subject: row for row in found.results}


def keep(job: JobFunction[int]) -> None:
    @job.applies
    def counted(state: TextsState, message: Message[SetResult[int]]) -> None:
        state.results.put(Result(str(message.body.subject), words=message.body.result))

    @job.applies_failure
    def failed(state: TextsState, message: Message[FailResult]) -> None:
        state.results.put(Result(str(message.body.subject), error=message.body.error_message))


async def count_words(message: Message[Publish]) -> int:
    if message.body.text == "bad":
        raise GiveUp("not a text")
    return len(message.body.text.split())


def app_of(function: Any = count_words, **options: Any) -> App:
    feature = texts_feature()
    keep(feature.job("count", on=Publish, retry=Retry(attempts=2, first_s=0, max_s=0), **options)(function))
    return App(features=[feature])


async def test_each_message_gets_the_functions_result_recorded_once(store: str | Store) -> None:
    app = app_of()
    async with app.running(store):
        await asyncio.gather(*(app.execute(Publish(text_id=f"t{number}", text="a " * number)) for number in range(20)))
        await until(app, lambda state: len(results(state)) == 20)
        found = await app.state(results)
        assert all(found[f"t{number}"].words == number for number in range(20))
        assert len(await log_of(app, "texts/set-count")) == 20
    async with app_of().running(store) as again:
        assert await again.state(idle)
        await again.execute(Publish(text_id="more", text="one more"))
        await until(again, lambda state: "more" in results(state))
        assert len(await log_of(again, "texts/request-count")) == 21


async def test_the_last_failure_is_recorded_too() -> None:
    app = app_of()
    async with app.running("memory:"):
        await app.execute(Publish(text_id="t", text="bad"))
        found = await until(app, lambda state: results(state).get("t"))
        assert found.error == "GiveUp: not a text"
        assert names(await log_of(app))[-1] == "fail-count"


async def test_a_result_of_another_type_is_recorded_as_a_failure() -> None:
    async def odd(message: Message[Publish]) -> int:
        return "seven"  # type: ignore[return-value]  # what it is not allowed to be

    app = app_of(odd)
    async with app.running("memory:"):
        await app.execute(Publish(text_id="t", text="x"))
        found = await until(app, lambda state: results(state).get("t"))
        assert "Expected `int`" in (found.error or "")


async def test_a_plain_function_runs_in_a_thread_and_holds_its_slot() -> None:
    threads: list[int] = []

    def count(message: Message[Publish]) -> int:
        threads.append(threading.get_ident())
        return 7

    app = app_of(count)
    async with asyncio.timeout(WAIT_S), app.running("memory:"):
        await app.execute(Publish(text_id="t", text="x"))
        assert (await until(app, lambda state: results(state).get("t"))).words == 7
    assert threads != [threading.get_ident()]


async def test_jobs_of_one_subject_run_in_order() -> None:
    order: list[str] = []

    async def note(message: Message[Publish]) -> int:
        order.append(message.body.text)
        await asyncio.sleep(0)
        return 1

    app = app_of(note)
    async with app.running("memory:"):
        await asyncio.gather(*(app.execute(Publish(text_id="t", text=str(number))) for number in range(10)))
        await until(app, lambda state: idle(state) and "t" in results(state) and len(order) == 10)
    assert order == [str(number) for number in range(10)]


def test_a_function_without_a_return_type_is_refused() -> None:
    async def untyped(message: Message[Publish]):  # type: ignore[no-untyped-def]  # noqa: ANN202  # that is the test
        return 1

    with pytest.raises(DefinitionError, match="needs a return type"):
        texts_feature().job("count", on=Publish)(untyped)


async def test_it_grows_into_the_long_form_without_changing_the_log(store: str | Store) -> None:
    app = app_of()
    async with app.running(store):
        await app.execute(Publish(text_id="short", text="one two"))
        await until(app, lambda state: "short" in results(state))

    feature = texts_feature()
    short: JobFunction[int] = JobFunction(feature, "count", count_words, Publish)
    keep(short)

    class Counter(TodoWorker):
        name = "texts/count"

        @reacts(Publish, name="request")
        def ask(self, message: Message[Publish]) -> Command:
            request: Command = short.request(
                request_id=f"long-{message.id}", subject=message.subject, position=message.position
            )
            return request

        @opens(short.request)
        def asked(self, message: Message[Any]) -> Job:
            return Job(message.body.request_id, subject=message.body.subject)

        @ends(short.set, short.fail)
        def answered(self, message: Message[Any]) -> str:
            return str(message.body.request_id)

        async def perform(self, attempt: Any) -> Command:
            request = attempt.message.body
            answer: Command = short.set(request_id=request.request_id, subject=request.subject, result=99)
            return answer

    grown = App(features=[feature], workers=[Counter()])
    async with grown.running(store):
        await grown.execute(Publish(text_id="long", text="x"))
        found = await until(grown, lambda state: results(state) if len(results(state)) == 2 else None)
        assert {key: row.words for key, row in found.items()} == {"short": 2, "long": 99}

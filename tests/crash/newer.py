"""The application of app.py as a later release has it: answers of a version 2, and a reaction with a new message."""

from __future__ import annotations

import os
from typing import Any

from msgspec import Struct

from journeyman import App, Attempt, Command, Feature, Job, Message, State, Table, TodoWorker, ends, opens, reacts
from tests.crash.app import SERVICE, Ask, Asker, Fail, Put, Question, QuestionsState, call

questions = Feature("questions", state=QuestionsState)
questions.command("put", subject="key")(Put)
questions.command("ask", subject="key")(Ask)
questions.command("fail", subject="key")(Fail)


@questions.command("answer", subject="key", version=2)
class Answer(Command):
    key: str
    text: str
    confidence: float

    def apply(self, state: QuestionsState, message: Message[Any]) -> None:
        state.questions.put(Question(self.key, self.text))


@questions.upcast("answer", to=2)
def with_confidence(body: Any) -> Any:
    return body | {"confidence": 0.5}


class Rating(Struct, frozen=True):
    key: str


class RatingsState(State):
    ratings: Table[str, Rating] = Table(Rating, key="key")


ratings = Feature("ratings", state=RatingsState)


@ratings.command("rate", subject="key")
class Rate(Command):
    key: str

    def apply(self, state: RatingsState, message: Message[Any]) -> None:
        state.ratings.put(Rating(self.key))


class NewerAsker(TodoWorker):
    """The same worker: it goes on with the jobs that the older code has opened."""

    name = Asker.name
    concurrency = Asker.concurrency
    timeout_s = Asker.timeout_s
    retry = Asker.retry

    def __init__(self, service_url: str) -> None:
        self.service_url = service_url

    @reacts(Put, name="ask", since=0)
    def ask(self, message: Message[Put]) -> Ask:
        return Ask(key=message.body.key, about=message.body.about)

    @reacts(Answer, name="rate", since=0)
    def rate(self, message: Message[Answer]) -> Rate:
        return Rate(key=message.body.key)

    @opens(Ask)
    def asked(self, message: Message[Ask]) -> Job:
        return Job(message.body.key, subject=message.body.about)

    @ends(Answer, Fail)
    def answered(self, message: Message[Answer | Fail]) -> str:
        return message.body.key

    async def perform(self, attempt: Attempt[Ask]) -> Command:
        text = await call(self.service_url, attempt.id)
        return Answer(key=attempt.id, text=text, confidence=1.0)

    def give_up(self, attempt: Attempt[Ask], error: BaseException) -> Command:
        return Fail(key=attempt.id, text=str(error))


def make_newer_app(service_url: str, **options: Any) -> App:
    return App(features=[questions, ratings], workers=[NewerAsker(service_url)], **options)


def __getattr__(name: str) -> App:
    """`app`, for `journeyman --app tests.crash.newer:app`."""
    if name != "app":
        raise AttributeError(name)
    return make_newer_app(os.environ[SERVICE])

"""The application under test: questions that an external service answers, one at a time for each subject."""

from __future__ import annotations

import asyncio
import os
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from journeyman import (
    App,
    Attempt,
    Command,
    Feature,
    Job,
    Message,
    Retry,
    ServiceError,
    State,
    Table,
    TodoWorker,
    ends,
    opens,
    reacts,
)

#: The variable that names the service's URL, where `journeyman` starts the application.
SERVICE: Final = "CRASH_SERVICE_URL"

#: Keys that begin so are special.
FAILS_ONCE: Final = "fails-once"
FAILS: Final = "fails"
KILLS: Final = "kills"
EXITS: Final = "exits"
EATS: Final = "eats"
HANGS_ONCE: Final = "hangs-once"


class Question(Struct, frozen=True):
    key: str
    answer: str | None = None


class QuestionsState(State):
    questions: Table[str, Question] = Table(Question, key="key")


questions = Feature("questions", state=QuestionsState)


@questions.command("put", subject="key")
class Put(Command):
    """Somebody has a question about a subject."""

    key: str
    about: str

    # Nothing refuses a second one: that there is none is the idempotency key's to see to.

    def apply(self, state: QuestionsState, message: Message[Any]) -> None:
        state.questions.put(Question(self.key))


@questions.command("ask", subject="key")
class Ask(Command):
    """The service is to be asked."""

    key: str
    about: str


@questions.command("answer", subject="key")
class Answer(Command):
    key: str
    text: str

    def apply(self, state: QuestionsState, message: Message[Any]) -> None:
        state.questions.put(Question(self.key, self.text))


@questions.command("fail", subject="key")
class Fail(Command):
    key: str
    text: str

    def apply(self, state: QuestionsState, message: Message[Any]) -> None:
        state.questions.put(Question(self.key, f"failed: {self.text}"))


class Asker(TodoWorker):
    """Asks the service, over HTTP."""

    name = "questions/asker"
    concurrency = 8
    timeout_s = 20.0
    retry = Retry(attempts=3, first_s=0.001, factor=1, max_s=0.001)

    def __init__(self, service_url: str) -> None:
        self.service_url = service_url

    @reacts(Put, name="ask", since=0)
    def ask(self, message: Message[Put]) -> Ask:
        return Ask(key=message.body.key, about=message.body.about)

    @opens(Ask)
    def asked(self, message: Message[Ask]) -> Job:
        return Job(message.body.key, subject=message.body.about)

    @ends(Answer, Fail)
    def answered(self, message: Message[Answer | Fail]) -> str:
        return message.body.key

    async def perform(self, attempt: Attempt[Ask]) -> Command:
        text = await call(self.service_url, attempt.id)
        if attempt.id.startswith(FAILS) and not (attempt.id.startswith(FAILS_ONCE) and attempt.number > 1):
            raise ValueError(f"{attempt.id} fails")
        return Answer(key=attempt.id, text=text)

    def give_up(self, attempt: Attempt[Ask], error: BaseException) -> Command:
        return Fail(key=attempt.id, text=str(error))


async def call(url: str, key: str) -> str:
    """One request to the service; its answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        body = b"{}"
        writer.write(
            b"POST %s/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Idempotency-Key: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (parts.path.encode(), key.encode(), len(body), body)
        )
        answer = await reader.read()
    finally:
        writer.close()
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise ServiceError("the service failed")
    return "answered"


def make_app(service_url: str, *, worker: type[Asker] = Asker, **options: Any) -> App:
    return App(features=[questions], workers=[worker(service_url)], **options)


def __getattr__(name: str) -> App:
    """`app`, for `journeyman --app tests.crash.app:app`."""
    if name != "app":
        raise AttributeError(name)
    return make_app(os.environ[SERVICE])

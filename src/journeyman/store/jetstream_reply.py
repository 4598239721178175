"""What comes back from a server: a reply, many of them, a refusal, or nothing; and what each of that means."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from journeyman.errors import NotReady, OutcomeUnknown

#: JetStream's numbers of refusals that pass by themselves, server/errors.json in nats-server: a cluster is choosing a
#: leader, or a part of a batch went to the last one.
PASSING: Final = frozenset({10008, 10009, 10176})

#: What the server says when nobody listens to a subject, and at the end of many replies: client protocol, ADR-31.
_NOBODY: Final = "503"


class Nobody(NotReady):
    """Nobody listens to the subject of a request: surely not done."""


class Unread(NotReady):
    """A question got no answer, but may get one soon."""


class NoReply(Exception):
    """No reply came: nobody knows whether the request was done."""


class Refused(Exception):
    """The server's reply is an error. `code` is JetStream's own number for it."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"{text} ({code})")


@contextmanager
def reading() -> Iterator[None]:
    """What failed has changed nothing: NotReady, whatever it was."""
    try:
        yield
    except NoReply as error:
        raise Unread(f"JetStream can't be read now: {error}. Try again.") from error
    except Refused as error:
        kind = Unread if error.code in PASSING else NotReady
        raise kind(f"JetStream can't be read: {error}.") from error


@contextmanager
def writing() -> Iterator[None]:
    """What failed may have changed something, unless it was refused.

    Raises:
        NotReady, OutcomeUnknown
    """
    try:
        yield
    except Refused as error:
        raise NotReady(f"JetStream does not take it now: {error}. Nothing was changed; try again.") from error
    except NoReply as error:
        raise OutcomeUnknown(f"JetStream did not say whether it is done: {error}. Look, and try again.") from error


class Reply:
    """One reply that is waited for, or many up to one with a status."""

    __slots__ = ("_future", "_many", "contents", "inbox")

    def __init__(self, inbox: str, *, many: bool) -> None:
        self.inbox = inbox
        self.contents: list[bytes] = []
        self._many = many
        self._future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        if self._many and status_of(message) is None:
            self.contents.append(message.data)
        elif not self._future.done():
            self._future.set_result(message)

    def fail(self, why: str) -> None:
        if not self._future.done():
            self._future.set_exception(NoReply(why))

    def forget(self) -> None:
        """Nobody waits any more: an error that came too late is nobody's."""
        if self._future.done() and not self._future.cancelled():
            self._future.exception()

    async def last_of_many(self, idle_s: float) -> Msg:
        while True:
            before = len(self.contents)
            try:
                return await self.last(idle_s)
            except NoReply:
                if len(self.contents) == before or self._future.done():
                    raise

    async def last(self, timeout_s: float) -> Msg:
        try:
            async with asyncio.timeout(timeout_s):
                message = await asyncio.shield(self._future)
        except TimeoutError:
            raise NoReply(f"no reply within {timeout_s:g} s") from None
        if status_of(message) == _NOBODY:
            raise Nobody("No server answers for this log now: it is starting, or choosing a leader. Try again.")
        return message


def answer_of(message: Msg) -> Any:
    """The content of a reply, as decoded JSON.

    Raises:
        Refused: it is an error.
    """
    answer = msgspec.json.decode(message.data)
    if error := answer.get("error"):
        raise Refused(error.get("err_code", error.get("code", 0)), error.get("description", "no reason given"))
    return answer


def status_of(message: Msg) -> str | None:
    """The status that the server gives a reply by itself; None for one with a content."""
    return message.headers.get("Status") if message.headers else None

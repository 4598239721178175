"""Answers that go on as long as the client listens: how many there are, and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from litestar.response import Stream

from journeyman.app import App
from journeyman.doors.web.problems import busy
from journeyman.errors import JourneymanError

#: How many streams may be open at a time.
STREAMS_MAX: Final = 100

#: How long one wait for the log's growth is, in seconds: then the stream sees whether the application still runs.
WAIT_S: Final = 1.0

#: After how long without anything to tell a stream says that it lives, in seconds.
HEARTBEAT_S: Final = 15.0

#: How long a stream rests between two looks at a log that grows, in seconds.
PAUSE_S: Final = 0.1

HEARTBEAT: Final = b": still here\n\n"


class Streams:
    """The open streams: counted, and ended together."""

    def __init__(self) -> None:
        self.open = 0
        self._ending = asyncio.Event()
        self._at_end: list[Callable[[], Awaitable[None]]] = []

    @property
    def ending(self) -> bool:
        return self._ending.is_set()

    def end(self) -> None:
        """Let every stream come to its end. None begins after that."""
        self._ending.set()

    def at_end(self, stop: Callable[[], Awaitable[None]]) -> None:
        """Have something stopped that goes on beside the streams: see `ended`."""
        self._at_end.append(stop)

    async def ended(self) -> None:
        """Stop what goes on beside the streams. For whoever ends them, once no request is answered any more."""
        for stop in self._at_end:
            await stop()

    def answer(self, events: AsyncIterator[bytes]) -> Stream:
        """The answer that sends these events: server-sent events, each whole.

        Raises:
            Refused: so many are open that there can't be one more, or they are ended.
        """
        if self.ending or self.open >= STREAMS_MAX:
            raise busy(f"{self.open} streams are open already, or the server is stopping.")
        return Stream(self._counted(events), media_type="text/event-stream")

    async def _counted(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.open += 1
        try:
            async for event in events:
                yield event
        except JourneymanError:
            return  # The store can't be read, or the application has stopped. The client comes back, and is told why.
        finally:
            self.open -= 1

    async def growth(self, app: App, *, after: int) -> AsyncIterator[int]:
        """The log's head, whenever it is past the one before, until the streams are ended.

        It is looked at a few times a second at most, so that a page that shows what it finds costs no more than that.
        """
        while not self.ending:
            head = await app.store.log.head()
            if head > after:
                after = head
                yield head
                await self._pause()
            else:
                await self.wait(app, after)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(PAUSE_S):
                await self._ending.wait()
        except TimeoutError:
            return

    async def wait(self, app: App, after: int) -> None:
        """Return when the log may be longer than `after`, after a second, or when the streams are to end."""
        growth = asyncio.ensure_future(app.store.log.wait(after, WAIT_S))
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            await asyncio.wait({growth, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            growth.cancel()
            ending.cancel()
            await asyncio.gather(growth, ending, return_exceptions=True)


def event(name: str, data: str) -> bytes:
    """One server-sent event (HTML Standard, 9.2): its name, and data. Without a line of data none is dispatched."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"event: {name}\n{lines}\n".encode()

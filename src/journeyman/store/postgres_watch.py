"""Waiting for the log to grow: woken by own appends, by the server's word of others', and by a look each second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from journeyman.errors import StoreError
from journeyman.store.postgres_link import Connection, Link
from journeyman.store.waiters import Waiters

#: How often the log is looked at while somebody waits, in seconds: where the server tells of appends, only in case that
#: its word is lost; and behind a pooler, where it can't.
LOOK_S: Final = 1.0
LOOK_UNTOLD_S: Final = 0.05

#: The pause between two words to others, in seconds: what is appended meanwhile goes into the next one.
TELL_S: Final = 0.01

#: How long the last word may take at the end, in seconds.
CLOSE_S: Final = 1.0


class Watch:
    """Wakes those who wait. It looks only while somebody does, and only when nobody has read the news already.

    Args:
        head: reads the log's last position.
    """

    def __init__(self, head: Callable[[], Awaitable[int]], *, look_s: float) -> None:
        self._head_of_log = head
        self._look_s = look_s
        #: The last position that was seen in the log.
        self.head = 0
        #: How often there was news, and how much of that was followed by a look. At first nobody has looked.
        self.news = 1
        self._looked = 0
        #: How much of the news has ended a call of `wait` already.
        self._passed_on = 1
        self._due = asyncio.Event()
        self._waiters = Waiters(self._look_again_and_again)

    def saw(self, head: int) -> None:
        """Take note of a position that is in the log."""
        if head > self.head:
            self.head = head
            self._waiters.wake()

    def looked(self, news: int) -> None:
        """Take note that somebody has seen the log's end after there had been so much news."""
        self._looked = max(self._looked, news)

    def tell(self) -> None:
        """There may be news: whoever waits wakes, and whoever waits next has it looked for."""
        self.news += 1
        self._waiters.wake()

    async def wait(self, after: int, timeout_s: float) -> None:
        if self.head > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
            return
        if self._looked < self.news:
            if self._passed_on < self.news:
                self._passed_on = self.news  # Who reads now has looked, and a look before that would be one too many.
                await asyncio.sleep(0)
                return
            self._due.set()
        await self._waiters.wait(timeout_s)

    async def stop(self) -> None:
        """Wake everybody, for the last time."""
        await self._waiters.stop()

    async def _look_again_and_again(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s):
                    await self._due.wait()
            self._due.clear()
            news = self.news  # Before looking: what is told meanwhile may be newer than what is seen.
            self.saw(await self._head_of_log())
            self.looked(news)


class Notifier:
    """Tells others that the log has grown, behind the append's back: after its commit, and once for many of them."""

    def __init__(self, link: Link, channel: str) -> None:
        self._link = link
        self._statement = f'NOTIFY "{channel}"'
        self._untold = False
        self._telling: asyncio.Task[None] | None = None

    def tell(self) -> None:
        self._untold = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name="journeyman: notify")

    async def close(self) -> None:
        """Say what is not said yet."""
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=CLOSE_S)
            self._telling.cancel()
            await asyncio.wait({self._telling})

    async def _tell(self) -> None:
        while self._untold:
            self._untold = False
            with suppress(StoreError):  # Who isn't told looks by himself, only later.
                await self._link.call(self._notify)
            await asyncio.sleep(TELL_S)

    async def _notify(self, connection: Connection) -> None:
        await connection.execute(self._statement)

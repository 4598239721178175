"""The head of the log: what this handle knows of it, and who waits for it to move.

Who has appended tells the others, by a message that nobody stores; a look each second finds what was told to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from nats.aio.msg import Msg

#: How often the head is looked at while somebody waits, in seconds, in case that nobody told of an append.
LOOK_S: Final = 1.0

#: How long a head below what was seen before counts as a server that has yet to catch up, in seconds: a leader that
#: was cut off answers for 10 s before it gives up. After that it is what it says, and another log.
BEHIND_S: Final = 15.0

#: How often such a server is asked again, in seconds.
PAUSE_S: Final = 0.01


class Watch:
    """Wakes those who wait for the log to grow, and guards against servers that are behind.

    Args:
        ask: the head, as the server tells it.
        replicated: whether another server than the one that wrote may answer.
    """

    def __init__(self, ask: Callable[[], Awaitable[int]], *, replicated: bool) -> None:
        self._ask = ask
        self._replicated = replicated
        #: The highest position that this handle has read or written.
        self.known = 0
        #: What others have told, and how often: it may be wrong.
        self._told = 0
        self._tellings = 0
        self._behind_since: float | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._looked_at = 0.0

    # The head.

    async def head(self, *, at_least: int = 0) -> int:
        """The head; below what this handle has seen, or a caller has, only if it is so for BEHIND_S.

        Raises:
            NotReady: no server tells it.
        """
        loop = asyncio.get_running_loop()
        while True:
            wanted, tellings = max(self.known, at_least), self._tellings
            head = await self._ask()
            self._looked_at = loop.time()
            self.saw(head)
            if tellings == self._tellings:
                self._told = 0  # Whatever was told, this is newer.
            if head >= wanted:
                self._behind_since = None
                return head
            if not self._replicated or self._has_been_behind(loop.time()):
                return head
            await asyncio.sleep(PAUSE_S)

    def _has_been_behind(self, now: float) -> bool:
        """Whether it was so all the time, also for calls that were cancelled: they have their own limits."""
        if self._behind_since is None:
            self._behind_since = now
        return now - self._behind_since > BEHIND_S

    def saw(self, head: int) -> None:
        """Take note of a position that is in the log."""
        if head > self.known:
            self.known = head
            self._wake()

    async def hear(self, message: Msg) -> None:
        """Take note of what another process tells."""
        with suppress(ValueError):
            told = int(message.data)
            self._tellings += 1
            if told > max(self.known, self._told):
                self._told = told
                self._wake()

    # Waiting.

    async def wait(self, after: int, timeout_s: float) -> None:
        """See MessageLog.wait."""
        if max(self.known, self._told) > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = self._begin_to_look()
        try:
            await asyncio.wait((woken, looking), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if looking.done() and not looking.cancelled():
                looking.result()  # It ends by itself only with an error, which everybody who waits must see.
        finally:
            self._waiting.discard(woken)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    def look_soon(self) -> None:
        """What was told may have been missed: look at once when somebody waits."""
        self._looked_at = 0.0

    async def stop(self) -> None:
        """Wake everybody, for the last time."""
        self._wake()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _wake(self) -> None:
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    def _begin_to_look(self) -> asyncio.Task[None]:
        looking = asyncio.create_task(self._look_again_and_again(), name="journeyman: look at the head")
        # An error counts as seen even if all who waited were cancelled meanwhile: the next call meets it again.
        looking.add_done_callback(lambda looking: looking.cancelled() or looking.exception())
        return looking

    async def _look_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, self._looked_at + LOOK_S - loop.time()))
            await self.head()

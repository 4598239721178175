"""The head of the log: what this handle knows of it, and who waits for it to move.

Who has appended tells the others, by a message that nobody stores; a look each second finds what was told to nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from nats.aio.msg import Msg

from journeyman.store.waiters import Waiters

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
        self._waiters = Waiters(self._look_again_and_again)
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
            self._waiters.wake()

    async def hear(self, message: Msg) -> None:
        """Take note of what another process tells."""
        with suppress(ValueError):
            told = int(message.data)
            self._tellings += 1
            if told > max(self.known, self._told):
                self._told = told
                self._waiters.wake()

    # Waiting.

    async def wait(self, after: int, timeout_s: float) -> None:
        """See MessageLog.wait."""
        if max(self.known, self._told) > after:
            await asyncio.sleep(0)  # Who waits in a loop must not keep the loop from what it waits for.
            return
        await self._waiters.wait(timeout_s)

    def look_soon(self) -> None:
        """What was told may have been missed: look at once when somebody waits."""
        self._looked_at = 0.0

    async def stop(self) -> None:
        """Wake everybody, for the last time."""
        await self._waiters.stop()

    async def _look_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(0.0, self._looked_at + LOOK_S - loop.time()))
            await self.head()

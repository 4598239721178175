"""Waiting for a log to grow: what the backends share whose log may grow without this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Waiters:
    """Those who wait, and the task that looks at the log on their behalf: it runs only while somebody waits.

    Args:
        look: looks again and again, and wakes who waits. Its first look finds what came before, so that no wake-up is
            lost between looking at the head and waiting. It ends only with an error.
    """

    def __init__(self, look: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._look = look
        self._waiting: set[asyncio.Future[None]] = set()
        self._looking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Wake everybody who waits now."""
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Return when woken, or after `timeout_s`. Raises what the looking ended with."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        looking = self._looking
        if looking is None or looking.done():
            looking = self._looking = self._begin_to_look()
        try:
            await asyncio.wait((woken, looking), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if looking.done() and not looking.cancelled():
                looking.result()  # Everybody who waits must see its error.
        finally:
            self._waiting.discard(woken)
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def stop(self) -> None:
        """Wake everybody, for the last time."""
        self.wake()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    def _begin_to_look(self) -> asyncio.Task[None]:
        looking = asyncio.create_task(self._look(), name="journeyman: look at the log")
        # An error counts as seen even if all who waited were cancelled meanwhile: the next call meets it again.
        looking.add_done_callback(lambda looking: looking.cancelled() or looking.exception())
        return looking

"""Answers that go on as long as the client listens: how many there are, and how they end."""

from __future__ import annotations

import asyncio
from typing import Final

from journeyman.app import App

#: How many streams may be open at a time.
STREAMS_MAX: Final = 100

#: How long one wait for the log's growth is, in seconds: then the stream sees whether the application still runs.
WAIT_S: Final = 1.0


class Streams:
    """The open streams: counted, and ended together."""

    def __init__(self) -> None:
        self.open = 0
        self._ending = asyncio.Event()

    @property
    def ending(self) -> bool:
        return self._ending.is_set()

    def end(self) -> None:
        """Let every stream come to its end. None begins after that."""
        self._ending.set()

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

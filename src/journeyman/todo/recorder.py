"""Recording what a worker knows: again and again, until the log has taken or refused it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from journeyman.errors import Busy, Rejected, StoreError, TooLarge
from journeyman.executor import Executor
from journeyman.feature import Command
from journeyman.message import NO_META, Message, Meta
from journeyman.pending import Envelope
from journeyman.receipts import Receipt
from journeyman.retry import draw_pause_s

logger = logging.getLogger(__name__)

#: While the store is in trouble, what is to be recorded is dispatched again after growing pauses, in seconds.
TROUBLE_FIRST_S: Final = 0.05
TROUBLE_MAX_S: Final = 5.0

#: After how many tries each time one that is held up is told of again.
TRIES_TOLD: Final = 10


class Recorder:
    """Records commands in the name of one worker."""

    def __init__(self, executor: Executor, worker: str, *, uniform: Callable[[float, float], float]) -> None:
        self._executor = executor
        self.meter = executor.meter
        self.tracing = executor.tracing
        self._worker = worker
        self._actor = f"worker:{worker}"
        self._uniform = uniform
        #: How many outcomes the store holds up.
        self._held_up = 0

    @property
    def is_over(self) -> bool:
        """Whether this process can't record anything any more."""
        return self._executor.failure is not None

    def submit(
        self, command: Command, cause: Message[Any] | None, *, fence: int | None = None, meta: Meta = NO_META
    ) -> asyncio.Future[Receipt]:
        """Dispatch once. Raises, or makes the future raise, what App.execute does."""
        before = cause.meta if cause is not None else None
        if meta.traceparent is None and (traceparent := self.tracing.here(before)) is not None:
            meta = msgspec.structs.replace(meta, traceparent=traceparent)
        envelope = Envelope(
            actor=self._actor,
            correlation_id=cause.correlation_id if cause is not None else None,
            causation_id=cause.id if cause is not None else None,
            fence=fence,
            meta=meta,
        )
        return self._executor.submit(command, envelope)

    async def record(
        self, command: Command, cause: Message[Any] | None, *, fence: int | None = None, error: str | None = None
    ) -> Receipt:
        """Dispatch until the log takes or refuses it: what is known must not be lost to a store in trouble.

        Raises:
            Rejected, Invalid, TooLarge, ApplyFailed, UnknownName: it can't be recorded, whenever it is tried.
            NotRunning, Poisoned, Outdated, WrongLog: this process can't record any more.
        """
        meta = Meta(error=error) if error is not None else NO_META
        tries = 0
        try:
            while True:
                try:
                    return await self.submit(command, cause, fence=fence, meta=meta)
                except (Busy, StoreError) as trouble:
                    if not is_trouble(trouble) or self.is_over:
                        raise
                    self._held_up += tries == 0
                    tries += 1
                    self._tell(command, tries, trouble)
                await asyncio.sleep(draw_pause_s(TROUBLE_FIRST_S, 2.0, TROUBLE_MAX_S, tries, self._uniform))
        finally:
            self._held_up -= tries > 0

    def _tell(self, command: Command, tries: int, trouble: Exception) -> None:
        """In one line for all that the store holds up together; again for one that it holds up for long."""
        if (tries == 1 and self._held_up == 1) or tries % TRIES_TOLD == 0:
            logger.warning("%s: try %d to record %s: %s", self._worker, tries, type(command).__name__, trouble)

    async def finish(self, command: Command, cause: Message[Any] | None = None) -> None:
        """Record the end of an attempt. Refused means that it, or its job, is over already: nothing is left to do."""
        try:
            await self.record(command, cause)
        except Rejected:
            return


def is_trouble(error: BaseException) -> bool:
    """Whether the store is in trouble, or busy: the same command may be taken later, or has been already."""
    return isinstance(error, Busy | StoreError) and not isinstance(error, TooLarge)

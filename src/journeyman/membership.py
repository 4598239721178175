"""This process among the others that run the workers: takes over what the dead leave, and survives its own burial."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from journeyman.errors import JourneymanError, Rejected
from journeyman.executor import Executor
from journeyman.heartbeat import Heartbeat, Note
from journeyman.pending import Envelope
from journeyman.retry import draw_pause_s
from journeyman.store.base import Store
from journeyman.threads import LoopThread
from journeyman.timing import Timing
from journeyman.todo.jobs import InstanceLost
from journeyman.todo.ledger import instances_at_work, jobs_state, running_of
from journeyman.todo.process import Process

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: How long a process may be silent before others take its jobs over, in seconds.
TAKEOVER_S: Final = 10.0

#: How long leaving may take when the store does not answer, in seconds; then the process just ends.
LEAVE_S: Final = 2.0

#: The pauses between tries to go on under another id, in seconds.
RENEW_FIRST_S: Final = 0.1
RENEW_MAX_S: Final = 5.0


class Membership:
    """One process's part in running the workers. Its heartbeat beats in a thread, whatever keeps this loop busy.

    Args:
        note: makes the note of this moment for the others. Called in that thread.
        takeover_s: how long another process may be silent before its jobs are taken over.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        *,
        timing: Timing,
        note: Callable[[], Note],
        takeover_s: float,
    ) -> None:
        self.process = Process(timing.new_id(), on_loss=self._begin_to_renew)
        self._store = store
        self._executor = executor
        self._timing = timing
        self._note = note
        self._takeover_s = takeover_s
        self._loop = asyncio.get_running_loop()
        self._thread: LoopThread | None = None
        self._heartbeat: Heartbeat | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Become visible to the others, and take over what dead ones have left.

        Raises:
            StoreError: the store can't be used.
        """
        self._thread = LoopThread("journeyman: heartbeat")
        store = await self._thread.call(self._store.open_again())
        self._heartbeat = Heartbeat(
            store,
            self.process.instance,
            note=self._note,
            at_work=lambda: self._ask_main(self._at_work()),
            gone=lambda instance, left: self._ask_main(self._record_loss(instance, left)),
            takeover_s=self._takeover_s,
        )
        await self._thread.call(self._heartbeat.start())

    async def tell(self) -> None:
        """Tell the others now what this process does, and not only with its next heartbeat."""
        assert self._thread is not None
        assert self._heartbeat is not None
        await self._thread.call(self._heartbeat.tell())

    async def claim(self, role: str) -> bool:
        """See Store.claim. The role is free again when this process stops or dies."""
        assert self._thread is not None
        assert self._heartbeat is not None
        return await self._thread.call(self._heartbeat.claim(role))

    async def release(self, role: str) -> None:
        """See Store.release."""
        assert self._thread is not None
        assert self._heartbeat is not None
        await self._thread.call(self._heartbeat.release(role))

    async def stop(self) -> None:
        """Leave. Attempts of this process that are still open are given to the others, as nobody's fault."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        if self._thread is None:
            return
        try:
            if self._heartbeat is not None:
                async with asyncio.timeout(LEAVE_S):
                    await self._thread.call(self._heartbeat.stop(left=await self._has_open_attempts()))
        except (JourneymanError, TimeoutError) as error:
            logger.warning("the others are not told that this process ends, and have to notice: %s", error)
        finally:
            await self._thread.end(timeout_s=LEAVE_S)

    # On this loop, for the heartbeat's.

    async def _ask_main(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def _at_work(self) -> set[str]:
        return await self._executor.query(lambda state: instances_at_work(jobs_state(state)))

    async def _record_loss(self, instance: str, left: bool) -> None:
        """Record that the instance is gone, if that frees anything; once, whoever of the observers is first."""
        if instance not in await self._at_work():
            return
        try:
            await self._executor.submit(
                InstanceLost(instance=instance, left=left), Envelope(actor=f"instance:{self.process.instance}")
            )
        except Rejected:
            return

    async def _has_open_attempts(self) -> bool:
        """Whether the state has open attempts of this process; perhaps, when it can't be asked any more."""
        try:
            return await self._executor.query(lambda state: bool(running_of(jobs_state(state), self.process.instance)))
        except JourneymanError:
            return True

    # After its own loss.

    def _begin_to_renew(self) -> None:
        logger.warning(
            "the others took this process for gone, after %g s of silence, and took its jobs over: it goes on under "
            "another id",
            self._takeover_s,
        )
        self._renewing = asyncio.create_task(self._renew(), name="journeyman: new instance id")

    async def _renew(self) -> None:
        assert self._thread is not None
        assert self._heartbeat is not None
        instance, tries = self._timing.new_id(), 0
        while True:
            try:
                await self._thread.call(self._heartbeat.become(instance))
                break
            except JourneymanError as error:
                tries += 1
                logger.warning("no new id yet: %s", error)
                await asyncio.sleep(draw_pause_s(RENEW_FIRST_S, 2.0, RENEW_MAX_S, tries, self._timing.uniform))
        self.process.renew(instance)

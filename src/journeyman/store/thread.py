"""A thread that a blocking driver lives in, called from asyncio."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

from journeyman.errors import NotReady

logger = logging.getLogger(__name__)

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Thread:
    """Runs the functions handed to it, one after the other, in the order of the calls.

    A function that was handed over runs to its end, whatever becomes of its caller: a transaction is never left
    half done. It is a daemon: one that is stuck can't keep the process alive. A ThreadPoolExecutor of one thread does
    the same with a lock and a condition for each call: measured, a quarter slower over a whole append.
    """

    def __init__(self, name: str) -> None:
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # Calls may come from several loops in several threads; none may be queued behind the end, and so wait for ever.
        self._gate = threading.Lock()
        self._ended = False
        #: What the thread closes at its end. To be used in the thread only.
        self.closing = ExitStack()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """Run the function in the thread and return what it returns, or raise what it raises.

        Cancelling the caller abandons only its wait.

        Raises:
            NotReady: the thread was told to end. The function will not run.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(partial(_answer, answer, function, *args))
        return await answer

    def post(self, function: Callable[[], object]) -> None:
        """Run the function in the thread; nobody waits for it. Nothing happens after the end."""
        with suppress(NotReady):
            self._put(function)

    async def end(self, *, timeout_s: float) -> None:
        """Run what was called so far, close `closing`, end the thread; return when it has ended or after `timeout_s`.

        Harmless when repeated.
        """
        with self._gate:
            first, self._ended = not self._ended, True
        if first:
            self._queue.put(self._close)
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_s)

    def _close(self) -> None:
        """Close everything. What fails then loses nothing: what was committed is committed, wherever it stands."""
        try:
            self.closing.close()
        except Exception as error:  # noqa: BLE001  # nobody is there to meet the driver's error, whatever it is
            logger.warning("%s did not close cleanly: %s", self._thread.name, error)

    def _put(self, function: Callable[[], object]) -> None:
        with self._gate:
            if self._ended:
                raise NotReady("The store is closed. Open it again.")
            self._queue.put(function)

    def _run(self) -> None:
        while (function := self._queue.get()) is not None:
            function()
            del function  # An idle thread must not keep the last call's batch alive.


def _answer(answer: asyncio.Future[Any], function: Callable[..., object], *args: object) -> None:
    """Run the function and hand its outcome to the loop of the caller."""
    try:
        settle = partial(_set_result, answer, function(*args))
    except BaseException as error:  # noqa: BLE001  It is raised again, where the caller waits.
        settle = partial(_set_exception, answer, error)
    # A closed loop refuses the call with a RuntimeError: then nobody waits any more.
    with suppress(RuntimeError):
        answer.get_loop().call_soon_threadsafe(settle)


def _set_result(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _set_exception(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)

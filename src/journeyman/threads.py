"""Running blocking code beside the event loop, in threads that never keep the process alive."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, name: str) -> T:
    """Run a blocking function in a daemon thread of its own and return its result.

    Cancelling abandons the wait: the thread runs on, and its result is dropped. Unlike asyncio.to_thread, such a
    thread does not hold the process at exit.
    """
    return await begin_in_thread(function, name=name)


def begin_in_thread(function: Callable[[], T], *, name: str) -> asyncio.Future[T]:
    """Like `in_thread`, without waiting.

    It gives a future and no task, because a task that SystemExit is raised in ends the loop with it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(function)
        except StopIteration as error:
            # A future can't hold it, and would never be done: say it as a coroutine does (PEP 479).
            _tell(loop, _set_exception, future, RuntimeError(f"{name} raised StopIteration({error})"))
        except BaseException as error:  # noqa: BLE001  # it is raised where the result is awaited
            _tell(loop, _set_exception, future, error)
        else:
            _tell(loop, _set_result, future, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class LoopThread:
    """An event loop in a daemon thread of its own: what runs there goes on while the caller's loop is busy."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine there, and return what it returns. Cancelling the caller cancels it."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    async def end(self, *, timeout_s: float) -> None:
        """End the loop, with what still runs on it; return when the thread has ended, or after `timeout_s`."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join, timeout_s)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()


def _set_result(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        # The loop was closed meanwhile: nobody waits for the result any more.
        return

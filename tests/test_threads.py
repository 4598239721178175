from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from journeyman.threads import in_thread


async def test_the_result_is_returned_from_another_thread() -> None:
    here = threading.get_ident()
    there = await in_thread(threading.get_ident, name="elsewhere")
    assert there != here


async def test_an_error_is_raised_where_the_result_is_awaited() -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await in_thread(fail, name="failing")


async def test_stop_iteration_ends_the_wait_as_a_runtime_error() -> None:
    """A future can't hold a StopIteration: the wait would never end."""
    async with asyncio.timeout(10):
        with pytest.raises(RuntimeError, match="the seeker raised StopIteration"):
            await in_thread(lambda: next(iter(())), name="the seeker")


async def test_system_exit_in_a_thread_is_raised_and_ends_nothing() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await in_thread(leave, name="leaving")


async def test_cancelling_abandons_the_wait_and_lets_the_thread_end() -> None:
    begun, go, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow() -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(10)
        ended.set()

    waiting = asyncio.ensure_future(in_thread(slow, name="slow"))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    assert await in_thread(lambda: ended.wait(10), name="watching")


async def test_the_thread_sees_the_context_of_its_caller_and_keeps_no_process_alive() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("here")
    assert await in_thread(lambda: (variable.get(), threading.current_thread().daemon), name="x") == ("here", True)


def test_a_thread_that_outlives_its_loop_tells_nobody() -> None:
    go = threading.Event()
    threads: list[threading.Thread] = []

    async def begin() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def slow() -> None:
            threads.append(threading.current_thread())
            loop.call_soon_threadsafe(begun.set)
            go.wait(10)

        waiting = asyncio.ensure_future(in_thread(slow, name="slow"))
        await begun.wait()
        waiting.cancel()

    asyncio.run(begin())
    go.set()
    threads[0].join(10)
    assert not threads[0].is_alive()

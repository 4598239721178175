"""A thread for a blocking driver: in order, never half done, and quiet when nobody waits any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from journeyman.errors import NotReady
from journeyman.store.thread import Thread

#: How long anything may take before it counts as hanging, in seconds.
PATIENCE_S = 10.0


@pytest_asyncio.fixture
async def thread() -> AsyncIterator[Thread]:
    thread = Thread("under test")
    yield thread
    await thread.end(timeout_s=PATIENCE_S)


async def test_calls_run_in_their_order_in_one_thread_of_their_own(thread: Thread) -> None:
    names: list[tuple[int, str]] = []

    def note(number: int) -> None:
        names.append((number, threading.current_thread().name))

    await asyncio.gather(*(thread.call(note, number) for number in range(5)))
    assert names == [(number, "under test") for number in range(5)]


async def test_results_and_errors_travel(thread: Thread) -> None:
    assert await thread.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await thread.call(divmod, 7, 0)
    with pytest.raises(KeyboardInterrupt):
        await thread.call(interrupt)


async def test_a_call_outlives_its_cancelled_caller(thread: Thread) -> None:
    noise: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: noise.append(context))
    entered, leave, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(PATIENCE_S)
        done.set()

    caller = asyncio.create_task(thread.call(slow))
    await asyncio.to_thread(entered.wait, PATIENCE_S)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    leave.set()
    assert await thread.call(done.is_set)
    assert noise == []


def test_a_closed_loop_makes_no_noise_and_breaks_nothing() -> None:
    leave = threading.Event()
    threads: list[Thread] = []

    async def go_away() -> None:
        threads.append(Thread("under test"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads[0].call(leave.wait, PATIENCE_S), timeout=0)

    async def come_back() -> None:
        assert await threads[0].call(divmod, 7, 2) == (3, 1)
        await threads[0].end(timeout_s=PATIENCE_S)

    asyncio.run(go_away())
    leave.set()
    asyncio.run(come_back())


async def test_the_end_runs_what_was_called_and_closes_in_the_thread() -> None:
    thread, closed = Thread("under test"), []
    await thread.call(thread.closing.callback, lambda: closed.append(threading.current_thread().name))
    last = asyncio.create_task(thread.call(divmod, 7, 2))
    await asyncio.sleep(0)
    await thread.end(timeout_s=PATIENCE_S)
    assert await last == (3, 1)
    assert closed == ["under test"]
    await thread.end(timeout_s=PATIENCE_S)
    assert closed == ["under test"]


async def test_nothing_is_called_after_the_end() -> None:
    thread = Thread("under test")
    await thread.end(timeout_s=PATIENCE_S)
    with pytest.raises(NotReady):
        await thread.call(divmod, 7, 2)
    thread.post(pytest.fail)


async def test_the_end_does_not_wait_for_a_stuck_thread() -> None:
    thread, leave = Thread("under test"), threading.Event()
    stuck = asyncio.create_task(thread.call(leave.wait, PATIENCE_S))
    await asyncio.sleep(0)
    await thread.end(timeout_s=0.01)
    assert not stuck.done()
    leave.set()
    assert await stuck


def interrupt() -> None:
    raise KeyboardInterrupt


async def test_what_can_not_be_closed_is_told_and_the_rest_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    closed: list[str] = []

    def fail() -> None:
        raise OSError("the disk is gone")

    thread = Thread("driver")
    thread.closing.callback(closed.append, "first opened")
    thread.closing.callback(fail)
    thread.closing.callback(closed.append, "last opened")
    await thread.end(timeout_s=PATIENCE_S)
    assert closed == ["last opened", "first opened"]
    assert "driver did not close cleanly: the disk is gone" in caplog.text

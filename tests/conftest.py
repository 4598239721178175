"""Guards over every test: nothing holds an event loop, and no task outlives its test.

**A held loop.** Each callback that a loop runs is measured. What counts is the time that the callback itself needs:
CPU time of its thread, or time in which the thread waits by itself (a sleep, a lock, synchronous I/O). Time in which
the thread is ready but another process has the core counts for nothing, so a busy machine fails no test; nor does the
wait until a thread or a process that is started has a core, too, and begins: asyncio itself waits so. Nor does time for
collecting garbage, of which all the tests before have their part.

**A left task.** When a loop is closed, after the test's fixtures have ended, what still runs on it is a leak: in a
server it would run for ever. A task that only needs some more turns of the loop to end is let go.

Both are proved by planted faults in test_conftest.py.

Hypothesis measures, too, how long an example takes, by the clock on the wall: on a busy machine that says nothing.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers_postgres import postgres_server as postgres_server

#: The longest time, in seconds, that one callback may need. A busy loop or a blocking call in a test is meant to be
#: far over it; a single large decode on a slow machine is meant to be far under it.
CALLBACK_S_MAX = 0.5

#: How often the loop turns before a task counts as left: enough for cancellations to run through a few layers.
TURNS_BEFORE_LEFT = 20

#: The baseline of the time waited for a core is renewed when it is older than this, in seconds.
_BASELINE_S_MAX = 0.02

_FAILED = pytest.StashKey[bool]()

#: What went wrong in the current phase of the current test, in words. Loops may run in several threads.
_held: list[str] = []
_left: list[str] = []


settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# Where the tests are started in the background, the shell has them ignore SIGINT, and what they start would inherit
# that: its Ctrl-C would do nothing. A handler is not inherited, so with one here it begins with the default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class _Clock(threading.local):
    """How long the current thread was ready to run but had no core, up to a recent moment."""

    wall_s = 0.0
    waited_for_core_s = 0.0

    def renew(self, wall_s: float) -> None:
        self.wall_s = wall_s
        self.waited_for_core_s = _waited_for_core_s()


class _Collections(threading.local):
    """How much CPU time the current thread has spent on collecting garbage, in seconds."""

    cpu_s = 0.0
    begun_s = 0.0

    def note(self, phase: str, info: dict[str, int]) -> None:
        """See gc.callbacks: called in the thread that collects, before and after."""
        if phase == "start":
            self.begun_s = time.thread_time()
        else:
            self.cpu_s += time.thread_time() - self.begun_s


class _Starts(threading.local):
    """How long the current thread has waited by itself until what it started had begun, in seconds."""

    waited_s = 0.0


_clock = _Clock()
_collections = _Collections()
_starts = _Starts()


def _waited_for_core_s() -> float:
    """Return the seconds that the current thread has ever waited for a core; infinite where Linux doesn't tell.

    The second number of /proc/thread-self/schedstat, in nanoseconds: Documentation/scheduler/sched-stats.rst.
    """
    try:
        numbers = Path("/proc/thread-self/schedstat").read_bytes().split()
    except OSError:
        return float("inf")
    return int(numbers[1]) / 1e9


def _waited_by_itself_s() -> float:
    """Return the seconds that the current thread has waited for anything but a core, from some moment on."""
    return time.monotonic() - time.thread_time() - _waited_for_core_s()


def _noting_wait(start: Callable[..., None]) -> Callable[..., None]:
    """Wrap what starts a thread or a process, and returns once that has begun."""

    def noting_start(*args: object) -> None:
        before_s = _waited_by_itself_s()
        try:
            start(*args)
        finally:
            _starts.waited_s += _waited_by_itself_s() - before_s

    return noting_start


def _measured(run: Callable[[asyncio.Handle], None]) -> Callable[[asyncio.Handle], None]:
    """Wrap `Handle._run`, through which a loop runs everything: callbacks, timers, and the steps of tasks."""

    def measured_run(handle: asyncio.Handle) -> None:
        wall_s, cpu_s, collected_s = time.monotonic(), time.thread_time(), _collections.cpu_s
        starting_s = _starts.waited_s
        if wall_s - _clock.wall_s > _BASELINE_S_MAX:
            _clock.renew(wall_s)
        callback = handle._callback  # type: ignore[attr-defined]  # taken first: a cancelled handle forgets it
        run(handle)
        if time.monotonic() - wall_s > CALLBACK_S_MAX:
            collected_s = _collections.cpu_s - collected_s
            wall_s, cpu_s = time.monotonic() - wall_s - collected_s, time.thread_time() - cpu_s - collected_s
            _judge(callback, wall_s=wall_s - (_starts.waited_s - starting_s), cpu_s=cpu_s)

    return measured_run


def _judge(callback: object, *, wall_s: float, cpu_s: float) -> None:
    """Record a finding if the callback itself needed too long, by computing or by waiting."""
    owner = getattr(callback, "__self__", None)
    described = repr(owner if isinstance(owner, asyncio.Task) else callback)
    without_core_s = _waited_for_core_s() - _clock.waited_for_core_s
    blocked_s = wall_s - cpu_s - without_core_s if without_core_s < float("inf") else 0.0
    for needed_s, doing in ((cpu_s, "computing"), (blocked_s, "blocked")):
        if needed_s > CALLBACK_S_MAX:
            _held.append(
                f"the event loop was held for {needed_s:.2f} s, {doing}; at most {CALLBACK_S_MAX} s: {described}\n"
                "Do the work in a thread (asyncio.to_thread), in smaller steps, or await it."
            )


async def _turns() -> None:
    for _ in range(TURNS_BEFORE_LEFT):
        await asyncio.sleep(0)


def _noting_left_tasks(
    cancel_all_tasks: Callable[[asyncio.AbstractEventLoop], None],
) -> Callable[[asyncio.AbstractEventLoop], None]:
    """Wrap what `asyncio.Runner.close` calls to cancel what still runs: by itself it says nothing about it."""

    def cancel_left_tasks(loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(_turns())
        left = sorted(map(repr, asyncio.all_tasks(loop)))
        if left:
            tasks = "\n".join(left)
            _left.append(f"tasks were still running at the end:\n{tasks}\nCancel and await them.")
        cancel_all_tasks(loop)

    return cancel_left_tasks


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr("asyncio.events.Handle._run", _measured(asyncio.Handle._run))
    patch.setattr("threading.Thread.start", _noting_wait(threading.Thread.start))
    execute_child = subprocess.Popen._execute_child  # type: ignore[attr-defined]  # there is no public seam
    patch.setattr("subprocess.Popen._execute_child", _noting_wait(execute_child))
    cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]  # there is no public seam
    patch.setattr("asyncio.runners._cancel_all_tasks", _noting_left_tasks(cancel_all_tasks))
    gc.callbacks.append(_collections.note)
    config.add_cleanup(lambda: gc.callbacks.remove(_collections.note))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: collecting garbage need not look through it each time."""
    gc.collect()
    gc.freeze()


def _fail_on_findings(item: pytest.Item) -> None:
    held = [] if item.get_closest_marker("blocks_loop") else _held.copy()
    findings = held + _left
    _held.clear()
    _left.clear()
    if findings and not item.stash.get(_FAILED, False):
        pytest.fail("\n".join(findings), pytrace=False)


def _guard(item: pytest.Item) -> Generator[None, object, object]:
    """Run one phase of a test; fail it on what was found. A test that has failed already is not failed again."""
    try:
        result = yield
    except BaseException:
        item.stash[_FAILED] = True
        raise
    _fail_on_findings(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _guard(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _guard(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    return (yield from _guard(item))

"""Each guard of conftest.py fails a test with the planted fault, and passes its innocent neighbour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SETTINGS = f"""
[pytest]
addopts = -p pytest_asyncio.plugin
pythonpath = {Path(__file__).parent.parent}
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
markers = blocks_loop(reason): may block
"""


@pytest.fixture
def guarded(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder of tests under these guards, to be run in a process of its own: without what that has no use for."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makeini(SETTINGS)
    return pytester


def test_a_test_that_holds_the_loop_fails(guarded: pytest.Pytester) -> None:
    """Computing and blocking are both found; awaiting, working in a thread, and an excuse are not."""
    guarded.makepyfile("""
        import asyncio, subprocess, threading, time
        import pytest

        def compute():
            until = time.thread_time() + 0.7
            while time.thread_time() < until:
                pass

        async def test_computes():
            compute()

        async def test_sleeps():
            time.sleep(0.7)

        async def test_waits_for_a_process():
            subprocess.run(["sleep", "0.7"])

        async def test_computes_in_a_task():
            async def work():
                compute()
            await asyncio.create_task(work())

        async def test_sleeps_in_a_callback():
            asyncio.get_running_loop().call_soon(time.sleep, 0.7)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        def test_runs_a_loop_of_its_own():
            async def work():
                time.sleep(0.7)
            asyncio.run(work())

        async def test_awaits():
            await asyncio.sleep(0.7)

        async def test_works_in_a_thread():
            await asyncio.to_thread(compute)

        @pytest.mark.blocks_loop(reason="to show that it may")
        async def test_is_excused():
            time.sleep(0.7)

        def test_is_not_on_a_loop():
            time.sleep(0.7)
    """)
    result = guarded.runpytest_subprocess()
    result.assert_outcomes(failed=6, passed=4)
    result.stdout.fnmatch_lines(
        [
            "the event loop was held for * s, computing; at most 0.5 s: *",
            "the event loop was held for * s, blocked; at most 0.5 s: *",
            "FAILED *::test_computes - *",
            "FAILED *::test_sleeps - *",
            "FAILED *::test_waits_for_a_process*",
            "FAILED *::test_computes_in_a_task - *",
            "FAILED *::test_sleeps_in_a_callback - *",
            "FAILED *::test_runs_a_loop_of_its_own*",
        ]
    )


def test_a_busy_machine_fails_no_test(guarded: pytest.Pytester) -> None:
    """A callback that takes long only because others have the core is not blamed.

    Four processes share one core, so that what needs 0.3 s takes over a second.
    """
    guarded.makepyfile("""
        import os, signal, subprocess, sys, time

        async def test_computes_a_little():
            core = min(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {core})
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
            try:
                began = time.monotonic()
                until = time.thread_time() + 0.3
                while time.thread_time() < until:
                    pass
                assert time.monotonic() - began > 0.6, "the machine was not busy"
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
    """)
    guarded.runpytest_subprocess().assert_outcomes(passed=1)


def test_what_has_to_wait_for_a_core_until_it_begins_fails_no_test(guarded: pytest.Pytester) -> None:
    """Whoever starts a process or a thread is held so long: here these sleep before they begin."""
    guarded.makepyfile("""
        import asyncio, subprocess, threading, time

        def sleep():
            time.sleep(0.7)

        class Late(threading.Thread):
            def _bootstrap(self):
                sleep()
                super()._bootstrap()

        async def test_starts_a_process():
            process = await asyncio.create_subprocess_exec("true", preexec_fn=sleep)
            assert await process.wait() == 0

        async def test_starts_a_thread():
            thread = Late(target=print)
            thread.start()
            await asyncio.to_thread(thread.join)

        async def test_starts_both_and_sleeps():
            thread = Late(target=print)
            thread.start()
            process = subprocess.Popen(["true"], preexec_fn=sleep)
            sleep()
            await asyncio.to_thread(process.wait)
            await asyncio.to_thread(thread.join)
    """)
    result = guarded.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["FAILED *::test_starts_both_and_sleeps*"])
    # In CI, pytest repeats the whole of it in its summary.
    [held_s] = set(re.findall(r"held for (\S+) s, blocked", result.stdout.str()))
    assert 0.5 < float(held_s) < 1.4, "it slept for 0.7 s, beside two starts that took as long"


def test_an_example_that_takes_long_fails_no_test(guarded: pytest.Pytester) -> None:
    """Hypothesis allows 0.2 s for each by itself."""
    guarded.makepyfile("""
        import time
        from hypothesis import given, strategies as st

        @given(st.booleans())
        def test_is_held_up(value):
            time.sleep(0.3)
    """)
    guarded.runpytest_subprocess().assert_outcomes(passed=1)


def test_collecting_garbage_fails_no_test(guarded: pytest.Pytester) -> None:
    """Of what is looked through, the tests before have left the most."""
    guarded.makepyfile("""
        import gc, time

        async def test_collects():
            until = time.thread_time() + 0.7
            while time.thread_time() < until:
                gc.collect()
    """)
    guarded.runpytest_subprocess().assert_outcomes(passed=1)


def test_a_test_that_leaves_a_task_fails(guarded: pytest.Pytester) -> None:
    """A left task fails its test; a task that a fixture ends, or that is just ending, does not."""
    guarded.makepyfile("""
        import asyncio
        import pytest

        kept = set()

        @pytest.fixture
        async def server():
            task = asyncio.create_task(asyncio.sleep(3600))
            yield
            task.cancel()

        async def test_leaves_a_task():
            kept.add(asyncio.create_task(asyncio.sleep(3600), name="forgotten"))

        async def test_is_served(server):
            await asyncio.sleep(0)

        async def test_fails_and_leaves_a_task():
            kept.add(asyncio.create_task(asyncio.sleep(3600), name="consequence"))
            raise ValueError("the cause")
    """)
    result = guarded.runpytest_subprocess()
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(["*tasks were still running at the end*", "*name='forgotten'*", "*the cause*"])
    result.stdout.no_fnmatch_line("*name='consequence'*")

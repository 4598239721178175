"""Processes that are killed in the middle: one answer for each job, none forgotten, a killer parked."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

from journeyman import App, Record, RetryJob
from journeyman.pending import Envelope
from journeyman.store.memory import MemoryStore
from journeyman.todo.jobs import InstanceLost, JobStarted
from journeyman.todo.ledger import OUTCOME_UNKNOWN, jobs_state
from tests.todo.crash_process import CrashingDesk, is_done
from tests.todo.desk import WAIT_S, Ask, Desk, Note, desk, job_of, log_of, running, standing, until

NOTES = 30
PROCESS_S = 40.0


async def prepare(url: str, *notes: str) -> None:
    """What is to be done stands in the log before any worker runs: a job that came in while it was down."""
    async with App(features=[desk]).running(url) as app:
        await asyncio.gather(*(app.execute(Note(text=note)) for note in notes))


async def run(url: str, *, kill_after: int | None = None, mode: str = "retry") -> int:
    """Run the workers in a process; kill -9 it when so many performs have begun. Gives its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.todo.crash_process", url, mode, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PROCESS_S):
            begun = 0
            while await process.stdout.readline():
                begun += 1
                if begun == kill_after:
                    process.send_signal(signal.SIGKILL)
                    break
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def records_of(url: str) -> list[Record]:
    async with App(features=[desk], workers=[CrashingDesk()]).running(url, workers=False) as app:
        return await log_of(app)


def of_name(records: list[Record], name: str) -> list[str | None]:
    return [record.subject for record in records if record.name == name]


async def test_after_any_number_of_kills_each_job_has_exactly_one_answer_and_none_is_forgotten(tmp_path: Path) -> None:
    """Counted from the log alone: what a process believes died with it."""
    url = f"sqlite:///{tmp_path / 'crash.db'}"
    await prepare(url, *(f"n{number}" for number in range(NOTES)))
    kills = 0
    for kill_after in (1, 3, 7, 12, 9):
        kills += await run(url, kill_after=kill_after) == -signal.SIGKILL
    assert kills == 5
    assert await run(url) == 0
    records = await records_of(url)
    wanted = [f"n{number}.{part}" for number in range(NOTES) for part in range(2)]
    assert sorted(map(str, of_name(records, "desk/ask"))) == sorted(wanted)
    assert Counter(of_name(records, "desk/answer")) == Counter(wanted)
    assert of_name(records, "desk/fail") == []
    asked = [key for key in of_name(records, "desk/ask") if key is not None]
    assert asked == wanted
    lost = [record for record in records if record.name == "journeyman/instance-lost"]
    assert 1 <= len(lost) <= kills
    starts = {record.position: record for record in records if record.name == "journeyman/job-started"}
    fences = [record.fence for record in records if record.name == "desk/answer"]
    assert len(set(fences)) == len(fences)
    assert all(fence in starts for fence in fences)


async def test_a_job_that_kills_its_process_is_parked_and_its_neighbours_are_done(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'killer.db'}"
    await prepare(url, "a", "b", "killer", "c", "d", "e")
    codes: list[int] = []
    while len(codes) < 20 and (not codes or codes[-1] != 0):
        codes.append(await run(url))
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert codes[-1] == 0
    # Two jobs of one subject kill: each once as an innocent, and then once for each of its attempts.
    assert len(codes) - 1 <= 2 * (1 + CrashingDesk.retry.attempts)
    async with App(features=[desk], workers=[CrashingDesk()]).running(url, workers=False) as app:
        records = await log_of(app)
        rows = {row.job: row for row in await app.state(lambda state: list(jobs_state(state).jobs))}
        assert await app.state(lambda state: is_done(state, 6))
    assert set(rows) == {"killer.0", "killer.1"}
    assert {row.attempts for row in rows.values()} == {CrashingDesk.retry.attempts}
    assert all("no attempts left" in (row.error or "") for row in rows.values())
    assert Counter(of_name(records, "desk/answer")) == Counter(
        f"{name}.{part}" for name in "abcde" for part in range(2)
    )


async def test_what_must_not_be_repeated_waits_for_a_person_after_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'park.db'}"
    await prepare(url, *(f"n{number}" for number in range(4)))
    assert await run(url, kill_after=2, mode="park") == -signal.SIGKILL
    assert await run(url, mode="park") == 0
    records = await records_of(url)
    async with App(features=[desk], workers=[CrashingDesk()]).running(url, workers=False) as app:
        parked = {row.job: row.error for row in await app.state(lambda state: list(jobs_state(state).jobs))}
    assert parked
    assert set(parked.values()) == {OUTCOME_UNKNOWN}
    answers = Counter(of_name(records, "desk/answer"))
    assert set(answers.values()) == {1}
    assert set(answers) | set(parked) == {f"n{number}.{part}" for number in range(4) for part in range(2)}
    starts = Counter(of_name(records, "journeyman/job-started"))
    assert all(starts[key] == 1 for key in parked)


async def test_a_start_frees_the_attempts_of_every_other_instance_as_uncharged_suspects() -> None:
    store = MemoryStore()
    lost = "a process long gone"
    await _leave_open(store, lost, "a", "b")
    at_once: list[int] = []
    now = 0

    class Watching(Desk):
        async def perform(self, attempt: object) -> None:
            nonlocal now
            now += 1
            at_once.append(now)
            await asyncio.sleep(0)
            now -= 1

    async with running(Watching(), store=store) as app:
        await until(app, lambda state: len(jobs_state(state).jobs) == 0)
        [record] = await log_of(app, "journeyman/instance-lost")
        assert app.catalog.codec.decode(record).body == InstanceLost(instance=lost)
    # Suspects run one at a time, whichever of them it was.
    assert at_once == [1, 1]


async def _leave_open(store: MemoryStore, instance: str, *keys: str) -> None:
    """Open jobs and start them in the name of an instance that is gone."""

    async with running(Desk(), store=store, workers_run=False) as app:
        for key in keys:
            receipt = await app.execute(Ask(key=key))
            started = JobStarted(worker=Desk.name, job=key, opened_at=receipt.position, attempt=1, instance=instance)
            await app._now_running().executor.submit(started, Envelope())
            assert await app.state(standing(key, "running"))


async def test_a_killers_job_can_be_retried_by_a_person_once_it_is_mended(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mended.db'}"
    await prepare(url, "killer")
    async with asyncio.timeout(PROCESS_S):
        while await run(url) != 0:
            pass

    class Mended(CrashingDesk):
        async def perform(self, attempt: object) -> None:
            return None

    async with running(Mended(), store=url) as app:
        for key in ("killer.0", "killer.1"):
            assert (await app.state(job_of(key))) is not None
            await app.execute(RetryJob(worker=Desk.name, job=key))
        await until(app, lambda state: len(jobs_state(state).jobs) == 0, timeout_s=WAIT_S)
        assert await log_of(app, "desk/answer") == []

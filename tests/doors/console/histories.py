"""Random histories of an application, made by the application itself; and what a plain reading of the log says."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from journeyman import App, Command, DiscardJob, Message, Record, Rejected, RetryJob
from journeyman.pending import Envelope
from journeyman.replica import Replica
from journeyman.store.base import Store
from journeyman.store.memory import MemoryStore
from journeyman.todo.jobs import InstanceLost, JobEnded, JobFailed, JobParked, JobReleased, JobRow, JobStarted
from journeyman.todo.ledger import JobLedger, jobs_state
from tests.todo.desk import Answer, Ask, Desk, Note, desk

WORKER = Desk.name

#: Few keys, so that jobs are opened again; and not many processes, so that several attempts run in one. One that is
#: lost starts nothing any more.
KEYS = [f"job-{number}" for number in range(8)]
INSTANCES = [f"process-{number}" for number in range(40)]


def make_app(**options: Any) -> App:
    return App(features=[desk], workers=[Desk()], **options)


@asynccontextmanager
async def opened(store: str | Store = "memory:", **options: Any) -> AsyncIterator[App]:
    """The application without its workers: what happens to jobs is the test's to say."""
    app = make_app(**options)
    async with app.running(store, workers=False):
        yield app


async def submit(app: App, command: Command, *, cause: Message[Any] | None = None, fence: int | None = None) -> int:
    """Record a command, the framework's own among them. Returns its position; 0 when it is refused."""
    envelope = Envelope(
        actor="test",
        fence=fence,
        causation_id=cause.id if cause is not None else None,
        correlation_id=cause.correlation_id if cause is not None else None,
    )
    try:
        return (await app._now_running().executor.submit(command, envelope)).position
    except Rejected:
        return 0


async def row_of(app: App, key: str) -> JobRow | None:
    return await app.state(lambda state: jobs_state(state).jobs.get((WORKER, key)))


async def start(app: App, key: str, instance: str = "one") -> int:
    """Record that an attempt at the job begins; its fence, or 0."""
    row = await row_of(app, key)
    if row is None:
        return 0
    body = JobStarted(worker=WORKER, job=key, opened_at=row.opened_at, attempt=row.attempts + 1, instance=instance)
    return await submit(app, body, cause=await app.messages.get(row.opened_at))


async def live(app: App, seed: int, *, steps: int) -> None:
    """Let so many things happen, as chance wants; what the state refuses does not."""
    chance = random.Random(seed)
    for number in range(steps):
        await _step(app, chance, INSTANCES[number * len(INSTANCES) // steps])


async def _step(app: App, chance: random.Random, instance: str) -> None:
    key = chance.choice(KEYS)
    row = await row_of(app, key)
    cause = await app.messages.get(row.opened_at) if row is not None else None
    if row is not None and row.fence is not None:
        ends: list[tuple[Command, int | None]] = [
            (JobFailed(fence=row.fence, error="no", retry_after_s=chance.choice([None, 0.0, 60.0])), None),
            (JobReleased(fence=row.fence, reason="drained"), None),
            (JobEnded(fence=row.fence, reason="no answer"), None),
            (Answer(key=key, text="by the attempt"), row.fence),
            (Note(text="whatever carries the fence is an answer"), row.fence),
            (Ask(key=key), None),
            (InstanceLost(instance=row.instance or instance, left=chance.random() < 0.3), None),
        ]
        command, fence = chance.choice(ends)
        await submit(app, command, cause=cause, fence=fence)
        return
    what = chance.randrange(16)
    if what < 4:
        await submit(app, Ask(key=key, subject=chance.choice([None, "a", "b"])))
    elif what < 12:
        await start(app, key, instance)
    else:
        commands: list[Command] = [
            RetryJob(worker=WORKER, job=key),
            DiscardJob(worker=WORKER, job=key, reason="enough"),
            JobParked(worker=WORKER, job=key, reason="no attempts left"),
            chance.choice([Answer(key=key, text="by a person"), Note(text=key)]),
        ]
        await submit(app, commands[what - 12])


async def whole_log(app: App) -> list[Record]:
    found: list[Record] = []
    while records := await app.store.log.read(len(found), 1000):
        found += records
    return found


def open_jobs_by_position(app: App, records: list[Record]) -> list[dict[str, int | None]]:
    """The open jobs after each message, with their fences: what the ledger itself makes of the log."""
    replica = Replica(MemoryStore().log, app.catalog, [JobLedger(app.todo_workers)])
    found: list[dict[str, int | None]] = [{}]
    for record in records:
        replica.replay([record])
        found.append({row.job: row.fence for row in jobs_state(replica.state).jobs})
    return found

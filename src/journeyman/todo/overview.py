"""What people see of open jobs: the first ones, in order, and why one waits. Pure looks at the state."""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec

from journeyman.todo.jobs import UNDER_WAY, JobRow, JobsState, Standing

#: The order in which open jobs are shown: first what needs a person.
STANDINGS: Final[tuple[Standing, ...]] = ("parked", "running", "retrying", "waiting", "delayed", "behind")


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Why an open job is not being tried now. More than one may hold.

    `ahead` is the job of its subject that goes first. `due_at_us` is when it may be tried, None when that is now.
    """

    is_parked: bool = False
    is_paused: bool = False
    is_suspect: bool = False
    ahead: str | None = None
    due_at_us: int | None = None


def first_jobs(state: JobsState, worker: str, *, limit: int) -> list[JobRow]:
    """The first open jobs of a worker."""
    rows = (row for standing in STANDINGS for row in state.jobs.scan("due", worker, standing))
    return list(islice(rows, limit))


def last_error(state: JobsState, worker: str) -> str | None:
    """The error of the open job that failed last, as far as its due time tells: workers' own errors stay with them."""
    for standing in ("retrying", "parked"):
        for row in state.jobs.find("due", worker, standing, reverse=True, limit=1):
            return row.error
    return None


def oldest_waiting(state: JobsState, worker: str) -> JobRow | None:
    """Of the jobs that could be tried, the one that is due for longest."""
    firsts = (state.jobs.scan("due", worker, standing, limit=1) for standing in ("waiting", "retrying"))
    return min((row for first in firsts for row in first), key=lambda row: row.due_at_us, default=None)


def wait_of(state: JobsState, row: JobRow, *, now_us: int) -> Wait | None:
    """Why the job waits; None while it is tried."""
    if row.standing == "running":
        return None
    worker = state.workers.get(row.worker)
    return Wait(
        is_parked=row.standing == "parked",
        is_paused=worker is not None and worker.paused,
        is_suspect=row.suspect,
        ahead=_ahead(state, row),
        due_at_us=row.due_at_us if row.standing in ("retrying", "delayed") and row.due_at_us > now_us else None,
    )


def _ahead(state: JobsState, row: JobRow) -> str | None:
    """The job of its subject that is under way, or that is to be tried before it."""
    if row.subject is None or row.standing in ("parked", "retrying"):
        return None
    standings = (*UNDER_WAY, "waiting") if row.standing == "behind" else UNDER_WAY
    for standing in standings:
        for other in state.jobs.find("subject", row.worker, row.subject, standing, limit=1):
            return other.job
    return None

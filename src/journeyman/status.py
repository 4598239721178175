"""What each worker is doing, in all processes together, for people and monitors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

import msgspec

from journeyman.heartbeat import WorkerNote
from journeyman.todo.jobs import JobsState, Standing

_STANDINGS: Final[tuple[Standing, ...]] = get_args(Standing)

#: The statuses of a worker that another process runs, and of one that nobody runs.
STANDING_BY: Final = "standing by"
NOT_RUNNING: Final = "not running"

#: How good a status is: the least good one of all processes is shown. Those that are not listed are in between.
_HOW_GOOD: Final = {"failed": 0, "failing": 1, "running": 3}
_IN_BETWEEN: Final = 2


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker is doing, in all processes together.

    `status` is a word: running, failing, paused, stopped …; the least good one of all processes that run it; "not
    running" when none does. `processes` is their number. `position` and `last_error` are one process's, this one's
    first. `lag` is the head less that position. The counts of jobs are None for a worker without a to-do list.
    """

    name: str
    status: str
    processes: int
    position: int | None
    lag: int | None
    waiting: int | None = None
    running: int | None = None
    retrying: int | None = None
    parked: int | None = None
    last_error: str | None = None


def combined(name: str, told: Iterable[WorkerNote], *, head: int) -> WorkerStatus:
    """The status of a worker, from what processes say of theirs."""
    at_work = [note for note in told if note.name == name and note.status != STANDING_BY]
    position = next((note.position for note in at_work if note.position is not None), None)
    return WorkerStatus(
        name=name,
        status=min((note.status for note in at_work), key=_how_good, default=NOT_RUNNING),
        processes=len(at_work),
        position=position,
        lag=None if position is None else max(0, head - position),
        last_error=next((note.last_error for note in at_work if note.last_error is not None), None),
    )


def with_jobs(status: WorkerStatus, state: JobsState) -> WorkerStatus:
    """The same, with what the state says of a to-do worker."""
    row = state.workers.get(status.name)
    counts = {standing: state.jobs.count("due", status.name, standing) for standing in _STANDINGS}
    return msgspec.structs.replace(
        status,
        status="paused" if row is not None and row.paused else status.status,
        waiting=counts["waiting"] + counts["behind"] + counts["delayed"],
        running=counts["running"],
        retrying=counts["retrying"],
        parked=counts["parked"],
    )


def standing_by(name: str) -> WorkerNote:
    """What a process says of a worker that another one runs."""
    return WorkerNote(name=name, status=STANDING_BY)


def _how_good(status: str) -> int:
    return _HOW_GOOD.get(status, _IN_BETWEEN)

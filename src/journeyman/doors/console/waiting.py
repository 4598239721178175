"""Why a job waits, in sentences."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from journeyman.heartbeat import Note, WorkerNote
from journeyman.todo.jobs import JobRow
from journeyman.todo.overview import Wait

#: What a lane that is not open says of itself in a worker's status.
_LANE = "lane "


class Reason(msgspec.Struct, frozen=True):
    """A sentence. `until_us` is when that is over, where it is known; `job` is the job that is spoken of."""

    text: str
    until_us: int | None = None
    job: str | None = None


def reasons(row: JobRow, wait: Wait, notes: Iterable[Note]) -> list[Reason]:
    """Why a job that is not being tried waits, what weighs most first; never empty."""
    told = [worker for note in notes for worker in note.workers if worker.name == row.worker]
    found = [*_decisions(row, wait), *_order(wait), *_lanes(told)]
    if row.suspect:
        found.append(Reason("It is suspect: its process died during an attempt, so it is tried alone among suspects."))
    if not told:
        found.append(Reason("No process runs the worker: start journeyman work."))
    return found or [Reason("It is ready, and waits for a free slot of its worker.")]


def _decisions(row: JobRow, wait: Wait) -> list[Reason]:
    found = []
    if wait.is_parked:
        found.append(Reason("It is parked: a person decides whether to retry or discard it."))
    if wait.is_paused:
        found.append(Reason("Its worker is paused: nothing new begins until somebody resumes it."))
    if wait.due_at_us is not None:
        text = "It is opened to be due later." if row.standing == "delayed" else "It is tried again after a pause."
        found.append(Reason(text, wait.due_at_us))
    return found


def _order(wait: Wait) -> list[Reason]:
    return [] if wait.ahead is None else [Reason("Another job of the same subject goes first.", job=wait.ahead)]


def _lanes(told: Iterable[WorkerNote]) -> list[Reason]:
    """What the processes say of their lanes: a lane that is not open in any of them lets nothing through there."""
    found = []
    for worker in told:
        state = worker.status.removeprefix(_LANE)
        if worker.status.startswith(_LANE):
            because = f": {worker.last_error}" if worker.last_error else ""
            found.append(Reason(f"The lane to the service is {state}{because}.", worker.lane_until_us))
    return found

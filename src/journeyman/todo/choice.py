"""Which jobs to start now: a pure look at the state."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping

import msgspec

from journeyman.todo.jobs import STARTABLE, JobRow, JobsState
from journeyman.todo.ledger import is_kept_back


class Choice(msgspec.Struct, kw_only=True):
    """What a runner finds in the state.

    `start` are the jobs to start, those due for longest first. `stray` are this instance's open attempts that nobody
    here runs. `over` are keys of jobs that run here, but whose attempts the state has ended. `lost` when this instance
    was declared gone. `next_due_us` says when the next job is due, None when one that is due already waits for a slot.
    """

    start: list[JobRow] = []
    stray: list[JobRow] = []
    over: list[str] = []
    lost: bool = False
    next_due_us: int | None = None
    resumed_at: int = 0


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """What may be started: how many jobs, whether a suspect among them, and preferably not the job `unlike`."""

    free: int
    suspect: bool
    unlike: str | None


def choose(
    state: JobsState, worker: str, instance: str, fences: Mapping[str, int | None], *, slots: Slots, now_us: int
) -> Choice:
    """Choose for a worker in a process. `fences` are its running attempts by job, None until the start is recorded."""
    mine = {row.job: row for row in state.jobs.scan("due", worker, "running") if row.instance == instance}
    choice = Choice(
        lost=instance in state.lost,
        stray=[row for job, row in mine.items() if job not in fences],
        over=[job for job, fence in fences.items() if fence is not None and _fence_of(mine.get(job)) != fence],
    )
    row = state.workers.get(worker)
    if row is not None:
        choice.resumed_at = row.resumed_at
    if slots.free > 0 and not choice.lost and not (row is not None and row.paused):
        _fill(choice, state, worker, fences, slots=slots, now_us=now_us)
    return choice


def _fill(
    choice: Choice, state: JobsState, worker: str, running: Collection[str], *, slots: Slots, now_us: int
) -> None:
    """Choose jobs to start, those that have been due for longest first."""
    suspect_allowed = slots.suspect
    subjects = {row.subject for job in running if (row := state.jobs.get((worker, job))) and row.subject is not None}
    second_best: JobRow | None = None
    scans = (state.jobs.scan("due", worker, standing) for standing in STARTABLE)
    for row in heapq.merge(*scans, key=lambda row: (row.due_at_us, row.opened_at)):
        if row.due_at_us > now_us:
            choice.next_due_us = row.due_at_us
            break
        if len(choice.start) >= slots.free:
            break
        if row.job in running or row.subject in subjects or (row.suspect and not suspect_allowed):
            continue
        if is_kept_back(state, row):
            continue
        if row.job == slots.unlike:
            second_best = row
            continue
        suspect_allowed = suspect_allowed and not row.suspect
        if row.subject is not None:
            subjects.add(row.subject)
        choice.start.append(row)
    if second_best is not None and not choice.start:
        choice.start.append(second_best)


def _fence_of(row: JobRow | None) -> int | None:
    return None if row is None else row.fence

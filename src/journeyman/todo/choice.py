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
    """What may be started: how many jobs, whether a suspect among them, and preferably not the job `unlike`.

    `pause_max_us` is longer than any pause between two attempts.
    """

    free: int
    suspect: bool
    unlike: str | None
    pause_max_us: int


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
    """Choose jobs to start, those that have been due for longest first.

    They may have been recorded by clocks that are hours ahead of this one. A first attempt waits for no clock; and a
    retry that seems to be due later than any pause makes it was recorded by such a clock, and is due.
    """
    filling = _Filling(choice, state, worker, running, slots)
    ahead_us = now_us + slots.pause_max_us
    for row in state.jobs.scan("due", worker, "retrying", reverse=True):
        if row.due_at_us <= ahead_us or filling.is_full:
            break
        filling.consider(row)
    scans = (state.jobs.scan("due", worker, standing) for standing in STARTABLE)
    for row in heapq.merge(*scans, key=lambda row: (_due_at_us(row, now_us), row.opened_at)):
        if _due_at_us(row, now_us) > now_us:
            choice.next_due_us = row.due_at_us
            break
        if filling.is_full:
            break
        filling.consider(row)
    filling.end()


def _due_at_us(row: JobRow, now_us: int) -> int:
    return min(row.due_at_us, now_us) if row.standing == "waiting" else row.due_at_us


class _Filling:
    """Fills the slots with jobs that may run beside each other, and beside those that run."""

    def __init__(self, choice: Choice, state: JobsState, worker: str, running: Collection[str], slots: Slots) -> None:
        self._choice, self._state, self._running, self._slots = choice, state, running, slots
        self._suspect_allowed = slots.suspect
        rows = (state.jobs.get((worker, job)) for job in running)
        self._subjects = {row.subject for row in rows if row is not None and row.subject is not None}
        self._second_best: JobRow | None = None

    @property
    def is_full(self) -> bool:
        return len(self._choice.start) >= self._slots.free

    def consider(self, row: JobRow) -> None:
        if row.job in self._running or row.subject in self._subjects or (row.suspect and not self._suspect_allowed):
            return
        if is_kept_back(self._state, row):
            return
        if row.job == self._slots.unlike:
            self._second_best = row
            return
        self._suspect_allowed = self._suspect_allowed and not row.suspect
        if row.subject is not None:
            self._subjects.add(row.subject)
        self._choice.start.append(row)

    def end(self) -> None:
        if self._second_best is not None and not self._choice.start:
            self._choice.start.append(self._second_best)


def _fence_of(row: JobRow | None) -> int | None:
    return None if row is None else row.fence

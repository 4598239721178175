"""The open jobs at the position that the index has reached, in memory while it is written: each is looked up often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from journeyman.doors.console.index.job_effects import OVER, Event

Key = tuple[str, str]


class Happening(NamedTuple):
    """What happened to a job. `fence` is where the attempt began that it concerns."""

    worker: str
    job: str
    position: int
    event: Event
    fence: int | None


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A running attempt: where it began, and in which process it runs."""

    fence: int
    instance: str | None


class OpenJobs:
    """The open jobs by worker and key, with their running attempts; and what happened since the last `take`."""

    def __init__(self, rows: Iterable[tuple[str, str, int | None, str | None]] = ()) -> None:
        self._jobs: dict[Key, Attempt | None] = {}
        self._by_fence: dict[int, Key] = {}
        self._happened: list[Happening] = []
        self._changed: set[Key] = set()
        #: The message that is being followed.
        self.position = 0
        for worker, job, fence, instance in rows:
            self._set((worker, job), None if fence is None else Attempt(fence, instance))

    def is_open(self, worker: str, job: str) -> bool:
        return (worker, job) in self._jobs

    def by_fence(self, fence: int) -> Key | None:
        return self._by_fence.get(fence)

    def running_in(self, instance: str) -> list[Key]:
        running = ((key, self._jobs[key]) for key in self._by_fence.values())
        return [key for key, attempt in running if attempt is not None and attempt.instance == instance]

    def happened(self, worker: str, job: str, event: Event, *, instance: str | None = None) -> None:
        key = (worker, job)
        running = self._jobs.get(key)
        if event == "started":
            running = Attempt(self.position, instance)
        self._happened.append(Happening(*key, self.position, event, None if running is None else running.fence))
        if event in OVER:
            self._remove(key)
        elif event == "started":
            self._set(key, running)
        elif event != "retried":
            self._set(key, None)

    def take(self) -> tuple[list[Happening], dict[Key, Attempt | None], list[Key]]:
        """What happened, the jobs that are open and have changed, and those that are open no more."""
        happened, changed = self._happened, self._changed
        self._happened, self._changed = [], set()
        is_open = {key: self._jobs[key] for key in changed if key in self._jobs}
        return happened, is_open, list(changed - is_open.keys())

    def _set(self, key: Key, attempt: Attempt | None) -> None:
        self._remove(key)
        self._jobs[key] = attempt
        if attempt is not None:
            self._by_fence[attempt.fence] = key

    def _remove(self, key: Key) -> None:
        before = self._jobs.pop(key, None)
        if before is not None:
            del self._by_fence[before.fence]
        self._changed.add(key)

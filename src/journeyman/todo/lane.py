"""The lane: when a worker may call its service, and whose fault a failure is.

One lane for each to-do worker in each process. A service that asks for a pause gets it; one that is down is tried
with one probe at a time; one that refuses the key is left alone. What fails meanwhile is charged to no job.

An error that looks like the service's, such as a 500 or a timeout, is charged to a job only on evidence that the
service works: since this one's last failure, or since its attempt began, other jobs have succeeded, and at least as
often as they failed. Without evidence, nobody knows whose fault it is, and the job is tried again after pauses that
grow, however often that takes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from journeyman.errors import GiveUp, RateLimited, ServiceError, Unauthorized, Unavailable
from journeyman.retry import describe, draw_pause_s

#: Service errors in a row, from so many different jobs, open the breaker.
JOBS_TO_OPEN: Final = 3

#: The pauses between probes of a service that is down, in seconds.
PROBE_FIRST_S: Final = 1.0
PROBE_FACTOR: Final = 2.0
PROBE_MAX_S: Final = 300.0

#: The pause when a service asks for one without saying how long, and the longest that it may ask for, in seconds.
PAUSE_DEFAULT_S: Final = 5.0
PAUSE_MAX_S: Final = 3600.0

#: The least pause when a service asks for one again and again, perhaps of 0 seconds: it grows, because each try is
#: recorded.
PAUSE_LEAST_FIRST_S: Final = 0.05
PAUSE_LEAST_MAX_S: Final = 60.0

#: Of how many jobs it is remembered when they failed: more than can fail side by side and be tried again.
FAILING_MAX: Final = 10_000

#: Errors of the operating system that say something of the network, and nothing of the job.
NETWORK_ERRNOS: Final = frozenset(
    {
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENETRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENOTCONN,
        errno.EADDRNOTAVAIL,
        errno.ETIMEDOUT,
    }
)


class LaneState(Enum):
    """What a lane lets through."""

    OPEN = "open"
    PAUSED = "paused"
    PROBING = "probing"
    STOPPED = "stopped"


class Fault(Enum):
    """Whose fault a failed attempt is: the job's, which is charged; the service's, or nobody knows, which is not."""

    JOB = "job"
    SERVICE = "service"
    UNKNOWN = "unknown"


class Tally(msgspec.Struct, frozen=True):
    """How many attempts came back with a result, and how many with an error that looks like the service's."""

    successes: int = 0
    failures: int = 0


class Lane:
    """Decides how many attempts may start now, from how the last ones went.

    Args:
        now_s: a monotonic clock, in seconds.
        uniform: where chance comes from.
    """

    def __init__(self, *, now_s: Callable[[], float], uniform: Callable[[float, float], float]) -> None:
        self._now_s = now_s
        self._uniform = uniform
        self._until_s = 0.0
        self._failed_jobs: set[str] = set()
        self._tally = Tally()
        #: How the tally stood when the attempt began, or, if it failed before, at its last failure.
        self._seen: dict[str, Tally] = {}
        #: For how many failures in a row nobody knew whose fault they were.
        self._unknown: dict[str, int] = {}
        self._probes = 0
        self._limits = 0
        self._down = False
        self._stopped = False
        #: The last job that probed a service that is down: the next probe is another job, where there is one.
        self.last_probe: str | None = None
        #: Why the lane is not open, for people; None when it is.
        self.reason: str | None = None

    @property
    def state(self) -> LaneState:
        if self._stopped:
            return LaneState.STOPPED
        if self._now_s() < self._until_s:
            return LaneState.PAUSED
        return LaneState.PROBING if self._down else LaneState.OPEN

    @property
    def waits_s(self) -> float:
        """Seconds until the lane lets something through again; 0 when it does now."""
        return max(0.0, self._until_s - self._now_s())

    def allows(self, *, free: int, running: int) -> int:
        """How many attempts may start now, given free slots and running attempts."""
        state = self.state
        if state is LaneState.OPEN:
            return free
        if state is LaneState.PROBING:
            return min(free, 1) if running == 0 else 0
        return 0

    def began(self, job: str) -> None:
        """An attempt at the job begins."""
        self._seen.setdefault(job, self._tally)
        self._forget_oldest()

    def succeeded(self, job: str) -> None:
        """An attempt came back with a result: the service works."""
        self._tally = Tally(self._tally.successes + 1, self._tally.failures)
        self.forget(job)
        self._failed_jobs.clear()
        self._down = False
        self._probes = self._limits = 0
        if not self._stopped and self._now_s() >= self._until_s:
            self.reason = None

    def failed(self, job: str, error: BaseException) -> Fault:
        """An attempt failed. Says whose fault it is, and closes the lane as far as it must be."""
        fault = self._judge(job, error)
        self._seen[job] = self._tally
        self._forget_oldest()
        return fault

    def _judge(self, job: str, error: BaseException) -> Fault:
        if isinstance(error, GiveUp):
            return Fault.JOB
        if isinstance(error, Unauthorized):
            self._stopped = True
            self.reason = describe(error)
            return Fault.SERVICE
        if isinstance(error, RateLimited):
            self._limited(error)
            return Fault.SERVICE
        if not is_of_service(error):
            return Fault.JOB
        works = self._works_for_others(job)
        self._tally = Tally(self._tally.successes, self._tally.failures + 1)
        if self._down or isinstance(error, Unavailable):
            self._go_down(job, error)
            return Fault.SERVICE
        if works:
            self._unknown.pop(job, None)
            return Fault.JOB
        return self._unexplained(job, error)

    def _works_for_others(self, job: str) -> bool:
        """Whether other jobs succeed meanwhile, and at least as often as they fail.

        One success among many failures says nothing: a service that fails most of the time would have most of its
        failures charged, and good jobs given up.
        """
        seen = self._seen.get(job, self._tally)
        successes, failures = self._tally.successes - seen.successes, self._tally.failures - seen.failures
        return 0 < successes >= failures

    def pause_s(self, job: str) -> float:
        """How long a job should wait whose failure may be the service's fault or its own, in seconds."""
        return draw_pause_s(PROBE_FIRST_S, PROBE_FACTOR, PROBE_MAX_S, self._unknown.get(job, 1), self._uniform)

    def forget(self, job: str) -> None:
        """The job is over, or parked."""
        self._seen.pop(job, None)
        self._unknown.pop(job, None)

    def resume(self) -> None:
        """Somebody mended it: let everything through."""
        self._until_s = 0.0
        self._stopped = self._down = False
        self._failed_jobs.clear()
        self._unknown.clear()
        self._probes = self._limits = 0
        self.reason = None

    def _limited(self, error: RateLimited) -> None:
        if self.waits_s == 0:  # Others that were under way get the same answer: it counts once.
            self._limits += 1
        least_s = draw_pause_s(PAUSE_LEAST_FIRST_S, 2.0, PAUSE_LEAST_MAX_S, self._limits, self._uniform)
        self._pause(max(least_s, PAUSE_DEFAULT_S if error.retry_after_s is None else error.retry_after_s), error)

    def _unexplained(self, job: str, error: BaseException) -> Fault:
        """Nobody knows whose fault it is. One document that always fails must not hold the lane: only different jobs in
        a row open the breaker.
        """
        self._failed_jobs.add(job)
        if len(self._failed_jobs) >= JOBS_TO_OPEN:
            self._go_down(job, error)
            return Fault.SERVICE
        self._unknown[job] = self._unknown.get(job, 0) + 1
        return Fault.UNKNOWN

    def _forget_oldest(self) -> None:
        for jobs in (self._unknown, self._seen):
            while len(jobs) > FAILING_MAX:
                del jobs[next(iter(jobs))]

    def _go_down(self, job: str, error: BaseException) -> None:
        if self._now_s() < self._until_s and self._down:
            return  # A straggler that was running when the lane went down: it is no probe.
        self._down = True
        self._probes += 1
        self.last_probe = job
        self._pause(draw_pause_s(PROBE_FIRST_S, PROBE_FACTOR, PROBE_MAX_S, self._probes, self._uniform), error)

    def _pause(self, seconds: float, error: BaseException) -> None:
        self._until_s = max(self._until_s, self._now_s() + min(seconds, PAUSE_MAX_S))
        self.reason = describe(error)


def is_of_service(error: BaseException) -> bool:
    """Whether the error is one that services and networks make; other errors of the system, like a missing file, are
    the job's own.
    """
    if isinstance(error, ServiceError | TimeoutError | ConnectionError | socket.gaierror):
        return True
    return isinstance(error, OSError) and error.errno in NETWORK_ERRNOS

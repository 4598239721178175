"""What a message does to jobs: the to-do lists' ledger, told as events instead of rows.

The ledger keeps only open jobs. The same messages, followed by the same rules, give the histories of all of them, those
that are over, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, Protocol

from journeyman.errors import Undecodable
from journeyman.feature import Catalog, Command
from journeyman.message import Message, Record
from journeyman.todo.jobs import (
    DiscardJob,
    InstanceLost,
    JobEnded,
    JobFailed,
    JobParked,
    JobReleased,
    JobStarted,
    RetryJob,
)
from journeyman.todo.worker import Job, TodoWorker

#: What happens to a job, in the words of the protocol. `lost`: the process of its attempt is gone.
Event = Literal[
    "opened", "started", "failed", "released", "lost", "parked", "retried", "answered", "ended", "discarded"
]

#: The events that end a job.
OVER: Final[tuple[Event, ...]] = ("answered", "ended", "discarded")

#: The events that an attempt ends with, whoever is to blame.
ATTEMPT_ENDS: Final[tuple[Event, ...]] = ("failed", "released", "lost", *OVER)

_INTERNAL: Final = (JobStarted, JobFailed, JobReleased, JobEnded, JobParked, InstanceLost, RetryJob, DiscardJob)


class Jobs(Protocol):
    """The open jobs and their attempts: what the effects change."""

    def is_open(self, worker: str, job: str) -> bool:
        """Whether the job is open."""
        ...

    def by_fence(self, fence: int) -> tuple[str, str] | None:
        """The worker and job of the attempt that began there; None when it is over."""
        ...

    def running_in(self, instance: str) -> list[tuple[str, str]]:
        """The workers and jobs of the attempts in one process."""
        ...

    def happened(self, worker: str, job: str, event: Event, *, instance: str | None = None) -> None:
        """Take note of what happened to a job."""
        ...


class JobEffects:
    """Follows an application's messages, and says what they do to its jobs."""

    def __init__(self, catalog: Catalog, workers: Iterable[TodoWorker]) -> None:
        self._decode = catalog.codec.decode
        self._workers: dict[str, str] = {}
        self._openers: dict[type[Command], list[tuple[str, Callable[[Message[Any]], Any]]]] = {}
        self._enders: dict[type[Command], list[tuple[str, Callable[[Message[Any]], Any]]]] = {}
        for worker in workers:
            self._workers |= dict.fromkeys((worker.name, *worker.former_names), worker.name)
            for marks, methods in ((worker.openers, self._openers), (worker.enders, self._enders)):
                for method, commands in marks:
                    for command in commands:
                        methods.setdefault(command, []).append((worker.name, getattr(worker, method)))
        kinds = {*_INTERNAL, *self._openers, *self._enders}
        types = [command.message_type for command in catalog.commands.values() if command.message_type.body in kinds]
        #: The names of messages that may do something to a job; all others are not even decoded.
        self._names = {name for kind in types for name in (kind.name, *kind.former_names)}

    def follow(self, record: Record, jobs: Jobs) -> None:
        """Tell the open jobs what the record does to them: first what it answers, last what it opens."""
        if record.fence is not None:
            _end_attempt(jobs, record.fence, "answered")
        if record.name in self._names:
            try:
                message = self._decode(record)
            except Undecodable:
                return  # It stops the application, which says so itself.
            self._internal(message, jobs)
            self._application(message, jobs)

    def _internal(self, message: Message[Any], jobs: Jobs) -> None:
        match message.body:
            case JobStarted(worker=worker, job=job, instance=instance):
                self._happened(jobs, worker, job, "started", instance=instance)
            case JobFailed(fence=fence):
                _end_attempt(jobs, fence, "failed")
            case JobReleased(fence=fence):
                _end_attempt(jobs, fence, "released")
            case JobEnded(fence=fence):
                _end_attempt(jobs, fence, "ended")
            case InstanceLost(instance=instance):
                for worker, job in jobs.running_in(instance):
                    jobs.happened(worker, job, "lost")
            case JobParked(worker=worker, job=job):
                self._happened(jobs, worker, job, "parked")
            case RetryJob(worker=worker, job=job):
                self._happened(jobs, worker, job, "retried")
            case DiscardJob(worker=worker, job=job):
                self._happened(jobs, worker, job, "discarded")

    def _happened(self, jobs: Jobs, worker: str, job: str, event: Event, *, instance: str | None = None) -> None:
        worker = self._workers.get(worker, worker)
        if jobs.is_open(worker, job):
            jobs.happened(worker, job, event, instance=instance)

    def _application(self, message: Message[Any], jobs: Jobs) -> None:
        kind = type(message.body)
        for worker, key_of in self._enders.get(kind, ()):
            for key in _each(key_of(message)):
                if jobs.is_open(worker, key):
                    jobs.happened(worker, key, "answered")
        for worker, job_of in self._openers.get(kind, ()):
            for job in _each(job_of(message)):
                assert isinstance(job, Job)
                if not jobs.is_open(worker, job.key):
                    jobs.happened(worker, job.key, "opened")


def _end_attempt(jobs: Jobs, fence: int, event: Event) -> None:
    if (found := jobs.by_fence(fence)) is not None:
        jobs.happened(*found, event)


def _each(result: Any) -> Sequence[Any]:
    """What a method with @opens or @ends returned: one, several, or none."""
    if result is None:
        return ()
    return result if isinstance(result, list | tuple) else (result,)

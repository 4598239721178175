"""The protocol of jobs and reactions: which messages the state takes, and what they do to the to-do lists.

`admit` is strict: it judges what this process is about to record. `record` is lenient: it takes the log as it is, so
that code that opens other jobs than the code of old did can still read it; what concerns a job that is not there
concerns nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from journeyman.errors import AlreadyHandled, DefinitionError, Fenced, Rejected
from journeyman.feature import Command
from journeyman.message import Message, ReactionStep
from journeyman.tables import AppState
from journeyman.todo.jobs import (
    HOLDING,
    LOST_MAX,
    STARTABLE,
    UNDER_WAY,
    DiscardJob,
    InstanceLost,
    JobEnded,
    JobFailed,
    JobParked,
    JobReleased,
    JobRow,
    JobsState,
    JobStarted,
    LostRow,
    PauseWorker,
    ReactionAdded,
    ReactionRow,
    ResumeWorker,
    RetryJob,
    Standing,
    WorkerRow,
    jobs,
)
from journeyman.todo.worker import Job, TodoWorker, check_worker

T = TypeVar("T")

OUTCOME_UNKNOWN: Final = "outcome unknown: the process ended during the attempt"


class JobLedger:
    """Keeps the to-do lists of all workers of an application.

    Raises:
        DefinitionError: two workers share a name, or one can't work.
    """

    def __init__(self, workers: Iterable[TodoWorker]) -> None:
        self._worker_names: dict[str, str] = {}
        self._reaction_names: dict[tuple[str, str], str] = {}
        #: How many attempts each worker may have under way, in all processes together.
        self._totals: dict[str, int | None] = {}
        self._openers: dict[type[Command], list[tuple[str, Callable[[Message[Any]], Any]]]] = {}
        self._enders: dict[type[Command], list[tuple[str, Callable[[Message[Any]], Any]]]] = {}
        for worker in workers:
            self._add(worker)
        self._judges: dict[type[Any], Callable[[JobsState, Any], object]] = {
            JobStarted: self._judge_start,
            JobFailed: _judge_fence,
            JobReleased: _judge_fence,
            JobEnded: _judge_fence,
            JobParked: self._judge_park,
            InstanceLost: _judge_loss,
            RetryJob: self._judge_retry,
            DiscardJob: self._judge_job,
            PauseWorker: self._judge_pause,
            ResumeWorker: self._judge_resume,
            ReactionAdded: self._judge_reaction,
        }
        self._effects: dict[type[Any], Callable[[JobsState, Any, Message[Any]], None]] = {
            JobStarted: self._start,
            JobFailed: self._fail,
            JobReleased: self._release,
            JobEnded: self._end,
            JobParked: self._park,
            InstanceLost: self._lose_instance,
            RetryJob: self._retry,
            DiscardJob: self._discard,
            PauseWorker: self._pause,
            ResumeWorker: self._resume,
            ReactionAdded: self._add_reaction,
        }

    def _add(self, worker: TodoWorker) -> None:
        check_worker(worker)
        for name in (worker.name, *worker.former_names):
            if name in self._worker_names:
                raise DefinitionError(f"Two to-do workers are named {name}: a name belongs to one worker for ever.")
            self._worker_names[name] = worker.name
        self._totals[worker.name] = worker.concurrency_total
        for reaction in worker.reactions:
            for name in (reaction.name, *reaction.former_names):
                self._reaction_names[worker.name, name] = reaction.name
        for marks, methods in ((worker.openers, self._openers), (worker.enders, self._enders)):
            for method, commands in marks:
                for command in commands:
                    methods.setdefault(command, []).append((worker.name, getattr(worker, method)))

    def concerns(self, kind: type[Command]) -> bool:
        """Whether a command may change a list, or is judged here; most of an application's never are."""
        return kind in self._judges or kind in self._effects or kind in self._enders or kind in self._openers

    # Judging what is to be recorded.

    def admit(self, state: AppState, message: Message[Any]) -> None:
        """Refuse an answer without its fence, a reaction's step that is not the next, and facts that can't be.

        Raises:
            Fenced, AlreadyHandled, Rejected
        """
        found = jobs_state(state)
        record = message.record
        if record.fence is not None and found.jobs.by("fence", record.fence) is None:
            raise Fenced(f"The attempt {record.fence} is over: its job was answered, ended, or taken over.")
        step = message.meta.reaction
        if step is not None:
            self._judge_step(found, step)
        judge = self._judges.get(type(message.body))
        if judge is not None:
            judge(found, message.body)

    def _judge_step(self, state: JobsState, step: ReactionStep) -> None:
        row = self._reaction_row(state, step.worker, step.reaction)
        if row is None or step.number != row.number + 1:
            have = "none" if row is None else str(row.number)
            raise AlreadyHandled(
                f"Step {step.number} of reaction {step.worker} {step.reaction} is not the next; recorded: {have}."
            )

    def _judge_start(self, state: JobsState, body: JobStarted) -> None:
        if body.instance in state.lost:
            raise Rejected(f"This process was declared gone: its instance {body.instance} starts nothing any more.")
        row = self._judge_job(state, body)
        if row.standing not in STARTABLE:
            raise Rejected(f"Job {row.job} of {row.worker} is {row.standing}; only waiting jobs are started.")
        if (row.opened_at, row.attempts + 1) != (body.opened_at, body.attempt):
            raise Rejected(f"Job {row.job} of {row.worker} was opened again, or given new attempts; look again.")
        if self._worker_row(state, row.worker).paused:
            raise Rejected(f"{row.worker} is paused.")
        if is_kept_back(state, row):
            raise Rejected(f"Another job about {row.subject} is under way.")
        if row.suspect and runs_a_suspect(state, body.instance):
            raise Rejected(f"Job {row.job} of {row.worker} may end its process, which runs another such job.")
        total = self._totals[row.worker]
        if total is not None and state.jobs.count("due", row.worker, "running") >= total:
            raise Rejected(f"{row.worker} has {total} attempts under way, as many as it may have.")

    def _judge_park(self, state: JobsState, body: JobParked) -> None:
        row = self._judge_job(state, body)
        if row.standing in ("running", "parked"):
            raise Rejected(f"Job {row.job} of {row.worker} is {row.standing}.")

    def _judge_retry(self, state: JobsState, body: RetryJob) -> None:
        row = self._judge_job(state, body)
        if row.standing == "running":
            raise Rejected(f"Job {row.job} of {row.worker} is being tried right now.")

    def _judge_job(self, state: JobsState, body: Any) -> JobRow:
        row = state.jobs.get((self._current(body.worker), body.job))
        if row is None:
            raise Rejected(f"{body.worker} has no open job {body.job}.")
        return row

    def _judge_pause(self, state: JobsState, body: PauseWorker) -> None:
        self._judge_worker(body.worker)
        if self._worker_row(state, body.worker).paused:
            raise Rejected(f"{body.worker} is paused already.")

    def _judge_resume(self, state: JobsState, body: ResumeWorker) -> None:
        # Resuming a worker that is not paused is allowed: it also mends a lane that a wrong key has stopped.
        self._judge_worker(body.worker)

    def _judge_worker(self, name: str) -> None:
        if name not in self._worker_names:
            raise Rejected(
                f"There is no to-do worker {name}. Known: {', '.join(sorted(self._worker_names)) or 'none'}."
            )

    def _judge_reaction(self, state: JobsState, body: ReactionAdded) -> None:
        if self._reaction_row(state, body.worker, body.reaction) is not None:
            raise Rejected(f"The reaction {body.worker} {body.reaction} is there already.")

    # Keeping account of what is recorded.

    def record(self, state: AppState, message: Message[Any]) -> None:
        """Move reactions on; then end jobs, then open jobs, as the message says."""
        found = jobs_state(state)
        body = message.body
        kind = type(body)
        step = message.meta.reaction
        if step is not None:
            self._take_step(found, step)
        if message.record.fence is not None:
            self._answer_fence(found, message.record.fence)
        effect = self._effects.get(kind)
        if effect is not None:
            effect(found, body, message)
        for worker, key_of in self._enders.get(kind, ()):
            for key in _all_of(str, key_of, message):
                self._answer_job(found, worker, key)
        for worker, job_of in self._openers.get(kind, ()):
            for job in _all_of(Job, job_of, message):
                self._open(found, worker, job, message)

    def _open(self, state: JobsState, worker: str, job: Job, message: Message[Any]) -> None:
        if (worker, job.key) in state.jobs:
            return
        standing: Standing = "waiting"
        if job.due_in_s > 0:
            standing = "delayed"
        elif job.subject is not None and self._held(state, worker, job.subject):
            standing = "behind"
        row = JobRow(
            worker=worker,
            job=job.key,
            subject=job.subject,
            opened_at=message.position,
            opened_at_us=message.recorded_at_us,
            standing=standing,
            due_at_us=message.recorded_at_us + _microseconds(job.due_in_s),
        )
        state.jobs.put(row)
        self._count(state, worker, "opened")

    def _start(self, state: JobsState, body: JobStarted, message: Message[Any]) -> None:
        row = state.jobs.get((self._current(body.worker), body.job))
        if row is None:
            return
        running = msgspec.structs.replace(
            row,
            standing="running",
            attempts=row.attempts + 1,
            fence=message.position,
            instance=body.instance,
            park_after_crash=body.park_after_crash,
        )
        state.jobs.put(running)
        self._count(state, row.worker, "attempts")

    def _fail(self, state: JobsState, body: JobFailed, message: Message[Any]) -> None:
        row = state.jobs.by("fence", body.fence)
        if row is None:
            return
        self._count(state, row.worker, "failures")
        if body.retry_after_s is None:
            self._set_down(state, row, "parked", error=body.error, suspect=False)
        else:
            due_at_us = message.recorded_at_us + _microseconds(body.retry_after_s)
            self._set_down(state, row, "retrying", due_at_us=due_at_us, error=body.error, suspect=False)

    def _release(self, state: JobsState, body: JobReleased, message: Message[Any]) -> None:
        row = state.jobs.by("fence", body.fence)
        if row is not None:
            due_at_us = message.recorded_at_us + _microseconds(body.retry_after_s)
            self._set_down(state, row, "retrying", due_at_us=due_at_us, attempts=row.attempts - 1, error=body.reason)

    def _lose_instance(self, state: JobsState, body: InstanceLost, message: Message[Any]) -> None:
        state.lost.put(LostRow(body.instance, message.position))
        if len(state.lost) > LOST_MAX:
            for oldest in state.lost.find("position", limit=1):
                state.lost.delete(oldest.instance)
        for row in running_of(state, body.instance):
            if row.park_after_crash:
                self._set_down(state, row, "parked", error=OUTCOME_UNKNOWN)
            elif body.left:
                self._set_down(state, row, "retrying", attempts=row.attempts - 1, error="its process stopped")
            else:
                # A suspect runs alone among suspects, so this death is its own; others are not charged.
                attempts = row.attempts if row.suspect else row.attempts - 1
                self._set_down(state, row, "retrying", attempts=attempts, suspect=True, error="its process died")

    def _set_down(self, state: JobsState, row: JobRow, standing: Standing, **changes: Any) -> None:
        """The running attempt is over, and the job is not."""
        state.jobs.put(msgspec.structs.replace(row, standing=standing, fence=None, instance=None, **changes))
        self._advance(state, row)

    def _end(self, state: JobsState, body: JobEnded, message: Message[Any]) -> None:
        self._close(state, state.jobs.by("fence", body.fence), "ended")

    def _answer_fence(self, state: JobsState, fence: int) -> None:
        self._close(state, state.jobs.by("fence", fence), "answered")

    def _answer_job(self, state: JobsState, worker: str, key: str) -> None:
        self._close(state, state.jobs.get((worker, key)), "answered")

    def _discard(self, state: JobsState, body: DiscardJob, message: Message[Any]) -> None:
        self._close(state, state.jobs.get((self._current(body.worker), body.job)), "discarded")

    def _close(self, state: JobsState, row: JobRow | None, counter: str) -> None:
        if row is not None:
            state.jobs.delete((row.worker, row.job))
            self._count(state, row.worker, counter)
            self._advance(state, row)

    def _park(self, state: JobsState, body: JobParked, message: Message[Any]) -> None:
        row = state.jobs.get((self._current(body.worker), body.job))
        if row is not None:
            self._set_down(state, row, "parked", error=body.reason)

    def _retry(self, state: JobsState, body: RetryJob, message: Message[Any]) -> None:
        row = state.jobs.get((self._current(body.worker), body.job))
        if row is None or row.standing == "running":
            return
        standing: Standing = row.standing
        if row.standing in ("parked", "delayed"):
            standing = "behind" if row.subject is not None and self._held(state, row.worker, row.subject) else "waiting"
        fresh = {"due_at_us": message.recorded_at_us, "attempts": 0, "suspect": False}
        state.jobs.put(msgspec.structs.replace(row, standing=standing, **fresh))

    def _pause(self, state: JobsState, body: PauseWorker, message: Message[Any]) -> None:
        row = self._worker_row(state, self._current(body.worker))
        state.workers.put(msgspec.structs.replace(row, paused=True))

    def _resume(self, state: JobsState, body: ResumeWorker, message: Message[Any]) -> None:
        row = self._worker_row(state, self._current(body.worker))
        state.workers.put(msgspec.structs.replace(row, paused=False, resumed_at=message.position))

    def _add_reaction(self, state: JobsState, body: ReactionAdded, message: Message[Any]) -> None:
        worker, reaction = self._reaction_key(body.worker, body.reaction)
        if (worker, reaction) not in state.reactions:
            state.reactions.put(ReactionRow(worker=worker, reaction=reaction, since=body.since))

    def _take_step(self, state: JobsState, step: ReactionStep) -> None:
        row = self._reaction_row(state, step.worker, step.reaction)
        if row is not None:
            moved = {"number": step.number, "position": step.position, "index": step.index}
            state.reactions.put(msgspec.structs.replace(row, **moved))

    # Looking up.

    def _held(self, state: JobsState, worker: str, subject: str) -> bool:
        return _last_standing(state, worker, subject) in HOLDING

    def _advance(self, state: JobsState, row: JobRow) -> None:
        """Let the next job of the subject come to the front, when nothing holds it back any more."""
        if row.subject is None:
            return
        last = _last_standing(state, row.worker, row.subject)
        if last is None or last in HOLDING:
            return
        for behind in state.jobs.find("subject", row.worker, row.subject, "behind", limit=1):
            state.jobs.put(msgspec.structs.replace(behind, standing="waiting"))

    def _count(self, state: JobsState, worker: str, counter: str) -> None:
        row = self._worker_row(state, worker)
        state.workers.put(msgspec.structs.replace(row, **{counter: getattr(row, counter) + 1}))

    def _worker_row(self, state: JobsState, worker: str) -> WorkerRow:
        return state.workers.get(self._current(worker)) or WorkerRow(worker=self._current(worker))

    def _reaction_row(self, state: JobsState, worker: str, reaction: str) -> ReactionRow | None:
        return state.reactions.get(self._reaction_key(worker, reaction))

    def _reaction_key(self, worker: str, reaction: str) -> tuple[str, str]:
        worker = self._current(worker)
        return worker, self._reaction_names.get((worker, reaction), reaction)

    def _current(self, worker: str) -> str:
        """A worker's name of today, for a name of today or of old."""
        return self._worker_names.get(worker, worker)


def jobs_state(state: AppState) -> JobsState:
    """The to-do lists of the whole application."""
    found = state.features[jobs.name]
    assert isinstance(found, JobsState)
    return found


def _judge_fence(state: JobsState, body: Any) -> None:
    if state.jobs.by("fence", body.fence) is None:
        raise Fenced(f"The attempt {body.fence} is over: its job was answered, ended, or taken over.")


def _judge_loss(state: JobsState, body: InstanceLost) -> None:
    if body.instance in state.lost:
        raise Rejected(f"The loss of {body.instance} is recorded already.")
    if not running_of(state, body.instance):
        # Whoever took it for lost had not read yet that it has ended its attempts.
        raise Rejected(f"{body.instance} has no attempt under way: nothing is to be taken over.")


def running_of(state: JobsState, instance: str) -> list[JobRow]:
    """The attempts under way in one process. There are few in all, so no index by process is kept for every job."""
    workers = [row.worker for row in state.workers]
    return [row for worker in workers for row in state.jobs.scan("due", worker, "running") if row.instance == instance]


def runs_a_suspect(state: JobsState, instance: str) -> bool:
    """Whether one of the attempts under way in a process is at a job that may have ended a process before."""
    return any(row.suspect for row in running_of(state, instance))


def instances_at_work(state: JobsState) -> set[str]:
    """The processes that have attempts under way."""
    running = (row for worker in state.workers for row in state.jobs.scan("due", worker.worker, "running"))
    return {row.instance for row in running if row.instance is not None}


def _last_standing(state: JobsState, worker: str, subject: str) -> Standing | None:
    """Of the standings of the subject's jobs the last in the alphabet: if any job holds the others back, such a one.

    One look into the index instead of one for each standing: a fifth of what a message of the protocol costs.
    """
    for row in state.jobs.scan("subject", worker, subject, reverse=True, limit=1):
        return row.standing
    return None


def is_kept_back(state: JobsState, row: JobRow) -> bool:
    """Whether another job of its subject is under way, so that this one can't be started now."""
    if row.subject is None:
        return False
    under_way = sum(state.jobs.count("subject", row.worker, row.subject, standing) for standing in UNDER_WAY)
    return under_way > (row.standing in UNDER_WAY)


def _all_of(kind: type[T], method: Callable[[Message[Any]], Any], message: Message[Any]) -> Sequence[T]:
    """What a method with @opens or @ends returned: one, several, or none.

    Raises:
        TypeError: it returned something else. The message it was asked about is refused, or poisons the replay.
    """
    result = method(message)
    if result is None:
        return ()
    found = result if isinstance(result, list | tuple) else (result,)
    for one in found:
        if not isinstance(one, kind):
            raise TypeError(
                f"{method.__qualname__} returned {result!r}; it returns a {kind.__name__}, a list of them, or None."
            )
    return found


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)

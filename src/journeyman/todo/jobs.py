"""The tables of the to-do lists, and the messages that change them. Their effects are in `ledger.py`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from journeyman.feature import Command, InternalFeature
from journeyman.tables import State, Table

#: Where a job stands. `waiting`: for its first attempt. `retrying`: for its next one. `behind`: another job of its
#: subject goes first. `delayed`: opened to be due later. `running`: an attempt is recorded. `parked`: a person decides.
Standing = Literal["waiting", "retrying", "behind", "delayed", "running", "parked"]

#: Jobs that keep others of their subject back, so that a subject's jobs keep their order over retries. They are the
#: last in the order of the alphabet, so that the last job of a subject tells whether there is one.
HOLDING: Final[tuple[Standing, ...]] = ("running", "waiting", "retrying")

#: Of these there is at most one for each subject: no other job of the subject is started meanwhile.
UNDER_WAY: Final[tuple[Standing, ...]] = ("running", "retrying")

#: Jobs that may be started once they are due.
STARTABLE: Final[tuple[Standing, ...]] = ("waiting", "retrying", "delayed")

#: How many instances that were lost are remembered: one that lives has read of its loss long before so many others.
LOST_MAX: Final = 1000

Text = Annotated[str, Meta(max_length=2000)]


class JobRow(Struct, frozen=True, kw_only=True):
    """One open job. It is gone from the table when it has its answer.

    `opened_at` is the position of the message that opened it, which is its input. `due_at_us` says when it may be
    tried, in microseconds since 1970 UTC; clocks decide only when to try. `attempts` counts the recorded attempts
    that are charged, the running one included. `fence` is the position of the running attempt's job-started message.
    A suspect was running when its process died.
    """

    worker: str
    job: str
    subject: str | None
    opened_at: int
    opened_at_us: int
    standing: Standing
    due_at_us: int
    attempts: int = 0
    fence: int | None = None
    instance: str | None = None
    suspect: bool = False
    park_after_crash: bool = False
    error: str | None = None


class WorkerRow(Struct, frozen=True, kw_only=True):
    """What one to-do worker has done since the log began.

    `resumed_at` is the position at which a person last resumed it, 0 when nobody has: each process that runs it sees
    there that its lane is to be opened. `answered` and the like count jobs, `attempts` and `failures` attempts.
    """

    worker: str
    paused: bool = False
    resumed_at: int = 0
    opened: int = 0
    answered: int = 0
    ended: int = 0
    discarded: int = 0
    attempts: int = 0
    failures: int = 0


class ReactionRow(Struct, frozen=True, kw_only=True):
    """How far a reaction has come: its number of recorded steps, and the last one's message and index."""

    worker: str
    reaction: str
    since: int
    number: int = 0
    position: int = 0
    index: int = -1


class LostRow(Struct, frozen=True):
    """A process that was declared gone, at `position`. It may live, and has to learn it."""

    instance: str
    position: int


class JobsState(State):
    """All to-do lists of the application."""

    jobs: Table[tuple[str, str], JobRow] = Table(
        JobRow,
        key=("worker", "job"),
        index={
            "due": ("worker", "standing", "due_at_us", "opened_at"),
            "subject": ("worker", "subject", "standing", "opened_at"),
        },
        unique={"fence": ("fence",)},
        sparse=["subject"],
    )
    workers: Table[str, WorkerRow] = Table(WorkerRow, key="worker")
    reactions: Table[tuple[str, str], ReactionRow] = Table(ReactionRow, key=("worker", "reaction"))
    #: The last LOST_MAX of them.
    lost: Table[str, LostRow] = Table(LostRow, key="instance", index={"position": ("position",)})


jobs = InternalFeature("jobs", state=JobsState)


@jobs.command("job-started", subject="job")
class JobStarted(Command):
    """An attempt begins. The message's position is its fence.

    `opened_at` and `attempt` say which job, and which attempt at it, the process found: it is refused when they are
    others by then, because the job was ended and opened again, or given all its attempts again.
    """

    worker: str
    job: str
    opened_at: int
    attempt: int
    instance: str
    park_after_crash: bool = False


@jobs.command("job-failed")
class JobFailed(Command):
    """The attempt failed, by the job's own fault. It is tried again after `retry_after_s`; parked when that is None."""

    fence: int
    error: Text
    retry_after_s: float | None


@jobs.command("job-released")
class JobReleased(Command):
    """The attempt ended without a result, and not by the job's fault: it is not charged."""

    fence: int
    reason: Text
    retry_after_s: float = 0.0


@jobs.command("job-ended")
class JobEnded(Command):
    """The job ends without an answer of the feature's own: `perform` had none, or the state refused it."""

    fence: int
    reason: Text


@jobs.command("job-parked", subject="job")
class JobParked(Command):
    """The job has no attempts left: a person decides."""

    worker: str
    job: str
    reason: Text


@jobs.command("instance-lost", subject="instance", version=2)
class InstanceLost(Command):
    """A process is gone: its attempts are freed and fenced. Its jobs are suspects, unless it `left` by itself."""

    instance: str
    left: bool = False


@jobs.upcast("instance-lost", to=2)
def _with_left(body: dict[str, Any]) -> dict[str, Any]:
    """Before, nobody said that it left."""
    return {**body, "left": False}


@jobs.command("retry-job", subject="job")
class RetryJob(Command):
    """A person lets a parked or waiting job be tried at once, with all its attempts."""

    worker: str
    job: str


@jobs.command("discard-job", subject="job")
class DiscardJob(Command):
    """A person ends a job without an answer."""

    worker: str
    job: str
    reason: Text


@jobs.command("pause-worker", subject="worker")
class PauseWorker(Command):
    """No new attempts of this worker. Running ones answer, reactions go on."""

    worker: str


@jobs.command("resume-worker", subject="worker")
class ResumeWorker(Command):
    """The worker goes on."""

    worker: str


@jobs.command("reaction-added")
class ReactionAdded(Command):
    """A reaction exists from now on. It handles messages behind position `since`."""

    worker: str
    reaction: str
    since: int


@jobs.command("reaction-refused")
class ReactionRefused(Command):
    """The state refused a command of a reaction, so that step led to nothing. The step is in this message's meta."""

    worker: str
    reaction: str
    position: int
    reason: Text


#: What people may dispatch; everything else here is recorded by the framework alone.
OPERATOR_COMMANDS: Final[tuple[type[Command], ...]] = (RetryJob, DiscardJob, PauseWorker, ResumeWorker)

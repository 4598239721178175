"""One decision about many jobs: recorded for each, in bounded batches, with an account of what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal

import msgspec

from journeyman.app import App
from journeyman.doors.console.wording import number
from journeyman.doors.web.problems import FieldError, Kind, Refused, refusal_of
from journeyman.errors import JourneymanError, OutcomeUnknown, Rejected
from journeyman.feature import Command
from journeyman.tables import AppState
from journeyman.todo.jobs import DiscardJob, JobRow, RetryJob, Standing
from journeyman.todo.ledger import jobs_state

#: How many jobs one request decides about at most: who wants more asks again, and sees what is left.
JOBS_MAX: Final = 1000

#: How many decisions are on their way at a time: they share appends, and leave room for other commands.
TOGETHER: Final = 100

#: How many different reasons of refusals are told.
REASONS_MAX: Final = 5

Decision = Literal["retry", "discard"]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a decision about many jobs. `refused` has how often for each reason; `left` were not asked for.

    `trouble` is why the application could not go on: `undone` were asked for and not recorded then, `unknown` perhaps.
    """

    decision: Decision
    done: int
    refused: tuple[tuple[str, int], ...] = ()
    left: int = 0
    position: int = 0
    undone: int = 0
    unknown: int = 0
    trouble: JourneymanError | None = None

    @property
    def refused_count(self) -> int:
        """How many were refused."""
        return sum(count for _, count in self.refused)


def command_for(decision: Decision, worker: str, job: str, reason: str) -> Command:
    """The recorded command that the decision is for one job."""
    if decision == "retry":
        return RetryJob(worker=worker, job=job)
    return DiscardJob(worker=worker, job=job, reason=reason)


async def decide_all(
    app: App, decision: Decision, worker: str, standing: Standing, *, reason: str, actor: str
) -> Account:
    """Decide about the first JOBS_MAX jobs that stand so, oldest first."""
    rows, count = await app.state(lambda state: _standing(state, worker, standing))
    account = await decide(app, decision, worker, [row.job for row in rows], reason=reason, actor=actor)
    if account.trouble is not None:
        return msgspec.structs.replace(account, left=count - len(rows))
    left = await app.state(lambda state: jobs_state(state).jobs.count("due", worker, standing))
    return msgspec.structs.replace(account, left=left)


def _standing(state: AppState, worker: str, standing: Standing) -> tuple[list[JobRow], int]:
    """The first JOBS_MAX jobs that stand so, and how many there are in all."""
    jobs = jobs_state(state).jobs
    return jobs.find("due", worker, standing, limit=JOBS_MAX), jobs.count("due", worker, standing)


async def decide(app: App, decision: Decision, worker: str, jobs: Sequence[str], *, reason: str, actor: str) -> Account:
    """Decide about these jobs, at most JOBS_MAX. It ends with the batch in which the application can't record."""
    asked = jobs[:JOBS_MAX]
    commands = (command_for(decision, worker, job, reason) for job in asked)
    reasons: Counter[str] = Counter()
    positions: list[int] = []
    troubles: list[JourneymanError] = []
    while not troubles and (batch := list(islice(commands, TOGETHER))):
        for outcome in await _execute(app, batch, actor):
            if isinstance(outcome, Rejected):
                reasons[outcome.reason] += 1
            elif isinstance(outcome, JourneymanError):
                troubles.append(outcome)
            else:
                positions.append(outcome)
    unknown = sum(isinstance(trouble, OutcomeUnknown) for trouble in troubles)
    return Account(
        decision=decision,
        done=len(positions),
        refused=(*reasons.most_common(REASONS_MAX), *_others(reasons)),
        left=len(jobs) - len(asked),
        position=max(positions, default=0),
        undone=len(asked) - len(positions) - reasons.total() - unknown,
        unknown=unknown,
        trouble=troubles[0] if troubles else None,
    )


def broken_off(account: Account, trouble: JourneymanError) -> Refused:
    """What a person is told of a decision that could not be recorded for all: by an answer that needs no store."""
    cause = refusal_of(trouble)
    counts = {
        "tried again" if account.decision == "retry" else "discarded": account.done,
        "refused": account.refused_count,
        "perhaps recorded, as the store did not say": account.unknown,
        "not decided about": account.undone + account.left,
    }
    told = "; ".join(f"{number(count)} {what}" for what, count in counts.items() if count)
    title = "It was done in part" if account.done or account.unknown else "It was not done"
    return Refused(
        Kind("broken-off", cause.problem.status, title),
        f"Of the jobs, {told}. What ended it: {cause.problem.detail} Once that is over, go back, load the page again, "
        "and decide about those that it shows then.",
        errors=tuple(FieldError("", f"{number(count)} refused: {reason}") for reason, count in account.refused),
        headers=cause.headers,
    )


async def _execute(app: App, commands: Iterable[Command], actor: str) -> list[int | JourneymanError]:
    async def execute(command: Command) -> int | JourneymanError:
        try:
            return (await app.execute(command, actor=actor)).position
        except JourneymanError as error:
            return error

    return await asyncio.gather(*map(execute, commands))


def _others(reasons: Counter[str]) -> list[tuple[str, int]]:
    count = sum(count for _, count in reasons.most_common()[REASONS_MAX:])
    return [("other reasons", count)] if count else []

"""One decision about many jobs: recorded for each, in bounded batches, with an account of what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, Literal

import msgspec

from journeyman.app import App
from journeyman.errors import JourneymanError, Rejected
from journeyman.feature import Command
from journeyman.todo.jobs import DiscardJob, RetryJob, Standing
from journeyman.todo.ledger import jobs_state

#: How many jobs one request decides about at most: who wants more asks again, and sees what is left.
JOBS_MAX: Final = 1000

#: How many decisions are on their way at a time: they share appends, and leave room for other commands.
TOGETHER: Final = 100

#: How many different reasons of refusals are told.
REASONS_MAX: Final = 5

Decision = Literal["retry", "discard"]


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a decision about many jobs. `refused` has how often for each reason; `left` were not asked for."""

    decision: Decision
    done: int
    refused: tuple[tuple[str, int], ...] = ()
    left: int = 0
    position: int = 0

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
    rows = await app.state(lambda state: jobs_state(state).jobs.find("due", worker, standing, limit=JOBS_MAX))
    account = await decide(app, decision, worker, [row.job for row in rows], reason=reason, actor=actor)
    left = await app.state(lambda state: jobs_state(state).jobs.count("due", worker, standing))
    return msgspec.structs.replace(account, left=left)


async def decide(app: App, decision: Decision, worker: str, jobs: Sequence[str], *, reason: str, actor: str) -> Account:
    """Decide about these jobs, at most JOBS_MAX.

    Raises:
        JourneymanError: the application can't record now; what was recorded until then stays.
    """
    commands = (command_for(decision, worker, job, reason) for job in jobs[:JOBS_MAX])
    reasons: Counter[str] = Counter()
    done = position = 0
    while batch := list(islice(commands, TOGETHER)):
        for outcome in await _execute(app, batch, actor):
            if isinstance(outcome, Rejected):
                reasons[outcome.reason] += 1
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                done, position = done + 1, max(position, outcome)
    refused = (*reasons.most_common(REASONS_MAX), *_others(reasons))
    return Account(decision=decision, done=done, refused=refused, left=max(0, len(jobs) - JOBS_MAX), position=position)


async def _execute(app: App, commands: Iterable[Command], actor: str) -> list[int | BaseException]:
    async def execute(command: Command) -> int | BaseException:
        try:
            return (await app.execute(command, actor=actor)).position
        except JourneymanError as error:
            return error

    return await asyncio.gather(*map(execute, commands))


def _others(reasons: Counter[str]) -> list[tuple[str, int]]:
    count = sum(count for _, count in reasons.most_common()[REASONS_MAX:])
    return [("other reasons", count)] if count else []

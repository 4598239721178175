"""A process that runs a desk's workers until it is killed: started by test_recovery, never by hand.

    python -m tests.todo.crash_process URL MODE

It writes `performing KEY` as each `perform` begins, and ends with code 0 once no job is open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from journeyman import App, Attempt, Command, Message, Retry, reacts
from journeyman.tables import AppState
from journeyman.todo.ledger import jobs_state
from tests.todo.desk import Answer, Ask, Desk, Note, desk, until


class CrashingDesk(Desk):
    """Asks for what notes say, and takes a moment over each job. The job `killer` kills its process."""

    concurrency = 8
    retry = Retry(attempts=3, first_s=0.001, factor=1, max_s=0.001)
    #: How long each attempt takes, in seconds.
    takes_s = 0.003

    @reacts(Note, name="ask", since=0)
    def ask(self, message: Message[Note]) -> list[Ask]:
        return [Ask(key=f"{message.body.text}.{number}", subject=message.body.text) for number in range(2)]

    async def perform(self, attempt: Attempt[Ask]) -> Command | None:
        sys.stdout.write(f"performing {attempt.id}\n")
        sys.stdout.flush()
        if attempt.id.startswith("killer"):
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(self.takes_s)
        return Answer(key=attempt.id, text=f"attempt {attempt.number}")


class CarefulDesk(CrashingDesk):
    """Parks what was cut off. It takes its time, so that whoever kills it by its words surely cuts something off."""

    after_crash = "park"
    takes_s = 1.0


async def main(url: str, mode: str) -> None:
    app = App(features=[desk], workers=[CarefulDesk() if mode == "park" else CrashingDesk()])
    async with app.running(url, drain_s=5.0):
        notes = len(await app.store.log.read(0, 10_000, name="desk/note"))
        await until(app, lambda state: is_done(state, notes))


def is_done(state: AppState, notes: int) -> bool:
    """Whether every note was reacted to, and no job is left but what waits for a person."""
    found = jobs_state(state)
    reaction = found.reactions.get((Desk.name, "ask"))
    reacted = reaction is not None and reaction.number == 2 * notes
    return reacted and len(found.jobs) == found.jobs.count("due", Desk.name, "parked")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

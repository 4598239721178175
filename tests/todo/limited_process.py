"""A process that runs a desk with limits until no job is open: started by test_limiter, never by hand.

python -m tests.todo.limited_process URL PER_MINUTE TOTAL
"""

from __future__ import annotations

import asyncio
import sys

from journeyman import App, Attempt, Command
from tests.todo.desk import Answer, Ask, desk, idle, make, until

#: How long the whole may take, in seconds.
PROCESS_S = 60.0


async def take_a_moment(attempt: Attempt[Ask]) -> Command:
    await asyncio.sleep(0.02)
    return Answer(key=attempt.id, text="")


async def main(url: str, per_minute: str, total: str) -> None:
    worker = make(take_a_moment, concurrency=8, requests_per_minute=int(per_minute), concurrency_total=int(total))
    app = App(features=[desk], workers=[worker])
    async with app.running(url, drain_s=5.0):
        await until(app, idle, timeout_s=PROCESS_S)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

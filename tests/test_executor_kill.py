"""A process is killed at any moment: every command that it acknowledged is in the log, once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE
from itertools import count
from pathlib import Path

from journeyman import App, Record, open_store
from tests.notes import Create, List, everything, notes

KILLS = 24
CALLERS = 4


async def main(url: str) -> None:
    """Execute commands until killed, and print the id of each message once it is acknowledged."""
    numbers = count()
    async with App(features=[notes]).running(url, workers=False) as app:

        async def call() -> None:
            while True:
                receipt = await app.execute(Create(note_id=f"{os.getpid()} {next(numbers)}"))
                os.write(1, f"{receipt.position} {receipt.message_id}\n".encode())

        await asyncio.gather(*(call() for _ in range(CALLERS)))


async def killed_after(url: str, lines: int) -> list[str]:
    """What a process acknowledged that was killed after it had acknowledged so many."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.test_executor_kill", url, cwd=Path(__file__).parent.parent, stdout=PIPE
    )
    assert process.stdout is not None
    told = [await process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    rest, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    return b"".join([*told, rest]).decode().splitlines()


async def test_every_acknowledged_command_survives_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/notes.db"
    acknowledged: list[str] = []
    async with asyncio.timeout(100):
        for number in range(KILLS):
            acknowledged += await killed_after(url, 1 + 7 * number)
            records = await recorded(url)
            assert set(acknowledged) <= {f"{record.position} {record.id}" for record in records}
    assert len(set(acknowledged)) == len(acknowledged)
    subjects = [record.subject for record in await recorded(url)]
    assert len(set(subjects)) == len(subjects), "none was recorded twice"
    async with App(features=[notes]).running(url) as app:
        names = await app.query(List())
        assert set(names) == set(subjects)


async def recorded(url: str) -> list[Record]:
    store = await open_store(url)
    try:
        return await everything(store)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

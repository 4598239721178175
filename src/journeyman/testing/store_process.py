"""A process that uses a store, for the contract suite: started by it, never by hand.

    python -m journeyman.testing.store_process OPENER URL ACTION ARGUMENTS…

It opens the store with the coroutine function OPENER (`module:function`), prints `ready`, does what ACTION says as
soon as it reads a line, prints one line of outcome, and ends when its input ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

from journeyman.errors import Conflict
from journeyman.store.base import Store
from journeyman.testing.records import make_records

#: After how many conflicts in a row a writer asks for the turn, as the executor does.
CONFLICTS_BEFORE_TURN = 3

#: How long to wait for the log to grow before looking at it again, in seconds.
WAIT_S = 1.0


async def write(store: Store, subject: str, count: str) -> str:
    """Append `count` records about `subject`, one a batch, against everybody else who does so; say how many."""
    for _ in range(int(count)):
        await _append_one(store, subject)
    return count


async def _append_one(store: Store, subject: str) -> None:
    conflicts = 0
    while True:
        async with store.log.turn() if conflicts >= CONFLICTS_BEFORE_TURN else nullcontext():
            after = await store.log.head()
            try:
                return await store.log.append(make_records(1, after=after, subject=subject), after=after)
            except Conflict:
                conflicts += 1


async def follow(store: Store, until: str) -> str:
    """Follow the log up to the position `until`; say `gap` at the first gap, or else a digest of all ids in order."""
    position, ids = 0, hashlib.sha256()
    while position < int(until):
        await store.log.wait(position, WAIT_S)
        for record in await store.log.read(position, 100):
            if record.position != position + 1:
                return f"gap: {record.position} came after {position}"
            position = record.position
            ids.update(record.id.encode())
    return ids.hexdigest()


async def claim(store: Store, role: str) -> str:
    """Claim the role, and say whether this process has it."""
    return str(await store.claim(role))


ACTIONS: dict[str, Callable[..., Awaitable[str]]] = {"write": write, "follow": follow, "claim": claim}


async def main(opener: str, url: str, action: str, *arguments: str) -> None:
    """Do one action, on one line of input."""
    module, _, function = opener.partition(":")
    store: Store = await getattr(importlib.import_module(module), function)(url)
    _say("ready")
    if await _line():
        _say(await ACTIONS[action](store, *arguments))
        await _line()
    await store.close()


async def _line() -> str:
    return await asyncio.to_thread(sys.stdin.readline)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""What led to a message, and what it led to: a chain of causes as a list with depths, ready to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from journeyman.doors.console.console import Console
from journeyman.doors.console.index.reader import Entry, Link, TooSlow
from journeyman.doors.console.index.threads import NotIndexed

#: How many messages of a chain are shown.
CHAIN_MAX: Final = 200

#: How deep a chain is indented; what is deeper stands below that.
DEPTH_MAX: Final = 12


class Step(msgspec.Struct, frozen=True):
    """A message of a chain, and how many causes it is away from the first one."""

    entry: Entry
    depth: int


async def chain_of(console: Console, correlation_id: str) -> list[Step]:
    """The chain that messages with this correlation make; empty without an index."""
    try:
        return in_depth(await console.index.ask(lambda index: index.chain(correlation_id, limit=CHAIN_MAX)))
    except (NotIndexed, TooSlow):
        return []


def in_depth(links: Sequence[Link]) -> list[Step]:
    """Each message right behind what caused it. One whose cause is not among them begins a chain of its own."""
    effects: dict[int | None, list[Link]] = {}
    shown = {link.entry.position for link in links}
    for link in links:
        effects.setdefault(link.cause if link.cause in shown else None, []).append(link)
    steps: list[Step] = []
    waiting = [(link, 0) for link in reversed(effects.get(None, []))]
    while waiting:
        link, depth = waiting.pop()
        steps.append(Step(link.entry, min(depth, DEPTH_MAX)))
        waiting += [(effect, depth + 1) for effect in reversed(effects.get(link.entry.position, []))]
    return steps

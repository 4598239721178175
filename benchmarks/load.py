"""The load that every contender is given, and how it is timed. Standard library only: every environment has it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count as count_from
from statistics import quantiles
from typing import Any, NamedTuple

#: What a contender tells: a number for each figure, and words for "durability".
Figures = dict[str, Any]

#: How many different posts one caller writes to, one after the other.
POSTS_PER_CALLER = 20

#: How many commands each caller sends before the clock starts: the same for every count, so that the durability
#: check can subtract them.
WARM_UP = 5

#: The pause of a caller who was told that the store is busy, before the next try, in seconds. It counts as latency.
BUSY_PAUSE_S = 0.02

#: The pause between two commands that each find the machine idle, in seconds.
PAUSE_S = (0.02, 0.05)

CONTENT = "Every accepted command is kept; every job gets one recorded answer."


class Writing(NamedTuple):
    """One command of the load: write this into that post, whose revision must be the one before.

    A tuple, because making it costs every contender time.
    """

    post_id: str
    title: str
    content: str
    revision: int


def writings(caller: int) -> Iterator[Writing]:
    """The commands of one caller, without end. No two callers write to the same post, so none is refused."""
    for number in count_from():
        turn, post = divmod(number, POSTS_PER_CALLER)
        yield Writing(f"caller-{caller:04d}-{post:02d}", f"Revision {turn + 1}", CONTENT, turn + 1)


def recorded_writings(messages: int, rows: int) -> Iterator[Writing]:
    """The commands of a log that is there already: so many, to so many posts in turn."""
    for number in range(messages):
        turn, post = divmod(number, rows)
        yield Writing(post_id(post), f"Revision {turn + 1}", CONTENT, turn + 1)


def post_id(number: int) -> str:
    return f"post-{number:08d}"


def command_figures(elapsed_s: float, latencies_s: Sequence[float]) -> Figures:
    return {"per_s": len(latencies_s) / elapsed_s, **latency_figures(latencies_s)}


def latency_figures(latencies_s: Sequence[float]) -> Figures:
    cuts = quantiles(latencies_s, n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


async def drive(
    execute: Callable[[Writing], Awaitable[object]],
    *,
    callers: int,
    count: int,
    first: int = 0,
    ready: Callable[[], Awaitable[object]] | None = None,
) -> Figures:
    """Let so many callers execute `count` commands together, each waiting for one before it sends the next.

    Args:
        first: the number of the first caller, where several processes have some each.
        ready: is awaited before the clock starts.
    """
    sources = [writings(caller) for caller in range(first, first + callers)]
    latencies_s: list[float] = []

    async def call(source: Iterator[Writing], times: int) -> None:
        for _ in range(times):
            writing = next(source)
            begun_s = time.perf_counter()
            await execute(writing)
            latencies_s.append(time.perf_counter() - begun_s)

    await asyncio.gather(*(call(source, WARM_UP) for source in sources))
    latencies_s.clear()
    if ready is not None:
        await ready()
    begun_s = time.perf_counter()
    await asyncio.gather(*(call(source, max(1, count // callers)) for source in sources))
    return command_figures(time.perf_counter() - begun_s, latencies_s)


def drive_in_place(execute: Callable[[Writing], object], *, count: int) -> Figures:
    """Like `drive` with one caller, for code that blocks."""
    source = writings(0)
    for _ in range(WARM_UP):
        execute(next(source))
    latencies_s: list[float] = []
    begun_s = time.perf_counter()
    for _ in range(count):
        writing = next(source)
        before_s = time.perf_counter()
        execute(writing)
        latencies_s.append(time.perf_counter() - before_s)
    return command_figures(time.perf_counter() - begun_s, latencies_s)


def resident_bytes() -> int:
    """The memory of this process that is in use, as the kernel counts it."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(works: Mapping[str, Callable[..., Figures]]) -> None:
    """Do the work that the command line names, with its options in JSON; print its figures as the last line."""
    work, options = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(works[work](**options)))

"""A process of the application under test: started by the laboratory, never by hand.

    python -m tests.crash.process '{"url": …, "role": "work", …}'

`work` runs the workers until SIGTERM. `put` puts questions and prints a line for each that was acknowledged; `write`
does so as fast as it can, and tells at its end. A point at which the process kills itself is a part of its options:
then its store, or its worker, is wrapped here.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from journeyman import App, Attempt, Busy, Command, Receipt, Record, Retry, StoreError
from journeyman.errors import Fenced, Outdated
from journeyman.store import Store, open_store
from journeyman.store.base import MessageLog
from journeyman.testing.faults import Append, Fault, FaultyStore, lose_reply, lose_request, work
from journeyman.timing import SYSTEM_TIMING, Timing
from tests.crash.app import EATS, EXITS, KILLS, Ask, Asker, Put, make_app
from tests.crash.newer import make_newer_app
from tests.crash.planted import (
    ACKNOWLEDGE_EARLY,
    GREEDY,
    IN_THE_APPLICATION,
    NO_KEY,
    REPEAT_ANEW,
    HastyLog,
    RepeatingLog,
    keep_the_turn,
)

#: Where a process kills itself: before or after an append that holds such a message, or in `perform`.
POINTS: Final = {
    "before job-started": ("before", "journeyman/job-started"),
    "after job-started": ("after", "journeyman/job-started"),
    "as perform begins": ("perform", "begins"),
    "as perform has its answer": ("perform", "ends"),
    "before the answer": ("before", "questions/answer"),
    "after the answer": ("after", "questions/answer"),
    "before job-failed": ("before", "journeyman/job-failed"),
    "after job-failed": ("after", "journeyman/job-failed"),
    "before give_up's answer": ("before", "questions/fail"),
    "before job-released": ("before", "journeyman/job-released"),
    "before a reaction's command": ("before", "questions/ask"),
    "after a reaction's command": ("after", "questions/ask"),
}

#: What a job exits with that ends its process, with no chance for anybody to clean up.
EXIT_BY_JOB: Final = 3

#: In which pieces, in bytes, the last of the memory is eaten.
SMALLEST_PIECE: Final = 2**10

#: What a process exits with that met newer code, as `journeyman work` does.
EXIT_OUTDATED: Final = 75


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do.

    `nth` counts the times that it comes to the point at which it kills itself. `lose` is the share of appends whose
    reply or request is lost. `think_s` passes between the service's reply and the answer. `clock` is a file that says
    by how many seconds its clock is off. `write_s` is how long it writes. `newer` has it run the later release.
    `memory_mb` is how much memory it may take beyond what it has when it begins, in MiB.
    """

    url: str
    role: str
    service_url: str = ""
    takeover_s: float = 1.0
    drain_s: float = 5.0
    point: str | None = None
    nth: int = 1
    clock: str | None = None
    lose: float = 0.0
    seed: int = 0
    attempts: int = 3
    think_s: float = 0.0
    write_s: float = 0.0
    newer: bool = False
    memory_mb: int | None = None
    planted: str | None = None


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that ran the workers tells at its end: how many outcomes it brought too late, and so on."""

    fenced: int = 0
    replies_lost: int = 0


class Written(msgspec.Struct, frozen=True):
    """What a writer tells at its end: the receipts as (key, position, message id), and its longest wait in seconds."""

    receipts: list[tuple[str, int, str]]
    longest_s: float


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Kills the process at the n-th time; several may come together."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def tick(self, times: int = 1) -> None:
        self._left -= times
        if self._left <= 0 < self._left + times:
            die()


class KillingLog:
    """A log that kills the process around an append that holds a message of that name."""

    def __init__(self, log: MessageLog, when: str, name: str, countdown: Countdown) -> None:
        self._log, self._when, self._name, self._countdown = log, when, name, countdown

    async def append(self, records: Sequence[Record], *, after: int) -> None:
        hits = sum(record.name == self._name for record in records)
        if self._when == "before":
            self._countdown.tick(hits)
        await self._log.append(records, after=after)
        if self._when == "after":
            self._countdown.tick(hits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Watched(Asker):
    """Kills the process in `perform`, where that is wanted; questions that kill do so always."""

    when: str | None = None
    countdown = Countdown(0)
    think_s = 0.0

    async def perform(self, attempt: Attempt[Ask]) -> Command:
        if self.when == "begins":
            self.countdown.tick()
        answer = await super().perform(attempt)
        if attempt.id.startswith(EATS):
            await eat_memory()
        await asyncio.sleep(self.think_s)
        if attempt.id.startswith(KILLS):
            die()
        if attempt.id.startswith(EXITS):
            os._exit(EXIT_BY_JOB)
        if self.when == "ends":
            self.countdown.tick()
        return answer


async def eat_memory() -> None:
    """Take all the memory that there is, in ever smaller pieces, and keep it while others run."""
    eaten: list[bytearray] = []
    size = 2**24
    while True:
        try:
            eaten.append(bytearray(size))
        except MemoryError:
            if size == SMALLEST_PIECE:
                raise
            size //= 2
        await asyncio.sleep(0)


def limit_memory(mib: int) -> None:
    """Let this process take so much more, and no more: then an allocation fails, as in a container without a killer."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


async def main(options: Options) -> None:
    store = await open_store(options.url)
    try:
        roles = {"put": put, "write": write, "work": run_workers}
        await roles[options.role](options, store)
    finally:
        await store.close()


async def run_workers(options: Options, store: Store) -> None:
    kind, detail = POINTS[options.point] if options.point is not None else ("", "")
    countdown = Countdown(options.nth)
    if kind == "perform":
        Watched.when, Watched.countdown = detail, countdown
    Watched.think_s = options.think_s
    Watched.retry = Retry(attempts=options.attempts, first_s=0.001, factor=1, max_s=0.001)
    faulty = FaultyStore(store)
    if kind in ("before", "after"):
        faulty.log = KillingLog(store.log, kind, detail, countdown)
    lost = lose_some(faulty, options)
    timing = timing_of(options)
    app = make_app(
        options.service_url, worker=Watched, takeover_s=options.takeover_s, timing=timing, snapshot_every=500
    )
    if options.planted == REPEAT_ANEW:
        faulty.log = RepeatingLog(faulty.log)
    elif options.planted is not None:
        IN_THE_APPLICATION[options.planted](app)
    fenced = count_fenced(app)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with app.running(faulty, drain_s=options.drain_s):
        if options.memory_mb is not None:
            limit_memory(options.memory_mb)
        say("ready")
        await stop.wait()
    say(msgspec.json.encode(Met(fenced=len(fenced), replies_lost=len(lost))).decode())


def count_fenced(app: App) -> list[Fenced]:
    """The outcomes that this process brought too late, as they are refused."""
    ledger, refused = app._ledger, list[Fenced]()
    admit = ledger.admit

    def counting(state: Any, message: Any) -> None:
        try:
            admit(state, message)
        except Fenced as error:
            refused.append(error)
            raise

    ledger.admit = counting  # type: ignore[method-assign]
    return refused


def lose_some(store: FaultyStore, options: Options) -> list[Fault]:
    """Lose the replies, or the requests, of some appends; the faults, as they happen."""
    chance, lost = random.Random(options.seed), list[Fault]()

    async def fault(append: Append) -> None:
        drawn = chance.random()
        kind = work if drawn >= options.lose else lose_reply if drawn < options.lose / 2 else lose_request
        if kind is not work:
            lost.append(kind)
        await kind(append)

    if options.lose:
        store.faulty_log.fail_others(fault)
    return lost


def timing_of(options: Options) -> Timing:
    """The clock of this process, which is off by what stands in a file."""
    if options.clock is None:
        return SYSTEM_TIMING
    clock = Path(options.clock)
    return Timing(now_us=lambda: time.time_ns() // 1000 + int(clock.read_text() or "0") * 1_000_000)


async def put(options: Options, store: Store) -> None:
    """Put each question that comes in, and tell that it is recorded once it is."""
    app = (make_newer_app if options.newer else make_app)("")
    if options.planted == ACKNOWLEDGE_EARLY:
        store.log = HastyLog(store.log)
    async with app.running(store, workers=False):
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            key, about = line.split()
            receipt = await put_one(app, Put(key=key, about=about), None if options.planted == NO_KEY else key)
            say(f"{key} {receipt.position} {receipt.message_id}")


async def put_one(app: App, command: Put, idempotency_key: str | None) -> Receipt:
    """As the documents tell a user to: with the same key again, until it is known to be recorded."""
    while True:
        try:
            return await app.execute(command, idempotency_key=idempotency_key)
        except (Busy, StoreError):
            await asyncio.sleep(0.01)


async def write(options: Options, store: Store) -> None:
    """Write for some seconds, once told to begin, one command after the other."""
    receipts: list[tuple[str, int, str]] = []
    longest_s = 0.0
    async with make_app("").running(store, workers=False) as app:
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        if options.planted == GREEDY:
            keep_the_turn()
        begun_s = before_s = time.monotonic()
        while before_s - begun_s < options.write_s:
            key = f"{os.getpid()}-{len(receipts)}"
            receipt = await put_one(app, Put(key=key, about=key), None)
            receipts.append((key, receipt.position, receipt.message_id))
            longest_s, before_s = max(longest_s, time.monotonic() - before_s), time.monotonic()
    say(msgspec.json.encode(Written(receipts, longest_s)).decode())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Options)))
    except Outdated:
        sys.exit(EXIT_OUTDATED)

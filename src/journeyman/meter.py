"""What a process counts as it works, for monitors. It begins at zero with the process, and is read at each scrape.

It costs nearly nothing: a batch is counted at once, and nothing is locked, since one event loop counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter
from time import perf_counter
from typing import Final

from journeyman.errors import (
    ApplyFailed,
    Busy,
    Invalid,
    JourneymanError,
    OutcomeUnknown,
    Rejected,
    TooLarge,
    UnknownName,
)
from journeyman.pending import Pending
from journeyman.receipts import Receipt

#: The upper bounds that durations are counted by, in seconds: commands and requests; and attempts, which call services.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0)

#: The upper bounds that the sizes of batches are counted by.
BATCH_SIZES: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

_submitted_s: Final = attrgetter("submitted_s")
_name: Final = attrgetter("kind.message_type.name")


class Distribution:
    """How values are distributed: how many are at most as large as each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        #: How many values are above the bound before, and not above this one; the last: above all bounds.
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_since(self, starts: Sequence[float], now: float) -> None:
        """Count how long ago each start is. They do not fall: so there is a look for each bound, not for each start."""
        longer = len(starts)
        for index, bound in enumerate(self.bounds):
            within, longer = longer, bisect_left(starts, now - bound, 0, longer)
            self.counts[index] += within - longer
            if not longer:
                break
        self.counts[-1] += longer
        self.sum += now * len(starts) - sum(starts)


class Meter:
    """The counts of one process."""

    def __init__(self) -> None:
        #: How many commands came out how, by name and outcome; and how long their callers waited.
        self.commands: Counter[tuple[str, str]] = Counter()
        self.command_s = Distribution(SECONDS)
        #: The batches that were made durable: how long that took, and how many messages were in them.
        self.append_s = Distribution(SECONDS)
        self.append_messages = Distribution(BATCH_SIZES)
        #: How long attempts took, by worker.
        self.attempt_s: dict[str, Distribution] = {}
        #: The requests that were answered, by method, route and status; how long that took, by method and route.
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.request_s: dict[tuple[str, str], Distribution] = {}

    def told(self, pendings: Sequence[Pending], *, recorded: int) -> None:
        """Their callers are told, each its own outcome; so many of them that it is recorded now."""
        now_s = perf_counter()
        if recorded == len(pendings) == 1:
            self.command_s.add(now_s - pendings[0].submitted_s)
            self.commands[_name(pendings[0]), "recorded"] += 1
            return
        self.command_s.add_since(list(map(_submitted_s, pendings)), now_s)
        if recorded == len(pendings):
            for name, count in Counter(map(_name, pendings)).items():
                self.commands[name, "recorded"] += count
        else:
            for pending in pendings:
                self.commands[_name(pending), _outcome(pending.outcome)] += 1

    def failed(self, pendings: Iterable[Pending], error: JourneymanError) -> None:
        """Their callers are told of the same error."""
        for pending in pendings:
            self.refused(_name(pending), error)

    def refused(self, name: str, error: JourneymanError) -> None:
        """A caller is told of an error."""
        self.commands[name, _outcome(error)] += 1

    def appended(self, messages: int, seconds: float) -> None:
        """A batch is durable."""
        self.append_s.add(seconds)
        self.append_messages.add(messages)

    def attempted(self, worker: str, seconds: float) -> None:
        """An attempt has ended, however."""
        self.attempt_s.setdefault(worker, Distribution(LONG_SECONDS)).add(seconds)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has its answer, or the beginning of one that goes on."""
        self.requests[method, route, status] += 1
        self.request_s.setdefault((method, route), Distribution(SECONDS)).add(seconds)


def _outcome(outcome: Receipt | JourneymanError | None) -> str:
    if isinstance(outcome, Receipt):
        return "repeated" if outcome.repeated else "recorded"
    return next((told for kind, told in _OUTCOMES if isinstance(outcome, kind)), "not recorded")


#: In order: the first that fits.
_OUTCOMES: Final[tuple[tuple[type[JourneymanError], str], ...]] = (
    (Rejected, "rejected"),
    (ApplyFailed, "broken"),
    (Invalid, "invalid"),
    (TooLarge, "invalid"),
    (UnknownName, "invalid"),
    (Busy, "busy"),
    (OutcomeUnknown, "unknown"),
)

"""A limit on how many attempts begin in any minute, shared by all processes through the key-value table."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from journeyman.errors import StoreError
from journeyman.store.base import Entry, KeyValue

logger = logging.getLogger(__name__)

MINUTE_US: Final = 60_000_000

#: How often a decision is tried when others decide at the same moment; then it is left for the next round.
TRIES_MAX: Final = 10

#: The pause after a decision that could not be made, in seconds.
PAUSE_S: Final = 0.2

KEY_PREFIX: Final = "limits/"

#: Later than any time of the day.
FURTHEST_US: Final = 2**63


class Limiter:
    """Lets at most `per_minute` attempts begin in any 60 seconds, over all processes.

    It is the generic cell rate algorithm (ITU-T I.371): one number, the time at which the next attempt would be due if
    all came evenly, moves on with each that begins, and no attempt begins more than a burst ahead of it. A tenth of the
    limit may come at once; the rest is spread, so that bursts and even flow together never exceed the limit.

    The number is a time of the day, so clocks matter: not for what is recorded, only for the pace. One that seems
    further ahead than it can be was written by a clock that has been set back since; it counts as the furthest that it
    can be. The clocks of several machines must agree within the time that a burst takes at the even pace, some 6 s:
    where they differ by more, the limit is not kept.

    Args:
        now_us: the time, in microseconds since 1970 UTC.
    """

    def __init__(self, keys: KeyValue, worker: str, per_minute: int, *, now_us: Callable[[], int]) -> None:
        self._keys = keys
        self._key = f"{KEY_PREFIX}{worker}"
        self._burst = max(1, per_minute // 10)
        # A burst, and what then comes evenly in the rest of a minute. A microsecond more, so that what is exactly a
        # minute apart is not within one.
        self._interval_us = MINUTE_US // (per_minute - self._burst + 1) + 1
        self._now_us = now_us
        self._next_us = 0
        self._failing = False

    @property
    def waits_s(self) -> float:
        """Seconds until the next attempt may begin, as far as this process knows; 0 when it may now."""
        return max(0.0, (self._next_us - self._now_us()) / 1_000_000)

    async def take(self, count: int) -> int:
        """Take leave to begin so many attempts; how many may begin now. What is taken and not used is lost."""
        return await self._decide(count, back_us=0)

    async def give_back(self, taken_us: Sequence[int]) -> None:
        """Attempts that had leave to begin did not; they took it at these times, or later.

        The time that passed since is lost. Others may have begun in it just because leave comes back with time anyway:
        with all of it given back, they would count for nothing, and a minute could have more than the limit.
        """
        passed_us = abs(self._now_us() - min(taken_us))
        back_us = len(taken_us) * self._interval_us - passed_us
        if back_us > 0:
            await self._decide(0, back_us=back_us)

    async def _decide(self, count: int, *, back_us: int) -> int:
        try:
            for _ in range(TRIES_MAX):
                entry = await self._keys.get(self._key)
                stored_us = self._read(entry)
                due_us = self._bounded(stored_us) - back_us
                granted = min(count, self._allowed(due_us))
                due_us += granted * self._interval_us
                self._next_us = due_us - (self._burst - 1) * self._interval_us
                revision = entry.revision if entry is not None else 0
                is_unchanged = granted == 0 and due_us >= stored_us
                if is_unchanged or await self._keys.put(self._key, str(due_us).encode(), expect=revision) is not None:
                    self._failing = False
                    return granted
        except StoreError as error:
            if not self._failing:  # Once for all that fail in a row.
                logger.warning("%s can't be read or written, so nothing begins: %s", self._key, error)
            self._failing = True
        self._next_us = self._now_us() + round(PAUSE_S * 1_000_000)
        return 0

    def _read(self, entry: Entry | None) -> int:
        """When the next attempt would be due; a value that is no time counts as the furthest, and is written anew."""
        if entry is None:
            return 0
        try:
            return int(entry.value)
        except ValueError:
            logger.warning("%s holds no time: it is written anew, after a pause", self._key)
            return FURTHEST_US

    def _bounded(self, due_us: int) -> int:
        now_us = self._now_us()
        return min(max(due_us, now_us), now_us + self._burst * self._interval_us)

    def _allowed(self, due_us: int) -> int:
        """How many may begin, when the next one would be due then."""
        return max(0, self._burst - math.ceil((due_us - self._now_us()) / self._interval_us))

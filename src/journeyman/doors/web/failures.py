"""Failed tries to show a token: counted by the address that they come from, so that they cost little."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

#: How many tries may fail from one address in WINDOW_S seconds; after those, it is told to come back later.
FAILURES_MAX: Final = 10
WINDOW_S: Final = 60.0

#: How many addresses are remembered; beyond, the oldest is forgotten.
ADDRESSES_MAX: Final = 1000


class Failures:
    """How often tries failed.

    It keeps nobody out who has a token: tokens can't be guessed, however often somebody tries, and whoever shares an
    address with one who tries, behind a proxy for instance, is to get in all the same. It bounds what is logged, and
    tells programs with an old token to be quiet.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        #: For each address, when its window began, and how many failed in it.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, address: str) -> float | None:
        """Count one more. After how many seconds to come back, when there were too many; else None."""
        now_s = self._now_s()
        began_s, count = self._counts.get(address, (now_s, 0))
        if now_s - began_s >= WINDOW_S:
            began_s, count = now_s, 0
        self._remember(address, (began_s, count + 1))
        if count + 1 == FAILURES_MAX:
            logger.warning("%d tries to sign in from %s failed within %g s", FAILURES_MAX, address, WINDOW_S)
        return began_s + WINDOW_S - now_s if count + 1 > FAILURES_MAX else None

    def _remember(self, address: str, counted: tuple[float, int]) -> None:
        self._counts[address] = counted
        self._counts.move_to_end(address)
        if len(self._counts) > ADDRESSES_MAX:
            self._counts.popitem(last=False)

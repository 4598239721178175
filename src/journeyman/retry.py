"""How often, and after which pauses, a job is tried."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from journeyman.errors import DefinitionError

#: The most attempts a job may have.
ATTEMPTS_MAX: Final = 1000


class Retry(msgspec.Struct, frozen=True):
    """A retry policy: at most `attempts` attempts; the n-th failure waits first_s · factor^(n-1), at most max_s.

    The pause is drawn from the upper half of that, so that what failed together is not tried again together.

    Raises:
        DefinitionError: a value makes no sense.
    """

    attempts: int = 5
    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= ATTEMPTS_MAX:
            raise DefinitionError(f"Retry.attempts is {self.attempts}; it must be from 1 to {ATTEMPTS_MAX}.")
        # Written so that NaN, which compares with nothing, is refused too.
        if not (0 <= self.first_s <= self.max_s < math.inf and 1 <= self.factor < math.inf):
            raise DefinitionError(f"{self} makes no sense: 0 ≤ first_s ≤ max_s and factor ≥ 1, all finite.")

    def pause_s(self, failures: int, uniform: Callable[[float, float], float]) -> float:
        """Seconds to wait after the given number of failures (1 or more)."""
        return draw_pause_s(self.first_s, self.factor, self.max_s, failures, uniform)


def draw_pause_s(
    first_s: float, factor: float, max_s: float, failures: int, uniform: Callable[[float, float], float]
) -> float:
    """A growing pause with jitter, in seconds."""
    try:
        ceiling = min(max_s, first_s * factor ** (failures - 1))
    except OverflowError:
        ceiling = max_s
    return uniform(ceiling / 2, ceiling)


def describe(error: BaseException, *, characters_max: int = 500) -> str:
    """An error as one bounded line that can be recorded, for the log and for people, whatever the error is."""
    kind = type(error).__name__
    try:
        text = " ".join(str(error).split())
    except Exception as broken:  # noqa: BLE001  # an error of somebody's, whose own text is broken
        return f"{kind}, whose text can't be made: {type(broken).__name__}"
    # A text may hold half of a surrogate pair, which no JSON can carry.
    line = (f"{kind}: {text}" if text else kind).encode("utf-8", "replace").decode()
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"

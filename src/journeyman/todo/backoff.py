"""Pauses that grow with failures in a row."""

from __future__ import annotations

from collections.abc import Callable

from journeyman.retry import draw_pause_s


class Backoff:
    """When to try again what failed.

    Args:
        first_s: the pause after the first failure, in seconds; each further one doubles it, up to `max_s`.
        now_s: a monotonic clock, in seconds.
        uniform: where chance comes from.
    """

    def __init__(
        self, first_s: float, max_s: float, *, now_s: Callable[[], float], uniform: Callable[[float, float], float]
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._now_s = now_s
        self._uniform = uniform
        self._failures = 0
        self._until_s = 0.0

    @property
    def waits_s(self) -> float:
        """Seconds until it may be tried; 0 when it may now."""
        return max(0.0, self._until_s - self._now_s()) if self._failures else 0.0

    def failed(self) -> None:
        """It failed. What fails while a pause lasts was under way before, and does not make it longer."""
        if self.waits_s > 0:
            return
        self._failures += 1
        pause_s = draw_pause_s(self._first_s, 2.0, self._max_s, self._failures, self._uniform)
        self._until_s = self._now_s() + pause_s

    def succeeded(self) -> None:
        self._failures = 0

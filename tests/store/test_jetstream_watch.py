"""A server that is behind is not believed at once, and whoever waits is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from journeyman.store import jetstream_watch
from journeyman.store.jetstream_watch import Watch

#: How long anything may take before it counts as hanging, in seconds.
PATIENCE_S = 30.0


class Heads:
    """A server that tells these heads, one after the other, and the last one for ever."""

    def __init__(self, *heads: int) -> None:
        self.heads: Sequence[int] = heads
        self.asked = 0

    async def ask(self) -> int:
        head = self.heads[min(self.asked, len(self.heads) - 1)]
        self.asked += 1
        return head


async def test_a_head_below_what_was_seen_is_asked_for_again() -> None:
    heads = Heads(5, 3, 0, 4, 6)
    watch = Watch(heads.ask, replicated=True)
    assert await watch.head() == 5
    async with asyncio.timeout(PATIENCE_S):
        assert await watch.head() == 6
    assert heads.asked == 5


async def test_a_head_that_stays_below_what_was_seen_is_believed_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream_watch, "BEHIND_S", 0.1)
    watch = Watch(Heads(5, 3).ask, replicated=True)
    assert await watch.head() == 5
    async with asyncio.timeout(PATIENCE_S):
        assert await watch.head() == 3


async def test_calls_that_are_cancelled_count_the_time_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """The executor's patience with one call is shorter than a leader's with its followers."""
    monkeypatch.setattr(jetstream_watch, "BEHIND_S", 0.2)
    watch = Watch(Heads(5, 3).ask, replicated=True)
    assert await watch.head() == 5
    heads: list[int] = []
    async with asyncio.timeout(PATIENCE_S):
        while not heads:
            try:
                async with asyncio.timeout(0.05):
                    heads.append(await watch.head())
            except TimeoutError:
                continue
    assert heads == [3]


async def test_where_one_server_has_the_log_it_is_believed_at_once() -> None:
    watch = Watch(Heads(5, 3).ask, replicated=False)
    assert [await watch.head(), await watch.head()] == [5, 3]


async def test_a_position_that_the_caller_has_read_counts_as_seen() -> None:
    heads = Heads(3, 7)
    watch = Watch(heads.ask, replicated=True)
    async with asyncio.timeout(PATIENCE_S):
        assert await watch.head(at_least=7) == 7
    assert heads.asked == 2

"""A follower is handed each message once and in order, from a position of its own, and the cache never shows a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.errors import Corrupt, Poisoned
from journeyman.follower import (
    NEAR,
    READ_LIMIT,
    RECENT_BYTES_MAX,
    RECENT_MESSAGES_MAX,
    Follower,
    MessageSource,
    RecentMessages,
    _spans,
    check_no_gap,
)
from journeyman.message import Message, Record
from journeyman.store.memory import MemoryLog
from journeyman.testing.records import make_records


class WatchedLog(MemoryLog):
    """A log that tells what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def read(self, after: int, limit: int, *, name: str | None = None) -> list[Record]:
        self.asked.append(after)
        return await super().read(after, limit, name=name)


def decode(record: Record) -> Message[Any] | None:
    """Read a body of "aside" as a message that is set aside, and one of "poison" as one that can't be read."""
    if record.body == b"poison":
        raise Poisoned(position=record.position, name=record.name, why="it says so")
    return None if record.body == b"aside" else Message(record, record.body)


async def make_log(*bodies: bytes) -> WatchedLog:
    log = WatchedLog()
    for after, body in enumerate(bodies):
        await log.append(make_records(1, after=after, body=body), after=after)
    return log


def messages(count: int, *, after: int = 0, body: bytes = b"{}") -> list[Message[Any]]:
    return [Message(record, None) for record in make_records(count, after=after, body=body)]


def positions(found: Sequence[Message[Any] | None] | None) -> list[int | None] | None:
    return None if found is None else [None if message is None else message.position for message in found]


# Followers.


async def test_each_message_is_handed_out_once_and_in_order() -> None:
    log = await make_log(*[b"{}"] * 7)
    follower = Follower(MessageSource(log, decode))
    assert positions(await follower.read(3)) == [1, 2, 3]
    assert positions(await follower.read(3)) == [4, 5, 6]
    assert positions(await follower.read(3)) == [7]
    assert await follower.read(3) == []
    assert follower.position == 7


async def test_only_what_is_newer_than_its_own_position_is_asked_for() -> None:
    log = await make_log(*[b"{}"] * 5)
    source = MessageSource(log, decode)
    one, two = Follower(source, after=3), Follower(source)
    assert positions(await one.read()) == [4, 5]
    assert positions(await two.read(2)) == [1, 2]
    await one.read()
    await two.read()
    assert log.asked == [3, 0, 5, 2]


async def test_messages_set_aside_are_left_out_and_passed() -> None:
    log = await make_log(b"aside", b"aside", b"{}", b"aside")
    follower = Follower(MessageSource(log, decode))
    assert positions(await follower.read(1)) == [3]
    assert await follower.read(1) == []
    assert follower.position == 4


async def test_a_message_that_can_not_be_read_is_never_passed() -> None:
    follower = Follower(MessageSource(await make_log(b"{}", b"poison", b"{}"), decode))
    assert positions(await follower.read(1)) == [1]
    for _ in range(2):
        with pytest.raises(Poisoned, match="at position 2"):
            await follower.read()
        assert follower.position == 1


async def test_what_comes_later_is_followed() -> None:
    log = await make_log(b"{}")
    async with aclosing(Follower(MessageSource(log, decode)).follow(wait_s=30.0)) as batches:
        assert positions(await anext(batches)) == [1]
        later = asyncio.ensure_future(anext(batches))
        await log.append(make_records(2, after=1), after=1)
        assert positions(await later) == [2, 3]


async def test_one_message_is_found_by_its_position() -> None:
    source = MessageSource(await make_log(b"{}", b"aside", b"{}"), decode)
    found = [await source.get(position) for position in (1, 2, 3, 4)]
    assert positions(found) == [1, None, 3, None]


async def test_messages_near_each_other_are_read_together_and_others_not_decoded() -> None:
    """What nobody asks for may be poison; what is set aside, or beyond the head, is None."""
    log = await make_log(b"1", b"poison", b"aside", *[b"far"] * NEAR, b"2", b"3")
    source = MessageSource(log, decode)
    far = 3 + NEAR + 1
    found = await source.get_each([far, 1, 3, far + 1, far + 2])
    assert [None if message is None else message.body for message in found] == [b"2", b"1", None, b"3", None]
    assert log.asked == [0, far - 1]


@given(st.lists(st.integers(1, NEAR + 2), min_size=50), st.integers(0, 2 * READ_LIMIT))
def test_no_read_asks_for_too_much_or_leaves_a_position_out(steps: list[int], dense: int) -> None:
    wanted = list(accumulate([*steps, *[1] * dense, *steps]))
    spans = list(_spans(wanted))
    assert all(last - first < READ_LIMIT for first, last in spans)
    assert all(any(first <= position <= last for first, last in spans) for position in wanted)
    assert all(before[1] < after[0] for before, after in pairwise(spans))


async def test_what_is_in_the_cache_is_not_read() -> None:
    log, recent = await make_log(*[b"{}"] * 3), RecentMessages()
    recent.extend(messages(2, after=1), after=1)
    found = await MessageSource(log, decode, recent).get_each([3, 1])
    assert positions(found) == [3, 1]
    assert log.asked == [0]


async def test_a_gap_in_the_log_is_corruption() -> None:
    log = await make_log(b"{}", b"{}", b"{}")
    del log._records[1]
    follower = Follower(MessageSource(log, decode))
    with pytest.raises(Corrupt, match="after position 1 comes 3"):
        await follower.read()
    assert follower.position == 0


@pytest.mark.parametrize("order", [(0, 2), (1, 0), (0, 0), (1,)])
def test_records_that_do_not_follow_each_other_are_refused(order: tuple[int, ...]) -> None:
    records = make_records(3)
    check_no_gap(records, after=0)
    check_no_gap(make_records(3, after=7), after=7)
    with pytest.raises(Corrupt, match="gap"):
        check_no_gap([records[index] for index in order], after=0)


# The cache.


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 40)), max_size=12),
    st.integers(1, 6),
    st.integers(1, 100),
)
def test_the_cache_is_bounded_and_holds_the_newest_without_a_gap(
    extensions: list[tuple[int, int, int]], messages_max: int, bytes_max: int
) -> None:
    recent = RecentMessages(messages_max=messages_max, bytes_max=bytes_max)
    joined: list[Message[Any]] = []
    last = 0
    for skip, count, size in extensions:
        new = messages(count, after=last + skip, body=b"x" * size)
        recent.extend(new, after=last + skip)
        joined = [*(joined if skip == 0 else []), *new]
        last += skip + count
        held = recent.after(last - len(recent._messages), len(recent._messages) + 1) or []
        assert positions(held) == positions(joined[len(joined) - len(held) :])
        assert len(held) <= messages_max
        assert sum(len(message.record.body) for message in held if message) == recent._bytes <= bytes_max
        if size * messages_max <= bytes_max and all(one[2] <= size for one in extensions):
            assert len(held) == min(messages_max, len(joined))
    for after in range(last + 2):
        found = recent.after(after, 2)
        if found is not None:
            assert positions(found) == list(range(after + 1, min(after + 2, last) + 1))
            assert positions(recent.after(after, 1)) == [after + 1]


def test_what_is_not_held_whole_is_not_answered_at_all() -> None:
    recent = RecentMessages(messages_max=3)
    assert recent.after(0, 10) is None
    recent.extend(messages(5), after=0)
    assert recent.after(1, 10) is None
    assert positions(recent.after(2, 10)) == [3, 4, 5]
    assert recent.after(5, 10) is None
    recent.clear()
    assert recent.after(2, 10) is None
    recent.extend(messages(1, after=5), after=5)
    assert positions(recent.after(5, 10)) == [6]
    assert recent.after(4, 10) is None


def test_the_bounds_are_told() -> None:
    assert (RECENT_MESSAGES_MAX, RECENT_BYTES_MAX, READ_LIMIT) == (4096, 8 * 1024 * 1024, 1000)


async def test_who_is_nearly_up_to_date_reads_nothing_from_the_store() -> None:
    log = await make_log(b"{}", b"aside", b"{}")
    recent = RecentMessages(messages_max=2)
    records = await log.read(0, 10)
    recent.extend([decode(record) for record in records], after=0)
    log.asked.clear()
    source = MessageSource(log, decode, recent)
    found, read_to = await source.read(1, 10)
    assert (positions(found), read_to, log.asked) == ([3], 3, [])
    found, read_to = await source.read(0, 10)
    assert (positions(found), read_to, log.asked) == ([1, 3], 3, [0])

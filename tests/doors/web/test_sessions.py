"""A session is known to every process with its token, to no other, for its time and no longer, until it is ended."""

from __future__ import annotations

import secrets

import pytest

from journeyman.doors.web import sessions as module
from journeyman.doors.web.failures import ADDRESSES_MAX, FAILURES_MAX, WINDOW_S, Failures
from journeyman.doors.web.sessions import ASK_S, ENDED_MAX, KEY_PREFIX, SESSION_S, Sessions
from journeyman.doors.web.tokens import Token, Tokens
from journeyman.errors import NotReady
from journeyman.store.base import Entry, KeyValue
from journeyman.store.memory import MemoryStore

ANNA, BEN = (Token(secrets.token_urlsafe(32), role="operator", name=name) for name in ("anna", "ben"))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def process(*tokens: Token, keys: KeyValue, clock: Clock) -> Sessions:
    return Sessions(Tokens(tokens), keys=lambda: keys, now_s=clock)


async def test_every_process_with_the_token_knows_it_and_no_other() -> None:
    keys, clock = MemoryStore().keys, Clock()
    session = process(ANNA, BEN, keys=keys, clock=clock).begin(ANNA)

    elsewhere = await process(BEN, ANNA, keys=keys, clock=clock).find(session.cookie)
    assert elsewhere is not None
    assert (elsewhere.token, elsewhere.csrf) == (ANNA, session.csrf)
    assert await process(BEN, keys=keys, clock=clock).find(session.cookie) is None


async def test_it_ends_by_itself_and_nobody_can_make_it_longer() -> None:
    clock = Clock()
    sessions = process(ANNA, keys=MemoryStore().keys, clock=clock)
    session = sessions.begin(ANNA)
    longer = session.cookie.replace(str(session.ends_at_s), str(session.ends_at_s + 1))
    assert await sessions.find(longer) is None

    clock.now_s += SESSION_S - 1
    assert await sessions.find(session.cookie) is not None
    clock.now_s += 1
    assert await sessions.find(session.cookie) is None


async def test_a_clock_that_went_back_makes_no_long_sessions() -> None:
    clock = Clock()
    sessions = process(ANNA, keys=MemoryStore().keys, clock=clock)
    session = sessions.begin(ANNA)
    clock.now_s -= 60
    assert await sessions.find(session.cookie) is None


@pytest.mark.parametrize("cookie", ["", ".", "a.b.c", "x" * 5000, "A" * 22 + ".9999999999." + "0" * 64, "ä.1.\x00"])
async def test_what_was_not_signed_here_is_no_session(cookie: str) -> None:
    assert await process(ANNA, keys=MemoryStore().keys, clock=Clock()).find(cookie) is None


async def test_two_sessions_of_one_token_have_nothing_in_common() -> None:
    sessions = process(ANNA, keys=MemoryStore().keys, clock=Clock())
    one, two = sessions.begin(ANNA), sessions.begin(ANNA)
    assert one.csrf != two.csrf
    assert one.cookie != two.cookie
    mixed = ".".join([*two.cookie.split(".")[:2], one.cookie.rpartition(".")[2]])
    assert await sessions.find(mixed) is None
    proof = ".".join([*one.cookie.split(".")[:2], one.csrf])
    assert await sessions.find(proof) is None, "what a form shows does not open a session"


async def test_one_that_was_ended_is_over_here_at_once_and_elsewhere_soon() -> None:
    keys, clock = MemoryStore().keys, Clock()
    here, there = (process(ANNA, keys=keys, clock=clock) for _ in range(2))
    session, other = here.begin(ANNA), here.begin(ANNA)
    assert await there.find(session.cookie) is not None

    await here.end(session)

    assert await here.find(session.cookie) is None
    assert await there.find(session.cookie) is not None, "asked a moment ago"
    clock.now_s += ASK_S
    assert await there.find(session.cookie) is None
    assert await there.find(other.cookie) is not None


async def test_what_is_kept_of_ended_sessions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENDED_MAX", 5)
    keys, clock = MemoryStore().keys, Clock()
    sessions = process(ANNA, keys=keys, clock=clock)
    for _ in range(12):
        await sessions.end(sessions.begin(ANNA))
        clock.now_s += 1
        assert len(await keys.keys(KEY_PREFIX)) <= 5
    assert len(sessions._looked) <= 5

    clock.now_s += SESSION_S
    await sessions.end(sessions.begin(ANNA))
    assert len(await keys.keys(KEY_PREFIX)) == 1, "those that are over anyway are forgotten"
    assert ENDED_MAX >= 1000


class AwayKeys:
    """A store that can't be read."""

    async def get(self, key: str) -> Entry | None:
        raise NotReady("away")

    async def put(self, key: str, value: bytes, *, expect: int | None = None) -> int | None:
        raise NotReady("away")

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        raise NotReady("away")

    async def keys(self, prefix: str = "") -> list[str]:
        raise NotReady("away")


async def test_while_the_store_is_away_a_session_goes_on_and_one_can_be_ended_here() -> None:
    sessions = process(ANNA, keys=AwayKeys(), clock=Clock())
    session = sessions.begin(ANNA)
    assert await sessions.find(session.cookie) is not None
    with pytest.raises(NotReady):
        await sessions.end(session)
    assert await sessions.find(session.cookie) is None


def test_failures_are_counted_by_address_and_forgotten_after_their_time() -> None:
    clock = Clock()
    failures = Failures(now_s=clock)
    assert [failures.count("a") for _ in range(FAILURES_MAX)] == [None] * FAILURES_MAX
    assert failures.count("a") == WINDOW_S
    assert failures.count("b") is None
    clock.now_s += WINDOW_S / 2
    assert failures.count("a") == WINDOW_S / 2, "trying on does not make it longer"
    clock.now_s += WINDOW_S / 2
    assert failures.count("a") is None


def test_no_number_of_addresses_takes_more_memory() -> None:
    failures = Failures(now_s=Clock())
    for number in range(ADDRESSES_MAX * 3):
        failures.count(f"10.0.{number >> 8}.{number & 255}")
    assert len(failures) == ADDRESSES_MAX

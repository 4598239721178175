from __future__ import annotations

import pytest

from journeyman import GiveUp, RateLimited, ServiceError, Unauthorized, Unavailable
from journeyman.todo.lane import JOBS_TO_OPEN, PAUSE_DEFAULT_S, PAUSE_MAX_S, PROBE_MAX_S, Fault, Lane, LaneState


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lane(clock: Clock) -> Lane:
    return Lane(now_s=clock, uniform=lambda low, high: high)


def state_of(lane: Lane) -> LaneState:
    """A function, so that no type checker takes the answer for the last one."""
    return lane.state


def open_breaker(lane: Lane) -> None:
    for number in range(JOBS_TO_OPEN):
        lane.failed(f"job {number}", ServiceError("500"))


def test_an_open_lane_fills_every_free_slot(lane: Lane) -> None:
    assert lane.allows(free=5, running=3) == 5


def test_a_429_pauses_at_once_for_its_retry_after_and_is_charged_to_nobody(lane: Lane, clock: Clock) -> None:
    assert lane.failed("a", RateLimited("slow", retry_after_s=30)) is Fault.SERVICE
    assert state_of(lane) is LaneState.PAUSED
    assert lane.allows(free=5, running=0) == 0
    assert lane.waits_s == 30
    clock.now_s += 30
    assert state_of(lane) is LaneState.OPEN
    assert lane.allows(free=5, running=0) == 5


def test_a_429_that_names_no_time_pauses_for_the_default(lane: Lane) -> None:
    lane.failed("a", RateLimited("slow"))
    assert lane.waits_s == PAUSE_DEFAULT_S


@pytest.mark.parametrize("asked_s", [0.0, -5.0, float("nan")])
def test_a_service_that_asks_for_no_pause_again_and_again_gets_growing_ones(
    lane: Lane, clock: Clock, asked_s: float
) -> None:
    pauses = []
    for _ in range(4):
        lane.failed("a", RateLimited("slow", retry_after_s=asked_s))
        pauses.append(lane.waits_s)
        clock.now_s += lane.waits_s
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4])
    lane.succeeded()
    lane.failed("a", RateLimited("slow", retry_after_s=asked_s))
    assert lane.waits_s == pytest.approx(0.05)


def test_no_service_can_ask_for_an_endless_pause(lane: Lane) -> None:
    lane.failed("a", RateLimited("slow", retry_after_s=float("inf")))
    assert lane.waits_s == PAUSE_MAX_S


def test_several_service_errors_in_a_row_from_different_jobs_open_the_breaker(lane: Lane) -> None:
    faults = [lane.failed(f"job {number}", error) for number, error in enumerate([ServiceError("500"), TimeoutError()])]
    assert faults == [Fault.JOB] * 2
    assert state_of(lane) is LaneState.OPEN
    assert lane.failed("job 3", ConnectionRefusedError()) is Fault.SERVICE
    assert state_of(lane) is LaneState.PAUSED


def test_one_document_that_always_fails_does_not_open_it(lane: Lane) -> None:
    assert [lane.failed("bad", ServiceError("500")) for _ in range(10)] == [Fault.JOB] * 10
    assert state_of(lane) is LaneState.OPEN


def test_a_success_between_ends_the_row(lane: Lane) -> None:
    for number in range(10):
        assert lane.failed(f"job {number}", ServiceError("500")) is Fault.JOB
        lane.succeeded()
    assert state_of(lane) is LaneState.OPEN


def test_while_it_is_down_one_probe_runs_at_a_time_with_growing_pauses_and_nobody_is_charged(
    lane: Lane, clock: Clock
) -> None:
    open_breaker(lane)
    pauses = []
    for number in range(12):
        pauses.append(lane.waits_s)
        clock.now_s += lane.waits_s
        assert state_of(lane) is LaneState.PROBING
        assert lane.allows(free=8, running=0) == 1
        assert lane.allows(free=7, running=1) == 0
        assert lane.failed(f"probe {number}", ServiceError("503")) is Fault.SERVICE
        assert lane.last_probe == f"probe {number}"
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == PROBE_MAX_S
    clock.now_s += lane.waits_s
    lane.succeeded()
    assert (state_of(lane), lane.reason) == (LaneState.OPEN, None)


def test_stragglers_that_fail_when_it_is_down_are_no_probes(lane: Lane) -> None:
    open_breaker(lane)
    before_s = lane.waits_s
    assert [lane.failed(f"late {number}", TimeoutError()) for number in range(5)] == [Fault.SERVICE] * 5
    assert lane.waits_s == before_s
    assert lane.last_probe == f"job {JOBS_TO_OPEN - 1}"


def test_a_service_that_nothing_reaches_is_never_the_jobs_fault(lane: Lane) -> None:
    assert lane.failed("a", Unavailable("refused")) is Fault.SERVICE
    assert state_of(lane) is LaneState.PAUSED


def test_a_wrong_key_stops_the_lane_until_it_is_resumed(lane: Lane, clock: Clock) -> None:
    assert lane.failed("a", Unauthorized("401")) is Fault.SERVICE
    clock.now_s += 1e9
    lane.succeeded()
    assert state_of(lane) is LaneState.STOPPED
    assert str(lane.reason) == "Unauthorized: 401"
    assert lane.allows(free=5, running=0) == 0
    lane.resume()
    assert (state_of(lane), lane.reason) == (LaneState.OPEN, None)


def test_what_the_job_did_is_its_own_and_says_nothing_about_the_service(lane: Lane) -> None:
    for number in range(10):
        assert lane.failed(f"job {number}", ValueError("bad document")) is Fault.JOB
        assert lane.failed(f"job {number}", GiveUp("it was deleted")) is Fault.JOB
    assert state_of(lane) is LaneState.OPEN

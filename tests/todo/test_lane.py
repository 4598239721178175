from __future__ import annotations

import errno
import heapq
import math
import random
import socket
from collections import Counter

import pytest

from journeyman import GiveUp, RateLimited, Retry, ServiceError, Unauthorized, Unavailable
from journeyman.todo.lane import (
    JOBS_TO_OPEN,
    PAUSE_DEFAULT_S,
    PAUSE_MAX_S,
    PROBE_MAX_S,
    Fault,
    Lane,
    LaneState,
    is_of_service,
)


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
    lane.succeeded("other")
    lane.failed("a", RateLimited("slow", retry_after_s=asked_s))
    assert lane.waits_s == pytest.approx(0.05)


def test_no_service_can_ask_for_an_endless_pause(lane: Lane) -> None:
    lane.failed("a", RateLimited("slow", retry_after_s=float("inf")))
    assert lane.waits_s == PAUSE_MAX_S


def test_several_service_errors_in_a_row_from_different_jobs_open_the_breaker(lane: Lane) -> None:
    faults = [lane.failed(f"job {number}", error) for number, error in enumerate([ServiceError("500"), TimeoutError()])]
    assert faults == [Fault.UNKNOWN] * 2
    assert state_of(lane) is LaneState.OPEN
    assert lane.failed("job 3", ConnectionRefusedError()) is Fault.SERVICE
    assert state_of(lane) is LaneState.PAUSED


def test_a_lone_job_that_always_fails_is_charged_nothing_and_waits_longer_each_time(lane: Lane) -> None:
    pauses = []
    for _ in range(12):
        lane.began("bad")
        assert lane.failed("bad", ServiceError("500")) is Fault.UNKNOWN
        pauses.append(lane.pause_s("bad"))
        assert state_of(lane) is LaneState.OPEN, "another job, which may come any time, is not held up"
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == PROBE_MAX_S


def test_while_others_succeed_a_job_that_always_fails_is_charged(lane: Lane) -> None:
    faults = []
    for _ in range(5):
        lane.began("bad")
        lane.succeeded("good")
        faults.append(lane.failed("bad", ServiceError("500")))
    assert faults == [Fault.JOB] * 5
    assert state_of(lane) is LaneState.OPEN


def test_a_job_that_fails_quickly_is_charged_for_successes_between_its_attempts(lane: Lane) -> None:
    faults = []
    for _ in range(4):
        lane.began("bad")
        faults.append(lane.failed("bad", ServiceError("500")))
        lane.succeeded("good")
    assert faults == [Fault.UNKNOWN, Fault.JOB, Fault.JOB, Fault.JOB]


def test_a_success_before_the_attempt_began_is_no_evidence(lane: Lane) -> None:
    lane.succeeded("good")
    lane.began("bad")
    assert lane.failed("bad", ServiceError("500")) is Fault.UNKNOWN


def test_a_job_is_no_evidence_against_itself(lane: Lane) -> None:
    for _ in range(3):
        lane.began("a")
        lane.succeeded("a")
        lane.began("a")
        assert lane.failed("a", ServiceError("500")) is Fault.UNKNOWN


def test_two_poison_documents_among_many_are_charged_and_the_lane_stays_open(lane: Lane) -> None:
    charged = Counter[str]()
    for _ in range(6):
        for bad in ("bad 1", "bad 2"):
            lane.began(bad)
            charged[bad] += lane.failed(bad, ServiceError("500")) is Fault.JOB
        lane.succeeded("good")
        assert state_of(lane) is LaneState.OPEN
    assert charged == {"bad 1": 5, "bad 2": 5}


def test_a_success_between_ends_the_row(lane: Lane) -> None:
    for number in range(10):
        lane.failed(f"job {number}", ServiceError("500"))
        lane.succeeded("other")
    assert state_of(lane) is LaneState.OPEN


@pytest.mark.parametrize(("jobs", "outage_s"), [(1, 600), (2, 600), (8, 600), (8, 7200)], ids=str)
def test_a_service_that_is_down_for_minutes_charges_nobody_and_every_job_is_done(
    jobs: int, outage_s: float, lane: Lane, clock: Clock
) -> None:
    """Simulated: each attempt takes 0.1 s; as many run at once as the lane allows."""
    up_at_s = clock.now_s + outage_s
    due = {f"job {number}": clock.now_s for number in range(jobs)}
    attempts = 0
    while due:
        ready = [job for job in due if due[job] <= clock.now_s and job != lane.last_probe] or [
            job for job in due if due[job] <= clock.now_s
        ]
        started = ready[: lane.allows(free=8, running=0)]
        for job in started:
            lane.began(job)
        clock.now_s += 0.1
        for job in started:
            attempts += 1
            if clock.now_s >= up_at_s:
                lane.succeeded(job)
                del due[job]
            else:
                fault = lane.failed(job, ServiceError("503"))
                assert fault is not Fault.JOB
                due[job] = clock.now_s + (lane.pause_s(job) if fault is Fault.UNKNOWN else 0)
    assert clock.now_s < up_at_s + 2 * PROBE_MAX_S
    assert attempts < jobs + 4 * (outage_s / PROBE_MAX_S + 10)


def test_few_successes_among_many_failures_are_no_evidence(lane: Lane) -> None:
    for others_fail in (1, 2):
        lane.began("bad")
        lane.succeeded("good")
        for number in range(others_fail):
            lane.failed(f"other {number}", ServiceError("500"))
        assert (lane.failed("bad", ServiceError("500")) is Fault.JOB) is (others_fail == 1)
        assert state_of(lane) is LaneState.OPEN


@pytest.mark.parametrize(
    "first", [RateLimited("slow", retry_after_s=0), Unavailable("refused"), ValueError("its own")], ids=repr
)
def test_a_success_before_the_last_failure_is_no_evidence_whatever_that_failure_was(
    first: Exception, lane: Lane
) -> None:
    lane.began("bad")
    lane.succeeded("good")
    lane.failed("bad", first)
    lane.resume()
    lane.began("bad")
    assert lane.failed("bad", ServiceError("500")) is Fault.UNKNOWN


@pytest.mark.parametrize("at_once", [1, 8])
@pytest.mark.parametrize("fails", [0.5, 0.7, 0.9])
def test_of_a_service_that_fails_at_random_few_jobs_are_given_up(fails: float, at_once: int) -> None:
    """Simulated: 5 attempts. If each failure were charged, 3 %, 17 % and 59 % of the jobs would be given up."""
    given_up, most_attempts = simulate_chance(random.Random(1), fails=fails, at_once=at_once, jobs=500)
    assert given_up <= 500 * 0.01
    assert most_attempts < 200


def simulate_chance(chance: random.Random, *, fails: float, at_once: int, jobs: int) -> tuple[int, int]:
    """How many jobs are given up, and the most attempts at one. Each attempt takes half a second to five seconds."""
    clock, retry = Clock(), Retry()
    lane = Lane(now_s=clock, uniform=chance.uniform)
    due = [(clock.now_s, f"job {number}") for number in range(jobs)]
    running: list[tuple[float, str]] = []
    charges, attempts = Counter[str](), Counter[str]()
    given_up = 0
    while due or running:
        free = lane.allows(free=at_once - len(running), running=len(running))
        if due and due[0][0] <= clock.now_s and free > 0:
            job = heapq.heappop(due)[1]
            lane.began(job)
            attempts[job] += 1
            heapq.heappush(running, (clock.now_s + chance.uniform(0.5, 5), job))
            continue
        ready_s = max(due[0][0], clock.now_s + lane.waits_s) if due else math.inf
        ended_s = running[0][0] if running else math.inf
        if ended_s > ready_s > clock.now_s:
            clock.now_s = ready_s
            continue
        clock.now_s, job = heapq.heappop(running)
        if chance.random() >= fails:
            lane.succeeded(job)
            continue
        fault = lane.failed(job, ServiceError("500"))
        charges[job] += fault is Fault.JOB
        if charges[job] == retry.attempts:
            given_up += 1
            lane.forget(job)
            continue
        pause_s = {Fault.JOB: retry.pause_s(charges[job] or 1, chance.uniform), Fault.UNKNOWN: lane.pause_s(job)}
        heapq.heappush(due, (clock.now_s + pause_s.get(fault, 0.0), job))
    return given_up, max(attempts.values())


@pytest.mark.parametrize(
    ("error", "of_service"),
    [
        (ServiceError("500"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), True),
        (OSError(errno.EHOSTUNREACH, "no route"), True),
        (FileNotFoundError(errno.ENOENT, "the document"), False),
        (PermissionError(errno.EACCES, "the document"), False),
        (OSError(errno.ENOSPC, "full"), False),
        (ValueError("bad document"), False),
    ],
)
def test_errors_of_the_network_are_the_services_and_those_of_files_the_jobs(
    error: Exception, of_service: bool, lane: Lane
) -> None:
    assert is_of_service(error) is of_service
    assert (lane.failed("a", error) is Fault.JOB) is not of_service


def test_what_is_remembered_of_failing_jobs_is_bounded(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journeyman.todo.lane.FAILING_MAX", 5)
    for number in range(50):
        lane.failed(f"job {number}", ServiceError("500"))
        lane.succeeded("other")
    assert len(lane._unknown) <= 5
    assert len(lane._seen) <= 5


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
    lane.succeeded("other")
    assert (state_of(lane), lane.reason) == (LaneState.OPEN, None)


def test_stragglers_that_fail_when_it_is_down_are_no_probes(lane: Lane) -> None:
    open_breaker(lane)
    before_s = lane.waits_s
    assert [lane.failed(f"late {number}", TimeoutError()) for number in range(5)] == [Fault.SERVICE] * 5
    assert lane.waits_s == before_s
    assert lane.last_probe == f"job {JOBS_TO_OPEN - 1}"


def test_whoever_began_while_it_worked_and_fails_once_it_is_down_is_charged_nothing(lane: Lane) -> None:
    lane.began("late")
    for number in range(2 * JOBS_TO_OPEN):
        lane.succeeded(f"good {number}")
    open_breaker(lane)
    assert lane.failed("late", TimeoutError()) is Fault.SERVICE


def test_a_service_that_nothing_reaches_is_never_the_jobs_fault(lane: Lane) -> None:
    assert lane.failed("a", Unavailable("refused")) is Fault.SERVICE
    assert state_of(lane) is LaneState.PAUSED


def test_a_wrong_key_stops_the_lane_until_it_is_resumed(lane: Lane, clock: Clock) -> None:
    assert lane.failed("a", Unauthorized("401")) is Fault.SERVICE
    clock.now_s += 1e9
    lane.succeeded("other")
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

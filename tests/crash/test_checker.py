"""The checker finds each kind of broken promise: a sound log with one thing wrong is told by that count alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from journeyman import Record
from journeyman.testing.records import make_records
from tests.crash.checker import Acknowledged, Findings, check


class Story:
    """A log that is told message by message, with what clients and the service saw."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.acknowledged: list[Acknowledged] = []
        self.calls: dict[str, int] = {}

    def tell(self, name: str, *, subject: str | None = None, by: int | None = None, **body: Any) -> int:
        """`by` is the fence in the envelope."""
        [record] = make_records(1, after=len(self.records), name=name, body=json.dumps(body).encode())
        self.records.append(msgspec.structs.replace(record, subject=subject, fence=by))
        return record.position

    def put(self, key: str, about: str) -> None:
        position = self.tell("questions/put", subject=key, key=key, about=about)
        self.acknowledged.append(Acknowledged(key, position, self.records[-1].id))

    def ask(self, key: str, about: str) -> None:
        self.tell("questions/ask", subject=key, key=key, about=about)

    def start(self, key: str, instance: str = "one") -> int:
        return self.tell("journeyman/job-started", job=key, instance=instance)

    def call(self, key: str) -> None:
        self.calls[key] = self.calls.get(key, 0) + 1

    def answer(self, key: str, fence: int | None) -> None:
        self.tell("questions/answer", subject=key, by=fence, key=key)

    def lose(self, instance: str) -> None:
        self.tell("journeyman/instance-lost", instance=instance)

    def park(self, key: str) -> None:
        self.tell("journeyman/job-parked", subject=key, job=key)

    def done(self, key: str, instance: str = "one") -> None:
        fence = self.start(key, instance)
        self.call(key)
        self.answer(key, fence)

    def found(self, **options: Any) -> Findings:
        return check(self.records, self.acknowledged, self.calls, **options)


def two_questions() -> Story:
    """Two questions about one subject, and one about another, that nobody has tried yet."""
    story = Story()
    for key, about in (("a", "x"), ("b", "x"), ("c", "y")):
        story.put(key, about)
        story.ask(key, about)
    return story


def test_a_sound_log_breaks_nothing() -> None:
    """With a failure, a death, a release, a job given up and one parked."""
    story = two_questions()
    first = story.start("a")
    story.call("a")
    story.tell("journeyman/job-failed", fence=first, retry_after_s=1.0)
    story.done("a")
    story.start("b", "two")
    story.call("b")
    story.lose("two")
    released = story.start("b")
    story.tell("journeyman/job-released", fence=released)
    for _ in range(2):
        failed = story.start("b")
        story.call("b")
        story.tell("journeyman/job-failed", fence=failed, retry_after_s=1.0)
    last = story.start("b")
    story.call("b")
    story.tell("questions/fail", subject="b", by=last, key="b")
    for number in range(4):  # The first death makes it a suspect, the next three are charged.
        story.start("c", f"killed {number}")
        story.call("c")
        story.lose(f"killed {number}")
    story.park("c")
    found = story.found(parked_allowed=["c"])
    assert found.broken == {}
    assert (found.acknowledged, found.jobs, found.attempts) == (3, 3, 11)
    assert (found.failed_attempts, found.released, found.given_up, found.parked) == (3, 1, 1, 1)
    assert (found.instances_lost, found.charged_max, found.calls) == (5, 3, 10)


def _rest(story: Story, *keys: str) -> None:
    for key in keys:
        story.done(key)


def an_acknowledged_command_is_not_there(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.acknowledged.append(Acknowledged("d", 99, "0"))


def another_message_stands_where_it_was(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.records[0] = msgspec.structs.replace(story.records[0], id="another")


def a_position_is_missing(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.tell("other/fact")
    story.tell("other/fact")
    del story.records[-2]


def a_command_is_there_twice(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.tell("questions/put", subject="a", key="a", about="x")


def a_job_is_forgotten(story: Story) -> None:
    _rest(story, "a", "b")


def a_reaction_is_forgotten(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.put("d", "y")


def a_reaction_happens_twice(story: Story) -> None:
    _rest(story, "a", "b", "c")
    story.ask("c", "y")


def a_late_answer_is_taken(story: Story) -> None:
    late = story.start("a", "two")
    story.call("a")
    story.lose("two")
    _rest(story, "a", "b", "c")
    story.answer("a", late)


def a_lost_attempt_answers(story: Story) -> None:
    late = story.start("a", "two")
    story.call("a")
    story.lose("two")
    story.answer("a", late)
    _rest(story, "b", "c")


def an_answer_has_no_fence(story: Story) -> None:
    story.start("a")
    story.call("a")
    story.answer("a", None)
    _rest(story, "b", "c")


def a_late_failure_is_taken(story: Story) -> None:
    late = story.start("a", "two")
    story.call("a")
    story.lose("two")
    story.tell("journeyman/job-failed", fence=late, retry_after_s=1.0)
    _rest(story, "a", "b", "c")


def a_job_is_tried_twice_at_once(story: Story) -> None:
    story.start("a", "two")
    _rest(story, "a", "b", "c")


def two_of_a_subject_are_tried_at_once(story: Story) -> None:
    first = story.start("a")
    story.call("a")
    second = story.start("b")
    story.call("b")
    story.answer("a", first)
    story.answer("b", second)
    _rest(story, "c")


def the_later_one_is_answered_first(story: Story) -> None:
    _rest(story, "b", "a", "c")


def a_lost_process_starts_a_job(story: Story) -> None:
    story.lose("two")
    story.done("a", "two")
    _rest(story, "b", "c")


def two_suspects_run_together(story: Story) -> None:
    story.start("a", "two")
    story.start("c", "two")
    story.lose("two")
    first, second = story.start("a"), story.start("c")
    story.call("a")
    story.call("c")
    story.answer("a", first)
    story.answer("c", second)
    _rest(story, "b")


def a_job_is_tried_too_often(story: Story) -> None:
    for _ in range(3):
        fence = story.start("a")
        story.call("a")
        story.tell("journeyman/job-failed", fence=fence, retry_after_s=1.0)
    _rest(story, "a", "b", "c")


def a_job_is_given_up_too_soon(story: Story) -> None:
    fence = story.start("a")
    story.call("a")
    story.tell("questions/fail", subject="a", by=fence, key="a")
    _rest(story, "b", "c")


def a_neighbour_is_parked_by_anothers_deaths(story: Story) -> None:
    """What charging every running job at each death would do."""
    for number in range(3):
        story.start("a", f"killed {number}")
        story.call("a")
        story.lose(f"killed {number}")
    story.park("a")
    _rest(story, "b", "c")


def an_attempt_is_not_recorded_before_it_runs(story: Story) -> None:
    story.call("a")
    _rest(story, "a", "b", "c")


def an_answer_was_made_up(story: Story) -> None:
    _rest(story, "a", "b", "c")
    del story.calls["b"]


@pytest.mark.parametrize(
    ("doctor", "broken"),
    [
        (an_acknowledged_command_is_not_there, {"lost": 1}),
        (another_message_stands_where_it_was, {"lost": 1}),
        (a_position_is_missing, {"lost": 1}),
        (a_command_is_there_twice, {"doubled": 1}),
        (a_job_is_forgotten, {"forgotten": 1}),
        (a_reaction_is_forgotten, {"forgotten": 1}),
        (a_reaction_happens_twice, {"reacted_twice": 1}),
        (a_late_answer_is_taken, {"answered_twice": 1, "unfenced": 1}),
        (a_lost_attempt_answers, {"unfenced": 1}),
        (an_answer_has_no_fence, {"unfenced": 1}),
        (a_late_failure_is_taken, {"unfenced": 1}),
        (a_job_is_tried_twice_at_once, {"overlaps": 1}),
        (two_of_a_subject_are_tried_at_once, {"overlaps": 1}),
        (the_later_one_is_answered_first, {"out_of_order": 1}),
        (a_lost_process_starts_a_job, {"started_by_lost": 1}),
        (two_suspects_run_together, {"suspects_together": 1}),
        (a_job_is_tried_too_often, {"charged_wrongly": 1}),
        (a_job_is_given_up_too_soon, {"charged_wrongly": 1}),
        (a_neighbour_is_parked_by_anothers_deaths, {"charged_wrongly": 1, "forgotten": 1}),
        (an_attempt_is_not_recorded_before_it_runs, {"calls_unrecorded": 1}),
        (an_answer_was_made_up, {"calls_unrecorded": 1}),
    ],
)
def test_what_is_wrong_is_told(doctor: Callable[[Story], None], broken: dict[str, int]) -> None:
    story = two_questions()
    doctor(story)
    assert story.found().broken == broken

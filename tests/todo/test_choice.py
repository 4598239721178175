from __future__ import annotations

import pytest

from journeyman import PauseWorker
from journeyman.todo.choice import Choice, Slots, choose
from journeyman.todo.jobs import InstanceLost, JobFailed, JobReleased
from tests.todo.desk import Ask
from tests.todo.test_ledger import DESK, SECOND_US, Book


@pytest.fixture
def book() -> Book:
    return Book()


def look(
    book: Book, *, free: int = 9, suspect: bool = True, unlike: str | None = None, **running: int | None
) -> Choice:
    """What is chosen beside those that run here, with their fences."""
    slots = Slots(free=free, suspect=suspect, unlike=unlike, pause_max_us=60 * SECOND_US)
    return choose(book.state, DESK, "i", running, slots=slots, now_us=book.now_us)


def keys(choice: Choice) -> list[str]:
    return [row.job for row in choice.start]


async def test_those_due_for_longest_come_first_and_no_more_than_there_are_slots(book: Book) -> None:
    for key in "abc":
        await book.do(Ask(key=key))
        book.now_us += SECOND_US
    await book.do(JobFailed(fence=await book.start("a"), error="", retry_after_s=0))
    assert keys(look(book)) == ["b", "c", "a"]
    assert keys(look(book, free=2)) == ["b", "c"]
    assert keys(look(book, free=0)) == []


async def test_the_next_probe_is_another_job_where_there_is_one(book: Book) -> None:
    """Also when the other one came in after the last probe was released."""
    await book.do(Ask(key="a"))
    await book.do(JobReleased(fence=await book.start("a"), reason=""))
    assert keys(look(book, free=1, unlike="a")) == ["a"]
    book.now_us += SECOND_US
    await book.do(Ask(key="b"))
    assert keys(look(book, free=1)) == ["a"]
    assert keys(look(book, free=1, unlike="a")) == ["b"]


async def test_what_is_not_due_is_left_and_its_time_told(book: Book) -> None:
    await book.do(Ask(key="later", due_in_s=5))
    await book.do(Ask(key="sooner", due_in_s=3))
    assert (keys(look(book)), look(book).next_due_us) == ([], 4 * SECOND_US)
    book.now_us = 4 * SECOND_US
    assert (keys(look(book)), look(book).next_due_us) == (["sooner"], 6 * SECOND_US)


async def test_one_of_a_subject_is_chosen_and_none_beside_one_that_runs_here(book: Book) -> None:
    await book.do(Ask(key="later", subject="s", due_in_s=1))
    await book.do(Ask(key="a", subject="s"))
    book.now_us += SECOND_US
    assert keys(look(book)) == ["a"]
    assert keys(look(book, a=None)) == []
    fence = await book.start("a")
    assert keys(look(book, a=fence)) == []


async def test_one_suspect_is_chosen_at_a_time(book: Book) -> None:
    for key in "abc":
        await book.do(Ask(key=key))
    for key in "ab":
        await book.start(key, instance="gone")
    await book.do(InstanceLost(instance="gone"))
    assert keys(look(book)) == ["a", "c"]
    assert keys(look(book, suspect=False)) == ["c"]


async def test_a_paused_worker_starts_nothing(book: Book) -> None:
    await book.do(Ask(key="a"))
    await book.do(PauseWorker(worker=DESK))
    assert keys(look(book)) == []


async def test_what_is_recorded_and_not_run_and_what_is_run_and_over_is_told(book: Book) -> None:
    for key in "abc":
        await book.do(Ask(key=key))
    fences = {key: await book.start(key) for key in "ab"}
    assert [row.job for row in look(book, a=fences["a"]).stray] == ["b"]
    await book.do(JobReleased(fence=fences["a"], reason=""))
    assert look(book, a=fences["a"], b=fences["b"]).over == ["a"]
    assert look(book, a=None, b=fences["b"]).over == []


async def test_what_a_clock_that_was_ahead_has_recorded_is_not_waited_for(book: Book) -> None:
    book.now_us = 3600 * SECOND_US
    await book.do(Ask(key="first"))
    await book.do(Ask(key="again"))
    await book.do(JobFailed(fence=await book.start("again"), error="", retry_after_s=5))
    await book.do(Ask(key="delayed", due_in_s=5))
    book.now_us = 0
    assert sorted(keys(look(book))) == ["again", "first"]
    assert keys(look(book, free=1)) == ["again"]
    assert look(book).next_due_us == 3605 * SECOND_US

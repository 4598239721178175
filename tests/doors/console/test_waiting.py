"""A sentence says why a job waits, with a time where one is known; and a chain is drawn with effects below causes."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from journeyman import Attempt, Command, RateLimited
from journeyman.doors.console.chains import DEPTH_MAX, in_depth
from journeyman.doors.console.index.reader import Entry, Link
from journeyman.doors.console.waiting import reasons
from journeyman.heartbeat import Note, WorkerNote
from journeyman.todo.jobs import JobRow
from journeyman.todo.overview import Wait
from tests.todo.desk import Ask, make, running

ROW = JobRow(worker="desk/answers", job="a", subject=None, opened_at=1, opened_at_us=1, standing="waiting", due_at_us=1)


def note(status: str, error: str | None = None, until_us: int | None = None) -> Note:
    worker = WorkerNote(name=ROW.worker, status=status, last_error=error, lane_until_us=until_us)
    return Note(pid=1, host="here", started_at_us=1, at_us=1, workers=(worker,))


@pytest.mark.parametrize(
    ("wait", "notes", "texts", "until_us"),
    [
        (Wait(), [note("running")], ["It is ready, and waits for a free slot of its worker."], None),
        (Wait(), [], ["No process runs the worker: start journeyman work."], None),
        (
            Wait(),
            [note("lane paused", "too many requests", 77)],
            ["The lane to the service is paused: too many requests."],
            77,
        ),
        (
            Wait(is_paused=True),
            [note("running")],
            ["Its worker is paused: nothing new begins until somebody resumes it."],
            None,
        ),
        (Wait(due_at_us=88), [note("running")], ["It is tried again after a pause."], 88),
        (Wait(ahead="b"), [note("running")], ["Another job of the same subject goes first."], None),
    ],
)
def test_each_reason_has_its_sentence(wait: Wait, notes: list[Note], texts: list[str], until_us: int | None) -> None:
    told = reasons(ROW, wait, notes)

    assert [one.text for one in told] == texts
    assert told[0].until_us == until_us


def test_a_suspect_is_told_beside_what_else_holds() -> None:
    told = reasons(msgspec.structs.replace(ROW, suspect=True), Wait(is_parked=True), [note("running")])

    assert [one.text.partition(":")[0] for one in told] == ["It is parked", "It is suspect"]


async def test_a_process_says_until_when_its_lane_is_closed() -> None:
    async def limited(attempt: Attempt[Ask]) -> Command:
        raise RateLimited("slow down", retry_after_s=600.0)

    async with running(make(limited)) as app:
        await app.execute(Ask(key="a"))
        async with asyncio.timeout(20):
            while not (told := [one for note in (await app.instances()).values() for one in note.workers])[
                0
            ].lane_until_us:
                await app.store.log.wait(app.position, 0.05)
                await asyncio.sleep(0)
    until_us = told[0].lane_until_us

    assert told[0].status == "lane paused"
    assert until_us is not None
    assert 500 < until_us / 1_000_000 - time.time() < 700


def link(position: int, cause: int | None) -> Link:
    return Link(Entry(position, "a/b", None, 0, None, None, cause is not None), cause)


def test_each_message_stands_below_its_cause_in_the_order_of_the_log() -> None:
    steps = in_depth([link(1, None), link(2, 1), link(3, 1), link(4, 2), link(5, 99)])

    assert [(step.entry.position, step.depth) for step in steps] == [(1, 0), (2, 1), (4, 2), (3, 1), (5, 0)]


def test_a_long_chain_is_indented_only_so_far() -> None:
    steps = in_depth([link(number, number - 1 or None) for number in range(1, 200)])

    assert [step.entry.position for step in steps] == list(range(1, 200))
    assert max(step.depth for step in steps) == DEPTH_MAX

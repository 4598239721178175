"""One job: what happened to it, why it waits, what it works on, and the chain that it stands in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from journeyman.doors.console.bulk import Decision, command_for
from journeyman.doors.console.chains import Step, chain_of
from journeyman.doors.console.console import PATH, Console, deciding
from journeyman.doors.console.index.job_effects import ATTEMPT_ENDS
from journeyman.doors.console.index.reader import JobEvent, TooSlow
from journeyman.doors.console.index.threads import NotIndexed
from journeyman.doors.console.waiting import Reason, reasons
from journeyman.doors.web.answers import Page, SeeOther
from journeyman.doors.web.forms import Form
from journeyman.doors.web.headers import POSITION_MAX
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.doors.web.submitting import submit
from journeyman.errors import NotFound
from journeyman.message import Message
from journeyman.tables import AppState
from journeyman.todo.jobs import JobRow
from journeyman.todo.ledger import jobs_state
from journeyman.todo.overview import Wait, wait_of

#: How many events of a job are shown: the last ones.
EVENTS_MAX: Final = 200

#: The fields of the protocol's messages that say why.
_WHY: Final = ("error", "reason")


class JobQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which job. `at` is a position that the page must show at least."""

    worker: str
    job: str
    at: Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)] | None = None


class Decided(msgspec.Struct, frozen=True):
    """What a person decides about the job."""

    worker: str
    job: str
    decision: Decision
    reason: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to the job: an attempt from its beginning to its end, or one event.

    `lasted_us` is how long an attempt took, None for one that runs, or that began before what is shown. `share` is that
    length beside the longest one, from 0 to 100.
    """

    event: str
    position: int
    at_us: int
    name: str | None = None
    actor: str | None = None
    why: str | None = None
    attempt: int | None = None
    instance: str | None = None
    began_at: int | None = None
    lasted_us: int | None = None
    pause_s: float | None = None
    share: int = 0


class Found(msgspec.Struct, frozen=True):
    """What the state says of a job: nothing, once it is over."""

    row: JobRow | None
    wait: Wait | None


def jobs_handlers(console: Console) -> list[HTTPRouteHandler]:
    """A job's page, and the decisions about it."""
    reader = QueryStringReader(JobQuery)

    @get("/job")
    async def job(request: Request[Any, Any, Any]) -> Page:
        wanted = reader.read(request.scope["query_string"])
        await console.see(wanted.at)
        return await _job_page(console, request, wanted)

    @post("/job/decide")
    async def decide(request: Request[Any, Any, Any]) -> SeeOther:
        form = await console.form_of_operator(request)
        with deciding():
            decided = form.read(Decided)
            reason = decided.reason or "decided in the console"
            command = command_for(decided.decision, decided.worker, decided.job, reason)
            receipt = await submit(console.app, request, form, command)
        return SeeOther(f"{PATH}/job", at=receipt.position, worker=decided.worker, job=decided.job)

    return [job, decide]


async def _job_page(console: Console, request: Request[Any, Any, Any], wanted: JobQuery) -> Page:
    app = console.app
    found = await app.state(lambda state: _find(state, wanted, console.now_us))
    events = await _events(console, wanted)
    opened_at = _opened_at(found.row, events)
    if opened_at is None:
        raise NotFound(f"{wanted.worker} has, or had, no job {wanted.job}, as far as the index reaches.")
    messages = await _messages(console, [opened_at, *(event.position for event in events)])
    opening = messages.get(opened_at)
    notes = (await app.instances()).values()
    waits: list[Reason] = []
    if found.row is not None and found.wait is not None:
        waits = reasons(found.row, found.wait, notes)
    chain: list[Step] = [] if opening is None else await chain_of(console, opening.correlation_id)
    return await console.page(
        request,
        "job.html",
        wanted=wanted,
        row=found.row,
        waits=waits,
        over=events[-1].event if found.row is None and events else None,
        timeline=timeline(events, messages),
        opening=opening,
        answer=_answer(events, messages),
        chain=chain,
        form=Form(),
        own={opened_at, *(event.position for event in events if event.event == "answered")},
    )


def _find(state: AppState, wanted: JobQuery, now_us: int) -> Found:
    jobs = jobs_state(state)
    row = jobs.jobs.get((wanted.worker, wanted.job))
    return Found(row, None if row is None else wait_of(jobs, row, now_us=now_us))


async def _events(console: Console, wanted: JobQuery) -> list[JobEvent]:
    await console.index.gather()
    try:
        return await console.index.ask(lambda index: index.history(wanted.worker, wanted.job, limit=EVENTS_MAX))
    except (NotIndexed, TooSlow):
        return []


def _opened_at(row: JobRow | None, events: Sequence[JobEvent]) -> int | None:
    """Where its input is: a key may have been used for several jobs, one after the other."""
    if row is not None:
        return row.opened_at
    return next((event.position for event in reversed(events) if event.event == "opened"), None)


async def _messages(console: Console, positions: Sequence[int]) -> Mapping[int, Message[Any]]:
    wanted = sorted(set(positions))
    found = await console.app.messages.get_each(wanted)
    return {message.position: message for message in found if message is not None}


def _answer(events: Sequence[JobEvent], messages: Mapping[int, Message[Any]]) -> Message[Any] | None:
    """The application's own message that ended the job."""
    if not events or events[-1].event != "answered":
        return None
    return messages.get(events[-1].position)


def timeline(events: Sequence[JobEvent], messages: Mapping[int, Message[Any]]) -> list[Happening]:
    """The events in order, with each attempt as one from its beginning to its end."""
    begun: dict[int | None, JobEvent] = {}
    found: list[Happening] = []
    for event in events:
        if event.event == "started":
            begun[event.position] = event
            continue
        start = begun.pop(event.fence, None) if event.event in ATTEMPT_ENDS else None
        found.append(_happening(event, start, messages))
    found += [_happening(start, start, messages) for start in begun.values()]
    longest = max((one.lasted_us or 0 for one in found), default=0)
    return [msgspec.structs.replace(one, share=_share(one.lasted_us, longest)) for one in found]


def _share(lasted_us: int | None, longest_us: int) -> int:
    return 0 if not lasted_us or not longest_us else max(1, round(100 * lasted_us / longest_us))


def _happening(event: JobEvent, start: JobEvent | None, messages: Mapping[int, Message[Any]]) -> Happening:
    message = messages.get(event.position)
    started = messages.get(start.position) if start is not None else None
    is_over = event is not start
    return Happening(
        event="running" if not is_over else event.event,
        position=event.position,
        at_us=event.recorded_at_us,
        name=None if message is None else message.name,
        actor=None if message is None else message.actor,
        why=_why(message) if is_over else None,
        attempt=getattr(started.body, "attempt", None) if started is not None else None,
        instance=getattr(started.body, "instance", None) if started is not None else None,
        began_at=None if start is None else start.position,
        lasted_us=event.recorded_at_us - start.recorded_at_us if start is not None and is_over else None,
        pause_s=getattr(message.body, "retry_after_s", None) if message is not None else None,
    )


def _why(message: Message[Any] | None) -> str | None:
    """What the message says of why: in its body, if it is the protocol's, or beside it, if it is an answer."""
    if message is None:
        return None
    if not message.name.startswith("journeyman/"):
        return message.meta.error
    return next((getattr(message.body, field) for field in _WHY if hasattr(message.body, field)), None)

"""The state: its tables, row by row, as they are or as they were; and what changed between two positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar import Request, get, post
from litestar.handlers import HTTPRouteHandler

from journeyman.doors.console.browsing import Look, RowPage, facts_of, page_by_index, page_by_key, row_at, write_key
from journeyman.doors.console.changes import TableChanges
from journeyman.doors.console.console import PATH, Console, deciding
from journeyman.doors.console.past import Moment, Travel
from journeyman.doors.web.answers import Page, SeeOther
from journeyman.doors.web.headers import POSITION_MAX
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.errors import NotFound
from journeyman.tables import AppState

T = TypeVar("T")

#: How long a page waits for a state of the past before it shows how far it is, in seconds.
ARRIVE_S: Final = 0.4

Position = Annotated[int, msgspec.Meta(ge=0, le=POSITION_MAX)]


class StateQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which table, of the live state or as of a position; and which page of it, in key order or by an index."""

    as_of: Position | None = None
    table: str | None = None
    order: str = ""
    offset: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    after: str | None = None
    before: str | None = None


class RowQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which row: by its key, in JSON or, where that is one text, as it is."""

    table: str
    key: str
    as_of: Position | None = None


class ChangesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between which positions."""

    since: Position = 0
    as_of: Position | None = None


class Way(msgspec.Struct, frozen=True):
    """Which state of the past is computed; with `since`, to compare."""

    as_of: Position
    since: Position | None = None

    @property
    def moment(self) -> Moment:
        return Moment(self.as_of, self.since)


def state_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The tables, their rows, and the past."""
    return [*_looking(console), *_comparing(console)]


def _looking(console: Console) -> list[HTTPRouteHandler]:
    states, rows = QueryStringReader(StateQuery), QueryStringReader(RowQuery)

    @get("/state")
    async def state(request: Request[Any, Any, Any]) -> Page:
        wanted = states.read(request.scope["query_string"])
        travel = await _travel(console, wanted.as_of)
        if travel is not None and travel.standing != "done":
            return await _travel_page(console, request, travel)
        look = _look(console, travel)
        if wanted.table is None:
            return await console.page(request, "state.html", wanted=wanted, tables=await look(facts_of))
        return await _table_page(console, request, wanted, look)

    @get("/state/row")
    async def row(request: Request[Any, Any, Any]) -> Page:
        wanted = rows.read(request.scope["query_string"])
        travel = await _travel(console, wanted.as_of)
        if travel is not None and travel.standing != "done":
            return await _travel_page(console, request, travel)
        key, found = await row_at(_look(console, travel), *_place(wanted.table), wanted.key)
        return await console.page(request, "row.html", wanted=wanted, key=write_key(key), fields=_fields(found))

    return [state, row]


def _comparing(console: Console) -> list[HTTPRouteHandler]:
    changes, moments = QueryStringReader(ChangesQuery), QueryStringReader(Way)

    @get("/state/changes")
    async def changed(request: Request[Any, Any, Any]) -> Page:
        wanted = changes.read(request.scope["query_string"])
        until = console.app.position if wanted.as_of is None else wanted.as_of
        travel = await console.past.arrive(Moment(until, wanted.since), timeout_s=ARRIVE_S)
        if travel.standing != "done":
            return await _travel_page(console, request, travel)
        tables: list[TableChanges] = [one for one in travel.changes if one.total]
        return await console.page(request, "changes.html", moment=travel.moment, tables=tables)

    @get("/state/travel")
    async def progress(request: Request[Any, Any, Any]) -> Page:
        """How far the way to a moment is: asked for again and again; at its end the page is loaded again."""
        travel = console.past.find(moments.read(request.scope["query_string"]).moment)
        if travel is None or travel.standing != "under way":
            return Page("", headers={"HX-Refresh": "true"})
        return await console.page(request, "travel_part.html", travel=travel)

    @post("/state/cancel")
    async def cancel(request: Request[Any, Any, Any]) -> SeeOther:
        form = await console.form_of_operator(request)
        with deciding():
            console.past.cancel(form.read(Way).moment)
        return SeeOther(f"{PATH}/state")

    return [changed, progress, cancel]


async def _travel(console: Console, as_of: int | None) -> Travel | None:
    return None if as_of is None else await console.past.arrive(Moment(as_of), timeout_s=ARRIVE_S)


def _look(console: Console, travel: Travel | None) -> Look:
    """Looks at the live state, or at the one that was."""
    if travel is None:
        return console.app.state

    async def look(question: Callable[[AppState], T], /) -> T:
        assert travel.state is not None
        return question(travel.state)

    return look


async def _travel_page(console: Console, request: Request[Any, Any, Any], travel: Travel) -> Page:
    return await console.page(request, "travel.html", travel=travel)


async def _table_page(console: Console, request: Request[Any, Any, Any], wanted: StateQuery, look: Look) -> Page:
    feature, name = _place(wanted.table or "")
    facts = next((one for one in await look(facts_of) if (one.feature, one.name) == (feature, name)), None)
    if facts is None:
        raise NotFound(f"There is no table {wanted.table}.")
    shown = await _rows(wanted, look)
    rows = [(write_key(key), [getattr(row, field) for field in facts.fields]) for key, row in shown.rows]
    return await console.page(request, "table.html", wanted=wanted, facts=facts, shown=shown, rows=rows)


async def _rows(wanted: StateQuery, look: Look) -> RowPage:
    feature, name = _place(wanted.table or "")
    if wanted.order:
        return await page_by_index(look, feature, name, wanted.order, offset=wanted.offset)
    return await page_by_key(look, feature, name, after=wanted.after, before=wanted.before)


def _place(table: str) -> tuple[str, str]:
    """The feature and the name of a table."""
    feature, _, name = table.rpartition("/")
    return feature, name


def _fields(row: Any) -> list[tuple[str, Any]]:
    return [(field, getattr(row, field)) for field in row.__struct_fields__]

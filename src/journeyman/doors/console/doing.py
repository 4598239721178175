"""Doing: a form for every command, and one for every query with its answer."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
from litestar import Request, get, post
from litestar.datastructures import MultiDict
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from journeyman.doors.console.console import PATH, Console
from journeyman.doors.console.fields import Field, blank, fields_of, spread
from journeyman.doors.console.wording import pretty
from journeyman.doors.web.answers import Answer, Page, SeeOther
from journeyman.doors.web.exposed import exposed_commands, exposed_queries
from journeyman.doors.web.forms import Form, WrongForm
from journeyman.doors.web.problems import refusal_of
from journeyman.doors.web.submitting import submit
from journeyman.errors import JourneymanError, UnknownName
from journeyman.feature import CommandType, QueryType

#: The field that tells a query that is asked from one that is only looked at.
ASKED = "_asked"


class Listed(msgspec.Struct, frozen=True):
    """A command or query in the list."""

    name: str
    about: str
    path: str


class Features(msgspec.Struct, frozen=True):
    """What can be done in one feature."""

    name: str
    commands: list[Listed]
    queries: list[Listed]


def doing_handlers(console: Console) -> list[HTTPRouteHandler]:
    """The list of what can be done, and the forms."""
    return [_listing(console), *_commands(console), *_queries(console)]


def _listing(console: Console) -> HTTPRouteHandler:
    @get("/do")
    async def do(request: Request[Any, Any, Any]) -> Page:
        return await console.page(request, "do.html", features=_features(console))

    return do


def _features(console: Console) -> list[Features]:
    catalog = console.app.catalog
    commands = [(one.name, one.message_type.body, "command") for one in exposed_commands(catalog)]
    queries = [(one.name, one.query, "query") for one in exposed_queries(catalog)]
    found: dict[str, Features] = {}
    for name, cls, kind in (*commands, *queries):
        feature = found.setdefault(name.partition("/")[0], Features(name.partition("/")[0], [], []))
        listed = Listed(name, about(cls), f"{PATH}/do/{kind}/{name}")
        (feature.commands if kind == "command" else feature.queries).append(listed)
    return sorted(found.values(), key=lambda one: (one.name.startswith("journeyman"), one.name))


def _commands(console: Console) -> list[HTTPRouteHandler]:
    known = {one.name: one for one in exposed_commands(console.app.catalog)}

    async def page(
        request: Request[Any, Any, Any], kind: CommandType, fields: list[Field], form: Form, *, status: int = 200
    ) -> Page:
        told = {"doing": kind.name, "about": about(kind.message_type.body), "fields": fields, "form": form}
        return await console.page(request, "command.html", status=status, **told)

    @get("/do/command/{feature:str}/{name:str}")
    async def show(request: Request[Any, Any, Any], feature: FromPath[str], name: FromPath[str]) -> Page:
        kind = _known("command", known, feature, name)
        fields = fields_of(kind.message_type.body, subject=kind.subject_field)
        return await page(request, kind, fields, blank(fields))

    @post("/do/command/{feature:str}/{name:str}")
    async def execute(request: Request[Any, Any, Any], feature: FromPath[str], name: FromPath[str]) -> Answer:
        kind = _known("command", known, feature, name)
        fields = fields_of(kind.message_type.body, subject=kind.subject_field)
        form = spread(await console.form_of_operator(request), fields)
        try:
            receipt = await submit(console.app, request, form, form.read(kind.message_type.body))
        except WrongForm as wrong:
            return await page(request, kind, fields, wrong.form, status=wrong.status)
        return SeeOther(f"{PATH}/log/{receipt.position}", recorded=receipt.position)

    return [show, execute]


def _queries(console: Console) -> list[HTTPRouteHandler]:
    known = {one.name: one for one in exposed_queries(console.app.catalog)}

    @get("/do/query/{feature:str}/{name:str}")
    async def ask(request: Request[Any, Any, Any], feature: FromPath[str], name: FromPath[str]) -> Page:
        kind = _known("query", known, feature, name)
        fields = fields_of(kind.query)
        given = form_of(request.query_params)
        told: dict[str, Any] = {"doing": kind.name, "about": about(kind.query), "fields": fields}
        if ASKED not in given.values:
            return await console.page(request, "query.html", form=blank(fields), answer=None, **told)
        form = spread(given, fields)
        try:
            answer = await _answer(console, kind, form)
        except WrongForm as wrong:
            return await console.page(request, "query.html", status=wrong.status, form=wrong.form, answer=None, **told)
        return await console.page(request, "query.html", form=form, answer=answer, **told)

    return [ask]


def form_of(params: MultiDict[str]) -> Form:
    """The values of a query string as a form."""
    return Form(values={name: tuple(map(str, params.getall(name))) for name in params})


async def _answer(console: Console, kind: QueryType, form: Form) -> str:
    """The answer as indented JSON.

    Raises:
        WrongForm: fields are wrong, or the application says why there is no answer.
    """
    question = form.read(kind.query)
    try:
        found = await console.app.query(question)
    except JourneymanError as error:
        refused = refusal_of(error).problem
        raise WrongForm(msgspec.structs.replace(form, problem=refused.detail), status=refused.status) from error
    return pretty(msgspec.json.encode(msgspec.to_builtins(found, str_keys=True)))


def _known(what: str, known: dict[str, Any], feature: str, name: str) -> Any:
    found = known.get(f"{feature}/{name}")
    if found is None:
        raise UnknownName(what, f"{feature}/{name}", list(known))
    return found


def about(cls: type[Any]) -> str:
    """What the class's own docstring says."""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")

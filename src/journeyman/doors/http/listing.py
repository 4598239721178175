"""`GET /commands` and `GET /queries`: what can be asked of the application, with JSON Schemas."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from journeyman.doors.http.answers import JsonAnswer
from journeyman.doors.web.exposed import exposed_commands, exposed_queries, result_type
from journeyman.feature import Catalog, CommandType, QueryType


class CommandListing(msgspec.Struct, frozen=True):
    """One command. `subject` is the field that says what it is about."""

    name: str
    description: str
    version: int
    subject: str | None
    schema: dict[str, Any]


class QueryListing(msgspec.Struct, frozen=True):
    """One query: the schema of its fields and, where it can be told, of its answer."""

    name: str
    description: str
    schema: dict[str, Any]
    answer: dict[str, Any]


def listing_handlers(catalog: Catalog) -> list[HTTPRouteHandler]:
    """The handlers of the two lists."""
    commands = [_command(command) for command in exposed_commands(catalog)]
    queries = [_query(query) for query in exposed_queries(catalog)]

    @get("/commands")
    async def list_commands(request: Request[Any, Any, Any]) -> JsonAnswer:
        return JsonAnswer(commands)

    @get("/queries")
    async def list_queries(request: Request[Any, Any, Any]) -> JsonAnswer:
        return JsonAnswer(queries)

    return [list_commands, list_queries]


def description_of(cls: type[Any]) -> str:
    """The class's own docstring, of one paragraph or more."""
    return inspect.cleandoc(cls.__dict__.get("__doc__") or "")


def _command(command: CommandType) -> CommandListing:
    kind = command.message_type
    return CommandListing(
        name=command.name,
        description=description_of(kind.body),
        version=kind.version,
        subject=command.subject_field,
        schema=msgspec.json.schema(kind.body),
    )


def _query(query: QueryType) -> QueryListing:
    return QueryListing(
        name=query.name,
        description=description_of(query.query),
        schema=msgspec.json.schema(query.query),
        answer=schema_of_answer(query),
    )


def schema_of_answer(query: QueryType) -> dict[str, Any]:
    """The schema of a query's answer; one that fits everything where msgspec knows none."""
    try:
        return msgspec.json.schema(result_type(query.query))
    except TypeError:
        return {}

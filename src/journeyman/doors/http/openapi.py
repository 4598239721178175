"""`GET /openapi.json`: the door described in OpenAPI 3.1, from the same schemas that decide what is taken."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from journeyman import WorkerStatus
from journeyman.doors.http import commands, queries
from journeyman.doors.http.answers import JsonAnswer
from journeyman.doors.http.commands import Recorded
from journeyman.doors.http.listing import CommandListing, QueryListing, description_of
from journeyman.doors.http.log import LogEntry, LogRange, StreamStart
from journeyman.doors.web.admission import OPEN_PATHS
from journeyman.doors.web.asgi import MOUNTED_AT
from journeyman.doors.web.exposed import exposed_commands, exposed_queries, result_type
from journeyman.doors.web.problems import CONTENT_TYPE, Problem
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.feature import Catalog
from journeyman.pending import TEXT_LENGTH_MAX

#: Where the document keeps the schemas.
_REF: Final = "#/components/schemas/{name}"

Json = dict[str, Any]


def openapi_handler(catalog: Catalog) -> HTTPRouteHandler:
    """The handler of the description."""
    document = describe(catalog)

    @get("/openapi.json")
    async def openapi(request: Request[Any, Any, Any]) -> JsonAnswer:
        mounted_at = request.scope.get(MOUNTED_AT)
        return JsonAnswer({**document, "servers": [{"url": mounted_at}]} if mounted_at else document)

    return openapi


def describe(catalog: Catalog) -> Json:
    """The whole document."""
    schemas = _Schemas(catalog)
    paths: Json = {**_command_paths(catalog, schemas), **_query_paths(catalog, schemas), **_fixed_paths(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Journeyman", "version": version("journeyman")},
        "paths": _guarded(paths),
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Problem": {
                    "description": "What is wrong (RFC 9457).",
                    "content": {CONTENT_TYPE: {"schema": schemas.of(Problem)}},
                }
            },
        },
    }


def _guarded(paths: Json) -> Json:
    """The paths, with what the guard in front of all of them may answer, and what lets one through it."""
    for path, operations in paths.items():
        for operation in operations.values():
            answered = (400, 421) if path in OPEN_PATHS else (400, 401, 403, 421, 429)
            operation["responses"] |= _problems(*answered)
            operation["security"] = [{}] if path in OPEN_PATHS else [{}, {"token": []}]
    return paths


class _Schemas:
    """The schema of every type that the document names, those of structs by reference."""

    def __init__(self, catalog: Catalog) -> None:
        types: list[Any] = [command.message_type.body for command in exposed_commands(catalog)]
        for query in exposed_queries(catalog):
            types += [query.query, result_type(query.query)]
        self._types = [*filter(_has_schema, types), *_OWN_TYPES]
        schemas, self.components = msgspec.json.schema_components(self._types, ref_template=_REF)
        self._schemas = list(schemas)

    def of(self, kind: Any) -> Json:
        """The schema of a type; one that fits everything where msgspec knows none."""
        return self._schemas[self._types.index(kind)] if kind in self._types else {}

    def fields(self, kind: type[msgspec.Struct]) -> Json:
        """The schemas of a struct's fields, by name."""
        name = self.of(kind)["$ref"].rpartition("/")[2]
        fields: Json = self.components[name]["properties"]
        return fields


def _has_schema(kind: Any) -> bool:
    try:
        msgspec.json.schema(kind)
    except TypeError:
        return False
    return True


def _command_paths(catalog: Catalog, schemas: _Schemas) -> Json:
    return {
        commands.PREFIX + command.name: {
            "post": {
                **_texts(command.message_type.body, command.name),
                "tags": ["commands"],
                "parameters": [_header("Idempotency-Key", "The same key and command are recorded once.", _TEXT)],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": schemas.of(command.message_type.body)}},
                },
                "responses": {
                    "201": _json_response(
                        "Recorded, durably: now, or before under the same key.", schemas.of(Recorded)
                    ),
                    **_problems(400, 403, 409, 413, 415, 422, 500, 503),
                },
            }
        }
        for command in exposed_commands(catalog)
    }


def _query_paths(catalog: Catalog, schemas: _Schemas) -> Json:
    at_least = _header("Journeyman-At-Least", "The answer is to hold all up to this position.", _POSITION)
    return {
        queries.PREFIX + query.name: {
            "get": {
                **_texts(query.query, query.name),
                "tags": ["queries"],
                "parameters": [*_parameters(query.query, schemas), at_least],
                "responses": {
                    "200": {
                        **_json_response("The answer.", schemas.of(result_type(query.query))),
                        "headers": _FRESHNESS,
                    },
                    **_problems(400, 404, 422, 500, 503),
                },
            }
        }
        for query in exposed_queries(catalog)
    }


def _fixed_paths(schemas: _Schemas) -> Json:
    """What every application has."""
    text: Json = {"type": "string"}
    entries = {"type": "array", "items": schemas.of(LogEntry)}
    after = _header("Last-Event-ID", "The last position that was received; goes before `after`.", _POSITION)
    return {
        "/commands": _get("The commands, with JSON Schemas.", _list(schemas.of(CommandListing))),
        "/queries": _get("The queries, with JSON Schemas.", _list(schemas.of(QueryListing))),
        "/log": _get("Messages, as recorded.", entries, _parameters(LogRange, schemas), 422, 503),
        "/log/stream": _get(
            "Messages as they are recorded: server-sent events, whose id is the position.",
            text,
            [*_parameters(StreamStart, schemas), after],
            400,
            422,
            503,
            media_type="text/event-stream",
        ),
        "/workers": _get("What each worker is doing.", _list(schemas.of(WorkerStatus)), [], 503),
        "/metrics": _get("What monitors look at.", text, media_type="text/plain"),
        "/health/live": _get("The process answers.", {"type": "object"}),
        "/health/ready": _get("Commands and queries can be answered.", {"type": "object"}, [], 503),
        "/openapi.json": _get("This document.", {"type": "object"}),
    }


def _get(
    summary: str, schema: Json, parameters: Iterable[Json] = (), *problems: int, media_type: str = "application/json"
) -> Json:
    found = {"description": summary, "content": {media_type: {"schema": schema}}}
    responses = {"200": found, **_problems(*problems)}
    return {"get": {"summary": summary, "parameters": list(parameters), "responses": responses}}


def _parameters(kind: type[msgspec.Struct], schemas: _Schemas) -> list[Json]:
    reader = QueryStringReader(kind)
    properties = schemas.fields(kind)
    return [
        {
            "name": name,
            "in": "query",
            "required": field.required,
            **(
                {"content": {"application/json": {"schema": properties[name]}}}
                if reader.forms[name] == "json"
                else {"schema": properties[name]}
            ),
        }
        for name, field in reader.fields.items()
    ]


def _texts(cls: type[Any], name: str) -> Json:
    description = description_of(cls)
    return {
        "operationId": name.replace("/", "."),
        "summary": description.partition("\n\n")[0].replace("\n", " "),
        "description": description,
    }


def _header(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _json_response(description: str, schema: Json) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _problems(*statuses: int) -> Json:
    return {str(status): {"$ref": "#/components/responses/Problem"} for status in statuses}


_OWN_TYPES: Final = (
    Recorded,
    LogEntry,
    LogRange,
    StreamStart,
    CommandListing,
    QueryListing,
    WorkerStatus,
    Problem,
)
_TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH_MAX}
_POSITION: Final[Json] = {"type": "integer", "minimum": 0}
_FRESHNESS: Final[Json] = {
    "Journeyman-Position": {"description": "The answer holds all up to this position.", "schema": _POSITION},
    "Journeyman-Age": {
        "description": "For how long the store has not answered, in seconds; only while it does not.",
        "schema": {"type": "number"},
    },
}

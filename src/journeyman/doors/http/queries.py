"""`GET /queries/{feature}/{name}`: one handler for each query."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from journeyman.app import App
from journeyman.doors.http.answers import JsonAnswer, freshness
from journeyman.doors.web.exposed import exposed_queries
from journeyman.doors.web.headers import position
from journeyman.doors.web.query_strings import QueryStringReader
from journeyman.feature import QueryType

PREFIX: Final = "/queries/"

#: How long a query waits for the position that it asks for, in seconds.
AT_LEAST_S: Final = 5.0


def query_handlers(app: App) -> list[HTTPRouteHandler]:
    """A handler for each query."""
    return [_handler(app, query) for query in exposed_queries(app.catalog)]


def _handler(app: App, query: QueryType) -> HTTPRouteHandler:
    reader = QueryStringReader(query.query)

    async def ask(request: Request[Any, Any, Any]) -> JsonAnswer:
        at_least = position(request.scope, b"journeyman-at-least")
        question = reader.read(request.scope["query_string"])
        # Before the answer, not after: the answer holds at least what was settled now.
        settled = app.position
        answer = await app.query(question, at_least=at_least, timeout_s=AT_LEAST_S)
        return JsonAnswer(answer, headers=freshness(app, max(settled, at_least or 0)))

    return get(PREFIX + query.name)(ask)

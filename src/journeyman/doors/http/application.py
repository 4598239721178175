"""The door put together: handlers, what becomes of errors, and the guard in front."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler

from journeyman.app import App
from journeyman.doors.http import commands, queries
from journeyman.doors.http.commands import command_handlers
from journeyman.doors.http.health import health_handlers
from journeyman.doors.http.listing import listing_handlers
from journeyman.doors.http.log import log_handlers
from journeyman.doors.http.metrics import metrics_handler
from journeyman.doors.http.openapi import openapi_handler
from journeyman.doors.http.queries import query_handlers
from journeyman.doors.web.admission import ActorOf, Mounted
from journeyman.doors.web.answers import problem_answer
from journeyman.doors.web.asgi import ASGIApp, Scope
from journeyman.doors.web.exposed import exposed_commands, exposed_queries
from journeyman.doors.web.guard import LOOPBACK_HOSTS, AnswerTo, Guard
from journeyman.doors.web.observed import Observed
from journeyman.doors.web.problems import (
    BAD_REQUEST,
    METHOD_NOT_ALLOWED,
    UNKNOWN_PATH,
    Refused,
    refusal_of,
)
from journeyman.doors.web.streams import Streams
from journeyman.errors import UnknownName

#: Up to how many known names an answer lists when a name is unknown.
NAMES_LISTED_MAX = 50


def http_app(
    app: App,
    *,
    allowed_hosts: Iterable[str] = LOOPBACK_HOSTS,
    actor_of: ActorOf = lambda _: "http",
) -> ASGIApp:
    """The HTTP door of an application, as plain ASGI: to mount into another application, or to serve.

    It neither starts nor stops the application: whoever serves it does, by `async with app.running()`.

    Args:
        allowed_hosts: the names, without port, under which clients may ask for it.
        actor_of: who sends a command, of the ASGI scope: recorded with it.
    """
    litestar = Litestar(
        http_handlers(app, Streams()),
        exception_handlers={Exception: Refusals(app)},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    admission = Mounted(actor_of, keys=lambda: app.store.keys)
    observed = Observed(app.meter, app.tracing)
    return Guard(cast(ASGIApp, litestar), allowed_hosts=allowed_hosts, admission=admission, observed=observed)


def http_handlers(app: App, streams: Streams) -> list[HTTPRouteHandler]:
    """The door's handlers: for a door by itself, or for a site that has others, too."""
    return [
        *command_handlers(app),
        *query_handlers(app),
        *listing_handlers(app.catalog),
        *log_handlers(app, streams),
        *health_handlers(app, streams),
        metrics_handler(app, streams),
        openapi_handler(app.catalog),
    ]


class Refusals:
    """Answers whatever a request raised: by problem documents, unless another `answer` is given."""

    def __init__(self, app: App, *, answer: AnswerTo = problem_answer) -> None:
        self._answer = answer
        self._names = {
            commands.PREFIX: ("command", [command.name for command in exposed_commands(app.catalog)]),
            queries.PREFIX: ("query", [query.name for query in exposed_queries(app.catalog)]),
        }

    def __call__(self, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        refused = self._routing(request, error) if isinstance(error, HTTPException) else refusal_of(error)
        answer = self._answer(cast(Scope, request.scope), refused)
        return Response(
            answer.body,
            status_code=answer.status,
            headers=dict(answer.headers),
            media_type=answer.media_type.partition(";")[0],  # litestar adds the character set itself.
        )

    def _routing(self, request: Request[Any, Any, Any], error: HTTPException) -> Refused:
        """The router's own errors: the handlers raise none of this kind."""
        path = request.scope["path"]
        if isinstance(error, MethodNotAllowedException):
            return Refused(METHOD_NOT_ALLOWED, "See the header Allow.", headers=dict(error.headers or {}))
        if not isinstance(error, NotFoundException):
            return (
                Refused(BAD_REQUEST, "The request can't be understood.")
                if error.status_code < 500
                else refusal_of(error)
            )
        for prefix, (kind, names) in self._names.items():
            if path.startswith(prefix):
                listed = names if len(names) <= NAMES_LISTED_MAX else ()
                return refusal_of(UnknownName(kind, path.removeprefix(prefix)[:200], listed))
        return Refused(UNKNOWN_PATH, "See /openapi.json for what there is.")

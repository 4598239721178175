"""`GET /health/live`, `/health/ready` and `/workers`: how the application is.

Where tokens are set up, the health checks are open all the same, since what asks for them has none; who has shown no
token learns only whether all is well.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from journeyman.app import App
from journeyman.doors.http.answers import JsonAnswer
from journeyman.doors.web.access import NOBODY, access_of
from journeyman.doors.web.problems import NOT_READY, NOT_RUNNING, busy, refusal_of
from journeyman.doors.web.streams import Streams

#: How long the state may take to answer while the application counts as ready, in seconds.
READY_S: Final = 1.0


def health_handlers(app: App, streams: Streams) -> list[HTTPRouteHandler]:
    """The handlers of the health checks and of the workers' status."""

    @get("/health/live")
    async def live(request: Request[Any, Any, Any]) -> JsonAnswer:
        return JsonAnswer({"status": "live"})

    @get("/health/ready")
    async def ready(request: Request[Any, Any, Any]) -> JsonAnswer:
        is_known = access_of(request.scope) is not NOBODY
        try:
            await _check(app, streams)
        except Exception as error:
            raise refusal_of(error) if is_known else busy("It is not ready.", kind=NOT_READY) from error
        return JsonAnswer({"status": "ready", "position": app.position} if is_known else {"status": "ready"})

    @get("/workers")
    async def workers(request: Request[Any, Any, Any]) -> JsonAnswer:
        return JsonAnswer(await app.workers())

    return [live, ready, workers]


async def _check(app: App, streams: Streams) -> None:
    """Refuse when queries can't be answered, or the store stalls: the application's own errors say why."""
    if streams.ending:
        raise busy("The server is stopping.", kind=NOT_RUNNING)
    try:
        async with asyncio.timeout(READY_S):
            await app.state(lambda _: None)
    except TimeoutError:
        raise busy(f"The state did not answer within {READY_S:g} s.", kind=NOT_READY) from None
    if (stalled_s := app.stalled_s) is not None:
        raise busy(f"The store has not answered for {stalled_s:.1f} s.", kind=NOT_READY)

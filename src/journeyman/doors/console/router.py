"""The console's routes."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request, Router, get

from journeyman.app import App
from journeyman.doors.web.answers import Page
from journeyman.doors.web.streams import Streams
from journeyman.doors.web.templates import Templates

PATH: Final = "/console"

templates: Final = Templates(__name__.rpartition(".")[0], path=PATH)


def console_router(app: App, streams: Streams) -> Router:
    """The console of an application, at its path."""

    @get("/")
    async def workers(request: Request[Any, Any, Any]) -> Page:
        return templates.page(request, "workers.html", position=app.position, workers=await app.workers())

    return Router(PATH, route_handlers=[workers, templates.assets.handler()])

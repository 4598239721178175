"""The console's routes."""

from __future__ import annotations

from litestar import Router

from journeyman.app import App
from journeyman.doors.console.console import PATH, Console, templates
from journeyman.doors.console.doing import doing_handlers
from journeyman.doors.console.jobs import jobs_handlers
from journeyman.doors.console.log import log_handlers
from journeyman.doors.console.overview import overview_handlers
from journeyman.doors.console.state import state_handlers
from journeyman.doors.console.store import store_handlers
from journeyman.doors.console.workers import workers_handlers
from journeyman.doors.web.streams import Streams


def console_router(app: App, streams: Streams) -> Router:
    """The console of an application, at its path."""
    console = Console(app, streams)
    handlers = [
        *overview_handlers(console),
        *workers_handlers(console),
        *jobs_handlers(console),
        *log_handlers(console),
        *state_handlers(console),
        *doing_handlers(console),
        *store_handlers(console),
    ]
    return Router(PATH, route_handlers=[*handlers, templates.assets.handler()])

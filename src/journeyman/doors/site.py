"""The whole site of an application: the JSON door, the console at /console, and the application's own pages."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final, cast

from litestar import Litestar, Request, Router, get
from litestar.di import Provide

from journeyman.app import App
from journeyman.doors.console import console_router
from journeyman.doors.http.application import Refusals, http_handlers
from journeyman.doors.web import error_pages
from journeyman.doors.web.admission import ActorOf, Admission, Mounted
from journeyman.doors.web.answers import SeeOther
from journeyman.doors.web.asgi import ASGIApp
from journeyman.doors.web.guard import LOOPBACK_HOSTS, Guard
from journeyman.doors.web.observed import Observed
from journeyman.doors.web.sign_in import SignIn
from journeyman.doors.web.streams import Streams
from journeyman.doors.web.templates import COMMON_ASSETS
from journeyman.errors import DefinitionError

CONSOLE: Final = "/console"


def site_app(
    app: App, *, allowed_hosts: Iterable[str] = LOOPBACK_HOSTS, actor_of: ActorOf = lambda _: "http"
) -> ASGIApp:
    """The site, as plain ASGI: to mount into another application, or to serve. Its links hold under any prefix.

    It neither starts nor stops the application: whoever serves it does, by `async with app.running()`.

    Args:
        allowed_hosts: the names, without port, under which clients may ask for it.
        actor_of: who asks, of the ASGI scope: recorded with commands.

    Raises:
        DefinitionError: pages that the application names can't be had.
    """
    admission = Mounted(actor_of, keys=lambda: app.store.keys)
    return build(app, streams=Streams(), allowed_hosts=allowed_hosts, admission=admission)


def build(
    app: App,
    *,
    streams: Streams,
    allowed_hosts: Iterable[str],
    admission: Admission,
    sign_in: SignIn | None = None,
) -> ASGIApp:
    """Like `site_app`, with streams that the caller can end, and with whom it lets in."""
    pages = [load_pages(name) for name in app.pages] or [Router("/", route_handlers=[_to_the_console])]
    litestar = Litestar(
        [
            *http_handlers(app, streams),
            console_router(app, streams),
            COMMON_ASSETS.handler(),
            *pages,
        ],
        dependencies={"app": _provide(app), "streams": _provide(streams)},
        exception_handlers={Exception: Refusals(app, answer=error_pages.answer)},
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return Guard(
        cast(ASGIApp, litestar),
        allowed_hosts=allowed_hosts,
        admission=admission,
        sign_in=sign_in,
        answer=error_pages.answer,
        observed=Observed(app.meter, app.tracing),
    )


def load_pages(name: str) -> Router:
    """The router that an application names as `module:attribute`. Its handlers get `app` and `streams` by name.

    Raises:
        DefinitionError: there is no such module or attribute, or it is no router.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise DefinitionError(f"The pages {name!r} can't be had: {error}. Name them as module:attribute.") from error
    if not isinstance(found, Router):
        raise DefinitionError(f"The pages {name!r} are {found!r}; they must be a litestar Router.")
    return found


def _provide(value: Any) -> Provide:
    return Provide(lambda: value, sync_to_thread=False)


@get("/")
async def _to_the_console(request: Request[Any, Any, Any]) -> SeeOther:
    """What an application without pages shows first."""
    return SeeOther(CONSOLE)

"""Requests, as monitors and traces see them: by the template of their path, never by what somebody put into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Final

from journeyman.doors.web.asgi import Scope
from journeyman.meter import Meter
from journeyman.telemetry import NO_TRACING, Tracing
from journeyman.traceparent import taken

if TYPE_CHECKING:
    from opentelemetry.trace import Span

#: The methods that are told apart.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})

#: What is told in place of the others (OpenTelemetry semantic conventions, http.request.method).
OTHER_METHOD: Final = "_OTHER"

#: What is told for a request that reached no route: turned away, or led nowhere.
NO_ROUTE: Final = "none"

#: What is called with the status when an answer begins.
Begun = Callable[[int], None]


class Observed:
    """Counts and traces the requests of one server."""

    def __init__(self, meter: Meter | None = None, tracing: Tracing = NO_TRACING) -> None:
        self._meter = meter or Meter()
        self._tracing = tracing

    @contextmanager
    def request(self, scope: Scope) -> Iterator[Begun]:
        """Around all that answers a request. How long it takes is counted to the beginning of the answer."""
        began_s = perf_counter()
        method = scope["method"] if scope["method"] in _METHODS else OTHER_METHOD

        def begun(status: int) -> None:
            route = scope.get("path_template") or NO_ROUTE
            self._meter.answered(method, route, status, perf_counter() - began_s)
            if span is not None:
                _describe(span, method, route, status)

        with self._tracing.span(method, parent=_traceparent(scope), kind="server") as span:
            yield begun


def _describe(span: Span, method: str, route: str, status: int) -> None:
    """What is told of a request (OpenTelemetry semantic conventions, HTTP server spans)."""
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.request.method": method, "http.route": route, "http.response.status_code": status})


def _traceparent(scope: Scope) -> str | None:
    """The trace that the request belongs to; none when it says several."""
    said = [value for name, value in scope["headers"] if name == b"traceparent"]
    return taken(said[0].decode("latin-1")) if len(said) == 1 else None

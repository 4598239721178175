"""The spans of an application, by OpenTelemetry. Loaded only where the process has loaded that: see telemetry.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from journeyman.traceparent import TRACEPARENT, Attributes, Kind

#: Up to how many commands of one batch its spans name.
LINKS_MAX: Final = 100

_KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER}


class Spans:
    """What begins spans, for whoever collects them."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def here(self) -> str | None:
        """The current span, as a trace parent; None without one."""
        context = trace.get_current_span().get_span_context()
        return _text_of(context) if context.is_valid else None

    def span(
        self, name: str, *, parent: str | None, kind: Kind, attributes: Attributes | None
    ) -> AbstractContextManager[Span]:
        """See Tracing.span."""
        return _span(self._tracer, name, _context_of(parent), _KINDS[kind], attributes)

    def linked(self, name: str, parents: Sequence[str], attributes: Attributes) -> AbstractContextManager[Span]:
        """A span of its own that is linked to others."""
        links = [Link(_span_context(parent)) for parent in parents[:LINKS_MAX]]
        return _span(self._tracer, name, Context(), SpanKind.INTERNAL, attributes, links)

    def failed(self, error: BaseException) -> None:
        """See Tracing.failed."""
        _mark(trace.get_current_span(), error)


def find_spans() -> Spans | None:
    """What begins spans, if this process has set up a tracer provider; else None."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return Spans(provider.get_tracer("journeyman", version("journeyman")))


@contextmanager
def _span(
    tracer: trace.Tracer,
    name: str,
    context: Context | None,
    kind: SpanKind,
    attributes: Attributes | None,
    links: Iterable[Link] = (),
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name,
        context,
        kind,
        attributes,
        list(links),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            _mark(span, error)
            raise


def _mark(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR))


def _context_of(parent: str | None) -> Context | None:
    if parent is None:
        return None
    return trace.set_span_in_context(NonRecordingSpan(_span_context(parent)), Context())


def _span_context(traceparent: str) -> SpanContext:
    match = TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return trace.INVALID_SPAN_CONTEXT
    flags = TraceFlags(int(match["flags"], 16) & TraceFlags.SAMPLED)
    return SpanContext(int(match["trace"], 16), int(match["span"], 16), is_remote=True, trace_flags=flags)


def _text_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"

"""Traces: one, from a request through its command, what follows from it, and the attempt, to the answer.

OpenTelemetry's interface is used, and whatever collects spans is the application's: where nothing does, nothing is
measured. What binds the parts together, the trace parent (W3C Trace Context), travels in the meta of messages, so that
the part that another process plays, an hour later, belongs to the same trace. Names and positions are told, and never
what is in a command or an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from typing import Final, Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from journeyman.message import Meta

#: What a request may bring (W3C Trace Context, 3.2). What does not fit is as if it were not there.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)

#: Up to how many commands of one batch its spans name.
LINKS_MAX: Final = 100

Attributes = Mapping[str, str | int]

#: What came with the request or message that is dealt with now, where this process collects no spans: it is passed on.
_carried: ContextVar[str | None] = ContextVar("journeyman.traceparent", default=None)


class Carrying(Protocol):
    """What was sent with a meta."""

    @property
    def envelope(self) -> Enveloped: ...


class Enveloped(Protocol):
    """An envelope with a meta."""

    @property
    def meta(self) -> Meta: ...


class Tracing:
    """The spans of one application. Whether anything collects them is looked up once, by `begin`."""

    def __init__(self) -> None:
        self._tracer: trace.Tracer | None = None

    def begin(self) -> None:
        """See whether the process has set up a tracer provider by now."""
        provider = trace.get_tracer_provider()
        nothing = isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = None if nothing else provider.get_tracer("journeyman", version("journeyman"))

    @property
    def collects(self) -> bool:
        return self._tracer is not None

    def here(self, cause: Meta | None = None) -> str | None:
        """The trace parent for what is recorded now; else the one that what it follows from has; None without any."""
        if self._tracer is not None:
            context = trace.get_current_span().get_span_context()
            if context.is_valid:
                return _text_of(context)
        return _carried.get() or (cause.traceparent if cause is not None else None)

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
    ) -> AbstractContextManager[Span | None]:
        """A span around a block, below `parent` or, without one, below the current span. None where nothing collects.

        Of an error that leaves the block, its type is told, and not its text.
        """
        if self._tracer is None:
            return _carrying(parent) if parent is not None else nullcontext()
        return _span(self._tracer, name, _context_of(parent), kind, attributes)

    def failed(self, error: BaseException) -> None:
        """What the current span is around has failed, and somebody deals with that."""
        if self._tracer is not None:
            _mark(trace.get_current_span(), error)

    def batch(self, name: str, sent: Iterable[Carrying]) -> AbstractContextManager[Span | None]:
        """A span around what is done for many commands at once: below the only one, or linked to each."""
        if self._tracer is None:
            return nullcontext()
        parents = [parent for one in sent if (parent := one.envelope.meta.traceparent) is not None]
        if not parents:
            return nullcontext()
        count = {"journeyman.commands": len(parents)}
        if len(parents) == 1:
            return self.span(name, parent=parents[0], attributes=count)
        links = [Link(_span_context(parent)) for parent in parents[:LINKS_MAX]]
        return _span(self._tracer, name, Context(), SpanKind.INTERNAL, count, links)


#: For parts that are used without an application.
NO_TRACING: Final = Tracing()


def told(span: Span | None, **facts: str | int) -> None:
    """Add facts to a span, under names of ours."""
    if span is not None:
        span.set_attributes({f"journeyman.{name}": value for name, value in facts.items()})


def taken(traceparent: str | None) -> str | None:
    """A trace parent that came from outside, if it is one."""
    return traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None


@contextmanager
def _carrying(parent: str) -> Iterator[None]:
    token = _carried.set(parent)
    try:
        yield
    finally:
        _carried.reset(token)


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
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return trace.INVALID_SPAN_CONTEXT
    flags = TraceFlags(int(match["flags"], 16) & TraceFlags.SAMPLED)
    return SpanContext(int(match["trace"], 16), int(match["span"], 16), is_remote=True, trace_flags=flags)


def _text_of(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & TraceFlags.SAMPLED:02x}"

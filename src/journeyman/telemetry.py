"""Traces: one, from a request through its command, what follows from it, and the attempt, to the answer.

OpenTelemetry's interface is used, and whatever collects spans is the application's: where nothing does, nothing is
measured. What binds the parts together, the trace parent (W3C Trace Context), travels in the meta of messages, so that
the part that another process plays, an hour later, belongs to the same trace. Names and positions are told, and never
what is in a command or an answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from journeyman.message import Meta
from journeyman.traceparent import Attributes, Kind, is_sampled

if TYPE_CHECKING:  # Importing them takes longer than most commands of the command line do.
    from opentelemetry.trace import Span

    from journeyman.spans import Spans

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
        self._spans: Spans | None = None

    def begin(self) -> None:
        """See whether the process has set up a tracer provider by now. Whoever has, has loaded OpenTelemetry for it."""
        self._spans = None
        if "opentelemetry" in sys.modules:
            from journeyman.spans import find_spans

            self._spans = find_spans()

    @property
    def collects(self) -> bool:
        return self._spans is not None

    def here(self, cause: Meta | None = None) -> str | None:
        """The trace parent for what is recorded now; else the one that what it follows from has; None without any."""
        if self._spans is not None and (current := self._spans.here()) is not None:
            return current
        return _carried.get() or (cause.traceparent if cause is not None else None)

    def span(
        self,
        name: str,
        *,
        parent: str | None = None,
        kind: Kind = "internal",
        attributes: Attributes | None = None,
    ) -> AbstractContextManager[Span | None]:
        """A span around a block, below `parent` or, without one, below the current span. None where nothing collects.

        Of an error that leaves the block, its type is told, and not its text.
        """
        if self._spans is None:
            return _carrying(parent) if parent is not None else nullcontext()
        return self._spans.span(name, parent=parent, kind=kind, attributes=attributes)

    def failed(self, error: BaseException) -> None:
        """What the current span is around has failed, and somebody deals with that."""
        if self._spans is not None:
            self._spans.failed(error)

    def batch(self, name: str, sent: Iterable[Carrying]) -> AbstractContextManager[Span | None]:
        """A span around what is done for many commands at once: below their parent, or linked to each where there are
        several. None for commands that nobody wants to trace.
        """
        if self._spans is None:
            return nullcontext()
        found = [parent for one in sent if (parent := one.envelope.meta.traceparent) is not None and is_sampled(parent)]
        if not found:
            return nullcontext()
        count, parents = {"journeyman.commands": len(found)}, list(dict.fromkeys(found))
        if len(parents) == 1:
            return self.span(name, parent=parents[0], attributes=count)
        return self._spans.linked(name, parents, count)


#: For parts that are used without an application.
NO_TRACING: Final = Tracing()


def told(span: Span | None, **facts: str | int) -> None:
    """Add facts to a span, under names of ours."""
    if span is not None:
        span.set_attributes({f"journeyman.{name}": value for name, value in facts.items()})


@contextmanager
def _carrying(parent: str) -> Iterator[None]:
    token = _carried.set(parent)
    try:
        yield
    finally:
        _carried.reset(token)

"""Small charts, drawn on the server: what was recorded over time, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from markupsafe import Markup

from journeyman.doors.console.wording import SECOND_US, number

#: The drawing's own size; it is shown as wide as there is room.
WIDTH: Final = 600
HEIGHT: Final = 96

_BAR: Final = Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
_SVG: Final = Markup(
    '<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">{}</svg>'
)


class Span(msgspec.Struct, frozen=True):
    """How far back a chart goes: so many bars of so many minutes each."""

    name: str
    minutes: int
    count: int

    @property
    def label(self) -> str:
        """How long a bar is, for people."""
        return "minute" if self.minutes == 1 else f"{self.minutes} minutes"


SPANS: Final = {"hour": Span("hour", 1, 60), "day": Span("day", 15, 96), "week": Span("week", 120, 84)}


def bars(values: Sequence[int], *, starts_us: Sequence[int], what: str, span: Span, tone: str) -> Markup:
    """A chart of counts, one bar for each; `tone` is the class that it is coloured by."""
    top = max(values, default=0)
    step = WIDTH / max(1, len(values))
    drawn = [
        _BAR.format(
            index * step + step * 0.1,
            HEIGHT - _height(count, top),
            step * 0.8,
            _height(count, top),
            f"{_clock(start_us, span)}: {number(count)}",
        )
        for index, (count, start_us) in enumerate(zip(values, starts_us, strict=True))
        if count
    ]
    label = f"{what} in the last {span.name}: {number(sum(values))} in all, at most {number(top)} in a {span.label}."
    return _SVG.format(tone, WIDTH, HEIGHT, label, Markup("").join(drawn))


def _height(count: int, top: int) -> float:
    """Never so low that what is there can't be seen."""
    return 0.0 if count == 0 else max(2.0, count / top * (HEIGHT - 4))


def ticks(starts_us: Sequence[int], span: Span) -> list[str]:
    """The times below a chart: at its beginning, in its middle, at its end."""
    if not starts_us:
        return []
    return [_clock(starts_us[0], span), _clock(starts_us[len(starts_us) // 2], span), _clock(starts_us[-1], span)]


def _clock(at_us: int, span: Span) -> str:
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC)
    return f"{at:%H:%M}" if span.name != "week" else f"{at:%a %H:%M}"

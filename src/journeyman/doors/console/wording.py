"""Numbers, times and JSON as people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from markupsafe import Markup

from journeyman.doors.web.text import visible

SECOND_US: Final = 1_000_000

#: How much of a value a cell of a table shows, in characters, and how much of a body a page does.
CELL_MAX: Final = 120
BODY_MAX: Final = 100_000

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def number(value: float | None) -> str:
    """A number with its thousands apart; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def duration(us: float | None) -> str:
    """How long, in the unit that says most."""
    if us is None:
        return "–"
    seconds = max(0.0, us / SECOND_US)
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    if seconds >= 1:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    return f"{seconds * 1000:.0f} ms"


def instant(at_us: int | None) -> Markup:
    """A moment to the millisecond, as `<time>`, in UTC: the day stands in its title."""
    if at_us is None:
        return Markup("–")
    at = datetime.fromtimestamp(at_us / SECOND_US, UTC)
    machine = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time class="nowrap" datetime="{}">{} <span class="muted">{}</span></time>').format(
        machine, f"{at:%H:%M:%S}.{at.microsecond // 1000:03}", f"{at:%Y-%m-%d}"
    )


def pretty(body: bytes | None) -> str:
    """A body as indented JSON, safe to look at; what is none as a text. Very long ones are cut."""
    if body is None:
        return ""
    try:
        text = msgspec.json.format(body, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace")
    return cut(text, BODY_MAX)


def value(found: Any) -> str:
    """A value of a row: texts as they are, everything else as JSON."""
    return visible(found if isinstance(found, str) else msgspec.json.encode(found).decode())


def cell(found: Any) -> str:
    """A value that fits into a cell."""
    return "–" if found is None else cut(value(found), CELL_MAX)


def cut(text: str, length: int) -> str:
    """The beginning of a text, safe to look at."""
    return visible(text) if len(text) <= length else f"{visible(text[:length])} … ({len(text):,} characters)"


#: For templates.
FILTERS: Final[dict[str, Callable[..., object]]] = {
    "number": number,
    "duration": duration,
    "instant": instant,
    "pretty": pretty,
    "value": value,
    "cell": cell,
}

"""The trace parent (W3C Trace Context), and the words for spans: what is known without OpenTelemetry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

#: What a request may bring (W3C Trace Context, 3.2). What does not fit is as if it were not there.
TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)

#: The kinds of spans: within a process, answering a request, and working on what somebody else has left.
Kind = Literal["internal", "server", "consumer"]

Attributes = Mapping[str, str | int]


def taken(traceparent: str | None) -> str | None:
    """A trace parent that came from outside, if it is one."""
    return traceparent if traceparent is not None and TRACEPARENT.fullmatch(traceparent) else None


def is_sampled(traceparent: str) -> bool:
    """Whether whoever began the trace wants it to be collected."""
    return int(traceparent[-2:], 16) & 1 == 1

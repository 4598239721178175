"""Answers that are not problems: JSON, encoded by msgspec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Response

from journeyman.app import App

_encode = msgspec.json.Encoder().encode


def json_answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """The value as JSON."""
    return Response(_encode(value), status_code=status, headers=headers, media_type="application/json")


def freshness(app: App, settled: int) -> dict[str, str]:
    """The headers that say how new an answer is: it holds all up to that position; its age, when the store stalls."""
    headers = {"Journeyman-Position": str(settled)}
    if (stalled_s := app.stalled_s) is not None:
        headers["Journeyman-Age"] = f"{stalled_s:.1f}"
    return headers

"""Clock, randomness and ids, in one value that is passed in: nothing below the application fetches them by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

import msgspec
import uuid_utils


def _now_us() -> int:
    return time.time_ns() // 1000


def _new_id() -> str:
    return str(uuid_utils.uuid7())


class Timing(msgspec.Struct, frozen=True):
    """Where time, chance and ids come from.

    `now_us` gives microseconds since 1970-01-01 UTC, `new_id` a UUIDv7 as text, `uniform` a float between two.
    """

    now_us: Callable[[], int] = _now_us
    new_id: Callable[[], str] = _new_id
    uniform: Callable[[float, float], float] = random.uniform


SYSTEM_TIMING: Final = Timing()

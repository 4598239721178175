"""Records to fill a log with."""

from __future__ import annotations

import time

import uuid_utils

from journeyman.message import Record


def make_records(
    count: int, *, after: int = 0, name: str = "testing/do-something", subject: str | None = None, body: bytes = b"{}"
) -> list[Record]:
    """`count` records at the positions after+1 …, each with an id of its own."""
    return [_record(position, name, subject, body) for position in range(after + 1, after + 1 + count)]


def _record(position: int, name: str, subject: str | None, body: bytes) -> Record:
    identity = str(uuid_utils.uuid7())
    return Record(
        position=position,
        id=identity,
        name=name,
        version=1,
        subject=subject,
        body=body,
        recorded_at_us=time.time_ns() // 1000,
        correlation_id=identity,
    )

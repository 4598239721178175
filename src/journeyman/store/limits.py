"""The checks that every backend makes in the same way: what may be appended or put, and whose ids stand there."""

from __future__ import annotations

from collections.abc import Sequence

from journeyman.errors import Conflict, TooLarge, WrongLog
from journeyman.message import BODY_BYTES_MAX, Record
from journeyman.store.base import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, KEY_LENGTH_MAX, VALUE_BYTES_MAX


def check_batch(records: Sequence[Record], *, after: int) -> None:
    """Refuse a batch that no backend may take.

    Raises:
        ValueError: the positions are not after+1, after+2 …
        TooLarge: a body or the batch is over its limit.
    """
    positions = [record.position for record in records]
    if positions != list(range(after + 1, after + 1 + len(records))):
        raise ValueError(f"A batch after position {after} must have the positions {after + 1} …, not {positions[:3]} …")
    sizes = [len(record.body) for record in records]
    size = sum(sizes)
    if len(records) > BATCH_RECORDS_MAX:
        what = f"A batch of {len(records)} records, where {BATCH_RECORDS_MAX} is the most,"
        raise TooLarge(what, size_bytes=size, limit_bytes=BATCH_BYTES_MAX)
    if size > BATCH_BYTES_MAX:
        raise TooLarge(f"A batch of {len(records)} records", size_bytes=size, limit_bytes=BATCH_BYTES_MAX)
    if sizes and max(sizes) > BODY_BYTES_MAX:
        record = records[sizes.index(max(sizes))]
        raise TooLarge(f"The body of {record.name} {record.id}", size_bytes=max(sizes), limit_bytes=BODY_BYTES_MAX)


def check_written(records: Sequence[Record], stored_ids: Sequence[str], *, after: int, head: int) -> None:
    """Return if the batch already stands in the log; `stored_ids` are the ids at after+1 …, at most the batch's number.

    Call it when the head is not `after`.

    Raises:
        Conflict: something else stands there. The beginning of a batch is something else: batches are written whole.
        WrongLog: the head is below `after`.
    """
    if head < after:
        raise WrongLog(
            f"The log ends at position {head}, but position {after} was read from it before: it was replaced, or "
            "restored from an older backup. Find out which, then restart this process."
        )
    if not records or list(stored_ids) != [record.id for record in records]:
        raise Conflict(expected=after, head=head)


def check_entry(key: str, value: bytes) -> None:
    """Refuse a key or a value that no backend may take.

    Raises:
        TooLarge: the key or the value is over its limit.
    """
    if len(key) > KEY_LENGTH_MAX:
        what = f"The key {key[:20]!r} …, of {len(key)} characters where {KEY_LENGTH_MAX} is the most,"
        raise TooLarge(what, size_bytes=len(key.encode()), limit_bytes=KEY_LENGTH_MAX)
    if len(value) > VALUE_BYTES_MAX:
        raise TooLarge(f"The value of {key!r}", size_bytes=len(value), limit_bytes=VALUE_BYTES_MAX)

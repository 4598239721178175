"""A message is a frozen value: the record as it is stored, beside the body as the application sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from journeyman.message import NO_META, Message, Meta, ReactionStep
from journeyman.testing.records import make_records


def test_a_message_tells_its_records_envelope() -> None:
    record = msgspec.structs.replace(
        make_records(1, after=6, subject="p1")[0], actor="ann", fence=3, causation_id="c", recorded_at_us=1_500_000
    )
    message = Message(record, {"title": "Hello"})
    assert (message.position, message.id, message.name) == (7, record.id, "testing/do-something")
    assert (message.subject, message.actor, message.fence) == ("p1", "ann", 3)
    assert (message.correlation_id, message.causation_id) == (record.correlation_id, "c")
    assert message.recorded_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert message.recorded_at_us == 1_500_000


@pytest.mark.parametrize("recorded_at_us", [1, 1_700_000_000_000_001, 253_402_300_799_999_999])
def test_recorded_at_keeps_every_microsecond(recorded_at_us: int) -> None:
    record = msgspec.structs.replace(make_records(1)[0], recorded_at_us=recorded_at_us)
    passed = Message(record, None).recorded_at - datetime(1970, 1, 1, tzinfo=UTC)
    assert passed.days * 86_400_000_000 + passed.seconds * 1_000_000 + passed.microseconds == recorded_at_us


def test_nothing_of_a_message_can_be_set() -> None:
    record = make_records(1)[0]
    message = Message(record, None)
    with pytest.raises(AttributeError):
        message.body = None  # type: ignore[misc]
    with pytest.raises(AttributeError):
        record.position = 2  # type: ignore[misc]


def test_meta_that_says_nothing_is_no_meta() -> None:
    assert Meta() == NO_META
    assert Meta(reaction=ReactionStep("posts/summaries", "ask", 1, 7)) != NO_META

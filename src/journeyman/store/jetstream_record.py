"""How a record is written as a JetStream message: its name as the subject, its envelope and its body as the content.

The content is the envelope as a line of JSON, and behind the line's end the body as it is: `nats stream get` shows
both. The position is in the envelope, too, so that reading needs no headers, whose parsing costs more than all else.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from journeyman.errors import Corrupt
from journeyman.message import Record

#: What is not written as it is in a token of a subject. Key-value buckets allow the fewest characters of all.
_ESCAPED: Final = re.compile(rb"[^A-Za-z0-9_/-]")


class _Envelope(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """All of a record but its body: see message.Record. And how many of its batch follow behind it."""

    position: int
    id: str
    name: str
    version: int
    subject: str | None
    recorded_at_us: int
    correlation_id: str
    causation_id: str | None = None
    actor: str | None = None
    idempotency_key: str | None = None
    fence: int | None = None
    meta: bytes | None = None
    rest: int = 0


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(_Envelope).decode


def encode_record(record: Record, *, rest: int = 0) -> bytes:
    """The content of a record's message. `rest` records of the same append follow behind it."""
    envelope = _Envelope(
        record.position,
        record.id,
        record.name,
        record.version,
        record.subject,
        record.recorded_at_us,
        record.correlation_id,
        record.causation_id,
        record.actor,
        record.idempotency_key,
        record.fence,
        record.meta,
        rest,
    )
    return b"%b\n%b" % (_encode(envelope), record.body)


def decode_record(content: bytes) -> Record:
    """The record of a message's content.

    Raises:
        Corrupt: it is not one.
    """
    envelope, body = _parted(content)
    return Record(
        envelope.position,
        envelope.id,
        envelope.name,
        envelope.version,
        envelope.subject,
        body,
        envelope.recorded_at_us,
        envelope.correlation_id,
        envelope.causation_id,
        envelope.actor,
        envelope.idempotency_key,
        envelope.fence,
        envelope.meta,
    )


def rest_of(content: bytes) -> int:
    """How many records of the same append follow behind that of a message's content.

    Raises:
        Corrupt: it is not one.
    """
    return _parted(content)[0].rest


def _parted(content: bytes) -> tuple[_Envelope, bytes]:
    line, _, body = content.partition(b"\n")
    try:
        return _decode(line), body
    except msgspec.DecodeError as error:
        raise Corrupt(f"A message in the stream is no record of Journeyman's: {error}. Restore a backup.") from error


def token(text: str) -> str:
    """The text as one token of a subject, different for each text: what may not stand there becomes `=` and its hex."""
    return _ESCAPED.sub(lambda found: b"=%02X" % found[0][0], text.encode()).decode() or "="


def text_of(found: str) -> str:
    """The text that `token` made the token of."""
    return "" if found == "=" else unquote_to_bytes(found.replace("=", "%")).decode()


def name_subject(stream: str, name: str) -> str:
    """The subject of messages of that name: `NAME.posts.create` for `posts/create`, so that people can filter by it."""
    return f"{stream}.{'.'.join(token(part) for part in name.split('/'))}"

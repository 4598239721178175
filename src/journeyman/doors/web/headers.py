"""Request headers, read straight from the ASGI scope: a handler looks at three of them at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from journeyman.doors.web.problems import BAD_HEADER, NOT_JSON_TYPE, Refused
from journeyman.pending import TEXT_LENGTH_MAX

#: The greatest position that a store can hold.
POSITION_MAX: Final = 2**63 - 1


def header(scope: Mapping[str, Any], name: bytes) -> str | None:
    """The value of a header, named in lower case; None without one.

    Raises:
        Refused: it comes twice, and nobody can know which one is meant.
    """
    pairs = scope["headers"]
    values = dict(pairs)  # The quickest look at a few pairs, and a repeated one shows by the length.
    if name not in values:
        return None
    if len(values) < len(pairs) and sum(key == name for key, _ in pairs) > 1:
        raise Refused(BAD_HEADER, f"The header {name.decode()} comes more than once.")
    return bytes(values[name]).decode("latin-1")


def idempotency_key(scope: Mapping[str, Any]) -> str | None:
    """The Idempotency-Key, as it was sent.

    Raises:
        Refused: it is empty or too long.
    """
    key = header(scope, b"idempotency-key")
    if key is not None and not 0 < len(key) <= TEXT_LENGTH_MAX:
        raise Refused(BAD_HEADER, f"An Idempotency-Key has 1 to {TEXT_LENGTH_MAX} characters, this one {len(key)}.")
    return key


def position(scope: Mapping[str, Any], name: bytes) -> int | None:
    """A header that holds a position; None without one, or when it is empty.

    Raises:
        Refused: it holds something else.
    """
    value = header(scope, name)
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20 and int(value) <= POSITION_MAX):
        raise Refused(BAD_HEADER, f"The header {name.decode()} must hold a position: 0, 1, 2 …")
    return int(value)


def require_json(scope: Mapping[str, Any]) -> None:
    """Refuse a body that does not say it is JSON: forms and plain text are what other sites can send unasked.

    Raises:
        Refused: its type is another one, or it is compressed or in another character set.
    """
    content_type = header(scope, b"content-type")
    if content_type != "application/json" and not _is_json(content_type or ""):
        raise Refused(NOT_JSON_TYPE, "Send the command as JSON in UTF-8, with Content-Type: application/json.")
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise Refused(NOT_JSON_TYPE, "Send the command uncompressed, without Content-Encoding.")


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = {parameter for parameter in parameters if parameter.startswith("charset=")}
    return media_type == "application/json" and charsets <= {"charset=utf-8", 'charset="utf-8"'}

"""The body of a request: read within its bounds, and taken only if it is JSON that means one thing to everybody."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from itertools import accumulate
from typing import Any, Final, NoReturn

from journeyman.doors.web.headers import header
from journeyman.doors.web.problems import BAD_REQUEST, BODY_TIMEOUT, NOT_JSON, TOO_LARGE, Refused
from journeyman.message import BODY_BYTES_MAX

#: How deep arrays and objects may be nested: far below what would exhaust the stack of any reader of the log.
DEPTH_MAX: Final = 64

#: How much of a body that is too large is read all the same, in bytes.
DISCARDED_BYTES_MAX: Final = 8 * 1024 * 1024

#: How long the body may take to arrive, in seconds.
BODY_S_MAX: Final = 30.0

#: A string. One that does not end is taken up to the end, so that time stays linear.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

#: What a bracket does to the depth; and all that is no bracket.
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in _STEPS)

Receive = Callable[[], Awaitable[Any]]


async def read_body(scope: Mapping[str, Any], receive: Receive, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The whole body, at most `bytes_max`: beyond that, nothing more is kept.

    Raises:
        Refused: it is larger, did not arrive in time, or not whole.
    """
    length = header(scope, b"content-length")
    try:
        async with asyncio.timeout(BODY_S_MAX):
            if length is not None and length.isdigit() and int(length) > bytes_max:
                await _refuse_size(receive)
            return await _read(receive, bytes_max)
    except TimeoutError:
        raise Refused(BODY_TIMEOUT, f"The body must arrive within {BODY_S_MAX:g} s.") from None


async def _read(receive: Receive, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refused(BAD_REQUEST, "The body did not arrive whole.")
        chunks.append(event.get("body", b""))
        size += len(chunks[-1])
        if size > bytes_max:
            await _refuse_size(receive)
        more = event.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _refuse_size(receive: Receive) -> NoReturn:
    """Refuse it; but first read on, a while, and keep nothing: a client that still sends may never see an answer."""
    size, more = 0, True
    while more and size < DISCARDED_BYTES_MAX:
        event = await receive()
        size += len(event.get("body", b""))
        more = event.get("more_body", False)
    raise Refused(
        TOO_LARGE,
        f"A command has at most {BODY_BYTES_MAX} bytes. Keep large files elsewhere, and their URL and hash in the "
        "command.",
    )


def parse(data: bytes) -> Any:
    """The JSON value, in plain types.

    Raises:
        Refused: it is no JSON in UTF-8; a key comes twice in one object, so that readers would differ on which holds;
            it has a number that JSON does not know; or it is nested too deeply.
    """
    try:
        _check_depth(data)
        return _decoder.decode(data.decode())
    except ValueError as error:  # of which JSONDecodeError and UnicodeDecodeError are
        raise Refused(NOT_JSON, f"{_sentence(error)} Correct this and send it again.") from None


def _sentence(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.removesuffix(' at')} at line {error.lineno}, column {error.colno}."
    if isinstance(error, UnicodeDecodeError):
        return f"Byte {error.start} is not UTF-8."
    return str(error)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"The key {json.dumps(twice[:100])} comes twice in one object.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON.")


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= DEPTH_MAX:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    if max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > DEPTH_MAX:
        raise ValueError(f"It is nested more than {DEPTH_MAX} deep.")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)

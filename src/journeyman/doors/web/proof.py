"""The proof that a form is ours: a token in it that no other site can know (CSRF).

Three things stop another site from sending a form in somebody's name: the cookie's SameSite=Strict, the check of Origin
and Sec-Fetch-Site, and this, which needs no browser's help. A request whose Authorization header shows a token needs no
proof, because no browser adds that by itself. Nor does JSON over this machine's own interface, where there is no
cookie: to send `application/json` across origins, a browser asks first, and nobody here answers that.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from journeyman.doors.web.bodies import Receive, read_body
from journeyman.doors.web.forms import CSRF, FORM_BYTES_MAX
from journeyman.doors.web.headers import header
from journeyman.doors.web.problems import NO_PROOF, Refused
from journeyman.errors import JourneymanError
from journeyman.store.base import KeyValue

logger = logging.getLogger(__name__)

#: Where a script puts it; a form has it in the field CSRF.
HEADER: Final = "x-csrf-token"

#: How long the store may take to tell it.
STORE_S: Final = 0.5

#: Where the store keeps the secret that forms are proved by where nobody signs in.
KEY: Final = "forms-secret"

_FORM: Final = "application/x-www-form-urlencoded"
#: The types that a form of another site can have.
_FORMS: Final = frozenset({_FORM, "multipart/form-data", "text/plain", ""})

#: Commands are taken as JSON only, and what is sent as anything else gets a word that helps its sender more.
_JSON_ONLY: Final = "/commands/"


class FormSecret:
    """The secret of all processes of one store; made by the first of them that needs it."""

    def __init__(self, keys: Callable[[], KeyValue]) -> None:
        self._keys = keys
        #: What this process has until it knows what all have.
        self._own = secrets.token_bytes(32)
        self._proof: str | None = None

    async def proof(self) -> str:
        """What forms bring along where nobody signs in."""
        if self._proof is None:
            shared = await self._share()
            if shared is None:
                return _proof_by(self._own)
            self._proof = _proof_by(shared)
        return self._proof

    async def _share(self) -> bytes | None:
        try:
            async with asyncio.timeout(STORE_S):
                keys = self._keys()
                if await keys.put(KEY, self._own, expect=0) is not None:
                    return self._own
                kept = await keys.get(KEY)
                return kept.value if kept is not None else None
        except (JourneymanError, TimeoutError) as error:
            logger.warning("while the store is away, forms of this process are taken by no other: %r", error)
            return None


def _proof_by(secret: bytes) -> str:
    return hmac.new(secret, b"form", "sha256").hexdigest()


async def require_proof(scope: Mapping[str, Any], receive: Receive, proof: str) -> Receive:
    """Refuse a form without proof. Returns what the body is to be read from now: looking for it may have read it.

    Raises:
        Refused: there is no proof, it is a wrong one, or the body can't be read within its bounds.
    """
    given = header(scope, HEADER.encode())
    if given is None and media_type_of(scope) == _FORM:
        body = await read_body(scope, receive, bytes_max=FORM_BYTES_MAX)
        given, receive = _field(body), _again(body, receive)
    if not hmac.compare_digest((given or "").encode(errors="replace"), proof.encode()):
        raise Refused(
            NO_PROOF,
            f"A form must bring the field {CSRF}, or the header {HEADER}, that its page was sent with. Load the page "
            "again, and send it from there. A program sends JSON, with Authorization where tokens are set up.",
        )
    return receive


def could_be_another_sites(scope: Mapping[str, Any]) -> bool:
    """Whether another site's form could make a browser send it, were it not for its origin."""
    return not scope["path"].startswith(_JSON_ONLY) and media_type_of(scope) in _FORMS


def media_type_of(scope: Mapping[str, Any]) -> str:
    """The type of the body, without parameters."""
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower()


def _field(body: bytes) -> str:
    """The proof in a form. It has only characters that are sent as they are."""
    start = f"{CSRF}=".encode()
    return next((pair[len(start) :].decode("latin-1") for pair in body.split(b"&") if pair.startswith(start)), "")


def _again(body: bytes, receive: Receive) -> Receive:
    """The body once more; then what else comes."""
    events: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Any:
        return events.pop() if events else await receive()

    return receive_again

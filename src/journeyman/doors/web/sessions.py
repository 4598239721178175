"""Sessions of browsers: a signed text in a cookie, instead of the token.

A session is signed by the token that it was begun with. So nothing is kept for it: every process that was given the
token knows it, a restart ends none, and taking the token away ends all that it began. What is kept are the sessions
that were ended before their time, in the store, so that all processes know of those, too.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from journeyman.doors.web.tokens import Token, Tokens
from journeyman.errors import JourneymanError
from journeyman.store.base import KeyValue

logger = logging.getLogger(__name__)

#: How long a session lasts, in seconds: a working day. Using it does not make it last longer.
SESSION_S: Final = 12 * 3600

#: How many ended sessions are remembered; to end one, one must have begun it, by a token.
ENDED_MAX: Final = 1000

#: For how long a process does not ask again whether another one ended a session, in seconds.
ASK_S: Final = 5.0

#: How long the store may take to answer that. Who can't sign in while the store is away can't look what is wrong.
STORE_S: Final = 0.5

KEY_PREFIX: Final = "ended-sessions/"

_COOKIE: Final = re.compile(r"(?P<id>[A-Za-z0-9_-]{22})\.(?P<ends>[0-9]{1,12})\.(?P<signature>[0-9a-f]{64})")


class Session(Struct, frozen=True):
    """One browser, signed in until `ends_at_s`, in seconds since 1970 UTC."""

    id: str
    ends_at_s: int
    token: Token

    @property
    def cookie(self) -> str:
        """What the browser keeps. Whoever has it has the session, and not the token."""
        return f"{self._signed}.{self.token.sign(f'session {self._signed}')}"

    @property
    def csrf(self) -> str:
        """What its forms bring along."""
        return self.token.sign(f"form {self._signed}")

    @property
    def _signed(self) -> str:
        return f"{self.id}.{self.ends_at_s}"


class Sessions:
    """Begins, recognises and ends sessions.

    Args:
        keys: the store's table, for what must be known to all processes.
    """

    def __init__(self, tokens: Tokens, *, keys: Callable[[], KeyValue], now_s: Callable[[], float] = time.time) -> None:
        self._tokens = tokens
        self._keys = keys
        self._now_s = now_s
        #: What is known of each session, and since when: whether it was ended. The oldest are forgotten.
        self._looked: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    def begin(self, token: Token) -> Session:
        """A new session in the name of a token."""
        return Session(secrets.token_urlsafe(16), int(self._now_s()) + SESSION_S, token)

    async def find(self, cookie: str) -> Session | None:
        """The session of a cookie; None when it is not signed by one of the tokens, is over, or was ended."""
        match = _COOKIE.fullmatch(cookie)
        if match is None:
            return None
        claimed = [Session(match["id"], int(match["ends"]), token) for token in self._tokens]
        real = [session for session in claimed if hmac.compare_digest(session.cookie, cookie)]
        if not real or not 0 < real[0].ends_at_s - self._now_s() <= SESSION_S or await self._is_ended(real[0]):
            return None
        return real[0]

    async def end(self, session: Session) -> None:
        """End it before its time, here at once, and in the other processes within ASK_S.

        Raises:
            StoreError: the others could not be told.
        """
        self._note(session.id, ended=True)
        keys = self._keys()
        await self._forget_old(keys)
        await keys.put(KEY_PREFIX + session.id, str(session.ends_at_s).encode())

    async def _is_ended(self, session: Session) -> bool:
        looked_at_s, ended = self._looked.get(session.id, (float("-inf"), False))
        if ended or self._now_s() - looked_at_s < ASK_S:
            return ended
        try:
            async with asyncio.timeout(STORE_S):
                ended = await self._keys().get(KEY_PREFIX + session.id) is not None
        except (JourneymanError, TimeoutError) as error:
            logger.warning("not known whether a session was ended elsewhere: %r", error)
        self._note(session.id, ended=ended)
        return ended

    def _note(self, id: str, *, ended: bool) -> None:
        self._looked[id] = (self._now_s(), ended)
        self._looked.move_to_end(id)
        while len(self._looked) > ENDED_MAX:
            self._looked.popitem(last=False)

    async def _forget_old(self, keys: KeyValue) -> None:
        """Remove those that are over anyway, and beyond the bound those that end soonest."""
        entries = [(name, await keys.get(name)) for name in await keys.keys(KEY_PREFIX)]
        ends = sorted((int(entry.value), name) for name, entry in entries if entry is not None)
        for number, (ends_at_s, name) in enumerate(ends):
            if ends_at_s < self._now_s() or len(ends) - number >= ENDED_MAX:
                await keys.delete(name)

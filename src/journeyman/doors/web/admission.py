"""Who is let in: whoever another application lets through, whoever is at this machine, or who shows a token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from journeyman.doors.web.access import LOCAL_ACTOR, NOBODY, Access
from journeyman.doors.web.asgi import MOUNTED_AT
from journeyman.doors.web.failures import Failures
from journeyman.doors.web.headers import header
from journeyman.doors.web.problems import BEHIND_PROXY, NO_ACCESS, TOO_MANY_FAILURES, Refused, busy
from journeyman.doors.web.proof import FormSecret
from journeyman.doors.web.sessions import Session, Sessions
from journeyman.doors.web.tokens import Token, Tokens
from journeyman.store.base import KeyValue

#: Who asks: of the ASGI scope, where the application that the door is mounted in may have left it.
ActorOf = Callable[[Mapping[str, Any]], str | None]

#: What asks whether the process is well has no token. Nothing else is open.
OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"})

#: Where browsers sign in.
SIGN_IN: Final = "/sign-in"

#: The cookie that has a browser's session.
COOKIE: Final = "journeyman_session"

#: What a program is told to show (RFC 9110, 11.6.1).
CHALLENGE: Final = 'Bearer realm="journeyman"'

#: What proxies add to the requests that they pass on.
_PROXIES: Final = frozenset({b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip"})

#: How many cookies of that name are looked at: another site under the same domain can add some.
_COOKIES_MAX: Final = 4


class Admission(Protocol):
    """Finds out who asks."""

    async def admit(self, scope: Mapping[str, Any]) -> Access:
        """Who asks.

        Raises:
            Refused: nobody who may.
        """
        ...


class Mounted:
    """Another application has let the request through, and knows who asks."""

    def __init__(self, actor_of: ActorOf, *, keys: Callable[[], KeyValue]) -> None:
        self._actor_of = actor_of
        self._secret = FormSecret(keys)

    async def admit(self, scope: Mapping[str, Any]) -> Access:
        return Access(self._actor_of(scope), "operator", await self._secret.proof())


class Local:
    """Only this machine can ask: whoever is at it may do anything, as with the store's own file."""

    def __init__(self, *, keys: Callable[[], KeyValue]) -> None:
        self._secret = FormSecret(keys)

    async def admit(self, scope: Mapping[str, Any]) -> Access:
        if not _PROXIES.isdisjoint(dict(scope["headers"])):
            raise Refused(
                BEHIND_PROXY,
                "Behind a proxy, anybody might ask. Set JOURNEYMAN_OPERATOR_TOKEN, and restart the server; "
                "journeyman token makes a token.",
            )
        return Access(LOCAL_ACTOR, "operator", await self._secret.proof())


class ByToken:
    """Who shows a token, or has a session that was begun with one."""

    def __init__(self, tokens: Tokens, *, keys: Callable[[], KeyValue]) -> None:
        self._tokens = tokens
        self.sessions = Sessions(tokens, keys=keys)
        self._failures = Failures()

    async def admit(self, scope: Mapping[str, Any]) -> Access:
        authorization = header(scope, b"authorization")
        if authorization is not None:
            token = self.check(scope, _bearer(authorization))
            return Access(token.actor, token.role, "")
        session = await self.session_of(scope)
        if session is not None:
            return Access(session.token.actor, session.token.role, session.csrf, by_cookie=True)
        if scope["path"] in OPEN_PATHS:
            return NOBODY
        raise no_access(scope)

    def check(self, scope: Mapping[str, Any], secret: str) -> Token:
        """The token of this text.

        Raises:
            Refused: there is none; or none, and there were too many tries of that kind.
        """
        token = self._tokens.find(secret)
        if token is not None:
            return token
        wait_s = self._failures.count(str((scope.get("client") or ("unknown",))[0]))
        if wait_s is not None:
            raise busy("Too many tries failed.", retry_after_s=wait_s, kind=TOO_MANY_FAILURES)
        raise no_access(scope)

    async def session_of(self, scope: Mapping[str, Any]) -> Session | None:
        """The session of the browser that asks."""
        for cookie in _cookies(scope)[:_COOKIES_MAX]:
            session = await self.sessions.find(cookie)
            if session is not None:
                return session
        return None


def no_access(scope: Mapping[str, Any]) -> Refused:
    """The refusal of whoever shows no token, or a wrong one, or one that is over: they are not told apart."""
    headers = {"WWW-Authenticate": CHALLENGE}
    if header(scope, b"hx-request") is not None:  # A part of a page is no place to sign in: htmx loads this instead.
        headers["HX-Redirect"] = scope.get(MOUNTED_AT, "") + SIGN_IN
    return Refused(
        NO_ACCESS,
        "Send a token of this server as Authorization: Bearer TOKEN; with a browser, sign in at /sign-in.",
        headers=headers,
    )


def _bearer(authorization: str) -> str:
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _cookies(scope: Mapping[str, Any]) -> list[str]:
    """The values that cookies of our name have. HTTP/2 may send several headers, which a proxy may leave so."""
    headers = (value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    pairs = (pair.partition("=") for value in headers for pair in value.split(";"))
    return [value.strip() for name, _, value in pairs if name.strip() == COOKIE]

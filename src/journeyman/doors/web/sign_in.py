"""The page on which a person shows a token, and gets a session for it; and the way out. It needs no script."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs, quote

from journeyman.doors.web.admission import CHALLENGE, COOKIE, SIGN_IN, ByToken
from journeyman.doors.web.answers import Answer, Page
from journeyman.doors.web.asgi import MOUNTED_AT, Receive, Scope
from journeyman.doors.web.bodies import read_body
from journeyman.doors.web.headers import header
from journeyman.doors.web.problems import METHOD_NOT_ALLOWED, NO_ACCESS, TOO_MANY_FAILURES, Refused
from journeyman.doors.web.proof import require_proof
from journeyman.doors.web.sessions import SESSION_S
from journeyman.doors.web.templates import COMMON, Templates, wants_page
from journeyman.errors import JourneymanError

logger = logging.getLogger(__name__)

#: Where a session is ended.
SIGN_OUT: Final = "/sign-out"

#: How many fields the form may have: it has two.
FIELDS_MAX: Final = 10

_WRONG: Final = "This is no token of this server."
_NOT_RECORDED: Final = "Sign in first: what was sent was not recorded. Go back to find what you typed."
_templates: Final = Templates(COMMON)

# The stylesheet that all pages share, in the page itself: nothing is open to who has not signed in, no file either.
_STYLE: Final = (files(COMMON) / "static" / "site.css").read_text()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class SignIn:
    """Answers to browsers that have no session, or want to begin or end one."""

    def __init__(self, admission: ByToken) -> None:
        self._admission = admission

    def has(self, path: str) -> bool:
        """Whether this answers for a path."""
        return path in (SIGN_IN, SIGN_OUT)

    async def answer(self, scope: Scope, receive: Receive) -> Answer:
        """The answer to a request for one of its paths.

        Raises:
            Refused: it is neither a look at the page nor a form that proves to be ours.
        """
        method, is_in = scope["method"], scope["path"] == SIGN_IN
        if method in ("GET", "HEAD") and is_in:
            return await self._look(scope)
        if method != "POST":
            allow = "GET, HEAD, POST" if is_in else "POST"
            raise Refused(METHOD_NOT_ALLOWED, f"This path takes {allow}.", headers={"Allow": allow})
        return await (self._begin if is_in else self._end)(scope, receive)

    def instead_of(self, refused: Refused, scope: Scope) -> Answer | None:
        """What a browser gets where a program is told that it needs a token; None for a program."""
        if refused.kind is not NO_ACCESS or not wants_page(scope) or header(scope, b"hx-request") is not None:
            return None
        if scope["method"] in ("GET", "HEAD"):
            query = scope["query_string"].decode("latin-1")
            here = quote(scope["path"]) + (f"?{query}" if query else "")
            return _see(scope, f"{SIGN_IN}?next={quote(here, safe='')}")
        return _page(scope, status=401, error=_NOT_RECORDED, next="/")

    async def _look(self, scope: Scope) -> Answer:
        session = await self._admission.session_of(scope)
        target = _target(_fields(scope["query_string"]))
        if session is None:
            return _page(scope, next=target)
        return _page(scope, actor=session.token.actor, csrf=session.csrf)

    async def _begin(self, scope: Scope, receive: Receive) -> Answer:
        form = _fields(await read_body(scope, receive))
        try:
            token = self._admission.check(scope, form.get("token", "").strip())
        except Refused as refused:
            wait_s = refused.headers.get("Retry-After")
            error = _WRONG if refused.kind is not TOO_MANY_FAILURES else f"{_WRONG} Wait {wait_s} s before you go on."
            return _page(scope, status=refused.problem.status, error=error, next=_target(form))
        logger.info("%s signed in", token.actor)
        return _see(scope, _target(form), _cookie(scope, self._admission.sessions.begin(token).cookie, SESSION_S))

    async def _end(self, scope: Scope, receive: Receive) -> Answer:
        session = await self._admission.session_of(scope)
        if session is not None:
            await require_proof(scope, receive, session.csrf)
            try:
                await self._admission.sessions.end(session)
            except JourneymanError as error:
                logger.warning("other processes still take a session that was ended: %s", error)
        return _see(scope, SIGN_IN, _cookie(scope, "", 0))


def _fields(form: bytes) -> dict[str, str]:
    """The fields of a form or a query string, each one's first value; none of what is malformed."""
    try:
        found = parse_qs(form.decode("ascii"), max_num_fields=FIELDS_MAX)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items()}


def _target(form: Mapping[str, str]) -> str:
    """Where to go on after signing in: a path of this server, whatever somebody has put into the link."""
    target = form.get("next", "/")
    is_path = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if is_path and target.isascii() and target.isprintable() and "\\" not in target else "/"


def _page(scope: Scope, *, status: int = 200, error: str | None = None, **values: str | None) -> Answer:
    values = {"actor": None, "csrf": None, "next": "/", **values}
    html = _templates.render(
        scope, "journeyman/sign_in.html", style=_STYLE, hours=SESSION_S // 3600, error=error, **values
    )
    headers = {"content-security-policy": _POLICY, **({"www-authenticate": CHALLENGE} if status == 401 else {})}
    return Page(html, status=status, headers=headers)


def _see(scope: Scope, target: str, cookie: str | None = None) -> Answer:
    headers = {"location": scope.get(MOUNTED_AT, "") + target, **({"set-cookie": cookie} if cookie else {})}
    return Answer(b"", media_type="text/plain", status=303, headers=headers)


def _cookie(scope: Scope, value: str, max_age_s: int) -> str:
    path = scope.get(MOUNTED_AT) or "/"
    secure = "; Secure" if _is_https(scope) else ""
    return f"{COOKIE}={value}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"


def _is_https(scope: Scope) -> bool:
    """Whether the browser speaks TLS, perhaps to a proxy. Who lies about it only loses the own cookie."""
    return (
        scope.get("scheme") == "https"
        or (header(scope, b"origin") or "").startswith("https://")
        or header(scope, b"x-forwarded-proto") == "https"
    )

"""What every request passes first: the right host, no other site's commands, who asks and what they may do; and on the
way out, security headers.

A page on the web can make a browser send requests to a server on the same machine. Two checks stop that. The Host
must be one of ours: a page that lets its own name lead here (DNS rebinding) is a foreign host, whatever the address.
And what changes something must not come from a foreign origin, and a form must prove that it is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from journeyman.doors.web.access import ACCESS, Access
from journeyman.doors.web.admission import Admission
from journeyman.doors.web.answers import Answer, problem_answer
from journeyman.doors.web.asgi import MOUNTED_AT, ASGIApp, Event, Receive, Scope, Send
from journeyman.doors.web.head import allowing_head, head_of
from journeyman.doors.web.headers import header
from journeyman.doors.web.observed import Observed
from journeyman.doors.web.problems import BAD_HEADER, FOREIGN_ORIGIN, READ_ONLY, WRONG_HOST, Refused
from journeyman.doors.web.proof import could_be_another_sites, require_proof
from journeyman.doors.web.sign_in import SignIn

#: The names that this machine has for itself.
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

#: Methods that change nothing, so that any site may have a browser send them; it can't read the answer.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

#: What every answer has, unless it says something else itself.
SECURITY_HEADERS: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}

#: What a page has instead: it may load what this server serves, and nothing inline. A browser that may send no referrer
#: sends "Origin: null" with a form, too (Fetch, "append a request Origin header"): the check below would refuse it.
PAGE_HEADERS: Final = {
    **SECURITY_HEADERS,
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"same-origin",
}

#: What answers a request that is refused.
AnswerTo = Callable[[Scope, Refused], Answer]


class Guard:
    """ASGI middleware in front of all doors. Without another `answer`, refusals are problem documents.

    Args:
        admission: finds out who asks.
        sign_in: where browsers sign in; None where nobody does.
        observed: counts and traces what is answered.
    """

    def __init__(
        self,
        inner: ASGIApp,
        *,
        allowed_hosts: Iterable[str],
        admission: Admission,
        sign_in: SignIn | None = None,
        answer: AnswerTo = problem_answer,
        observed: Observed | None = None,
    ) -> None:
        self._inner = inner
        self._observed = observed or Observed()
        self._admission = admission
        self._sign_in = sign_in
        self._answer = answer
        self._allowed_hosts = frozenset(host.strip("[]").lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._inner(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._http(_own(scope), receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._observed.request(scope) as begun:

            async def send_secured(event: Event) -> None:
                if event["type"] == "http.response.start":
                    event["headers"] = _secured(list(event["headers"]))
                    begun(event["status"])
                await send(event)

            to_client: Send = send_secured
            if scope["method"] == "HEAD":
                scope["method"], to_client = "GET", head_of(send_secured)
            answer, receive = await self._admitted(scope, receive)
            await answer(scope, receive, to_client)

    async def _admitted(self, scope: Scope, receive: Receive) -> tuple[ASGIApp, Receive]:
        """What answers, and what it reads the body from."""
        try:
            self._check(scope)
            if self._sign_in is not None and self._sign_in.has(scope["path"]):
                return await self._sign_in.answer(scope, receive), receive
            access = scope[ACCESS] = await self._admission.admit(scope)
            if scope["method"] not in SAFE_METHODS:
                receive = await _may_act(scope, receive, access)
        except Refused as refused:
            return self._refusal(scope, refused), receive
        return self._inner, receive

    def _refusal(self, scope: Scope, refused: Refused) -> ASGIApp:
        page = self._sign_in.instead_of(refused, scope) if self._sign_in is not None else None
        return page or self._answer(scope, refused)

    def _check(self, scope: Scope) -> None:
        authority = header(scope, b"host")
        if authority is None:
            raise Refused(BAD_HEADER, "The request has no Host header.")
        if host_of(authority) not in self._allowed_hosts:
            raise Refused(WRONG_HOST, f"Ask for {' or '.join(sorted(self._allowed_hosts))}.")
        if scope["method"] not in SAFE_METHODS:
            _check_origin(scope, authority)


async def _may_act(scope: Scope, receive: Receive, access: Access) -> Receive:
    """Refuse what only an operator may send, or what another site may have made a browser send."""
    if access.role != "operator":
        raise Refused(READ_ONLY, "Your token lets you look at everything, and change nothing.")
    if access.csrf and (access.by_cookie or could_be_another_sites(scope)):
        return await require_proof(scope, receive, access.csrf)
    return receive


def _secured(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    given = dict(headers)
    if b"allow" in given:
        headers = allowing_head(headers)
    is_page = given.get(b"content-type", b"").startswith(b"text/html")
    missing = PAGE_HEADERS if is_page else SECURITY_HEADERS
    if missing.keys().isdisjoint(given):  # As for every answer of the JSON door: it is asked the most.
        return [*headers, *missing.items()]
    return headers + [(name, value) for name, value in missing.items() if name not in given]


def _own(scope: Scope) -> Scope:
    """The scope as it is where nothing is mounted: hosts differ on whether the path has the prefix of the mount.

    For HEAD it is a copy, as the server looks into its own to know that no body comes.
    """
    prefix = scope.get("root_path") or ""
    if not prefix:
        return scope if scope["method"] != "HEAD" else {**scope}
    path = scope["path"]
    if path == prefix or path.startswith(prefix + "/"):
        path = path[len(prefix) :] or "/"
    return {**scope, "path": path, "root_path": "", MOUNTED_AT: prefix}


def host_of(authority: str) -> str:
    """The host of `host:port`, in lower case and without brackets."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower()


def _check_origin(scope: Scope, authority: str) -> None:
    origin = header(scope, b"origin")
    if origin is not None and origin.lower().partition("://")[2] != authority.lower():
        raise Refused(FOREIGN_ORIGIN, "The command comes from a page of another origin.")
    if header(scope, b"sec-fetch-site") not in (None, "same-origin", "none"):
        raise Refused(FOREIGN_ORIGIN, "The command comes from a page of another site.")

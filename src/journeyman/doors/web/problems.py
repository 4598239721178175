"""Problem documents (RFC 9457): what a client is told when something is wrong, and nothing else of what went on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

import msgspec

from journeyman import errors

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = "application/problem+json"

#: What `type` starts with; after it comes the name of the kind.
TYPE_PREFIX: Final = "urn:problem-type:journeyman:"

#: After how long to come back when nobody knows better, in seconds: about what a restart takes.
RETRY_AFTER_S: Final = 1.0


class Kind(msgspec.Struct, frozen=True):
    """One sort of problem: clients tell them apart by `name`; `title` is the same each time."""

    name: str
    status: int
    title: str


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field. `pointer` is a JSON pointer (RFC 6901) into what was sent; empty for all of it."""

    pointer: str
    detail: str


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem document. `position` is where a refused command was judged."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()
    position: int | None = None


class Refused(Exception):
    """A request is answered by a problem document, with these headers."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        position: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.headers = dict(headers or {})
        self.problem = Problem(
            type=TYPE_PREFIX + kind.name,
            title=kind.title,
            status=kind.status,
            detail=detail,
            errors=errors,
            position=position,
        )

    @property
    def document(self) -> bytes:
        return msgspec.json.encode(self.problem)


NOT_JSON: Final = Kind("not-json", 400, "The body is not JSON that can be taken")
BAD_HEADER: Final = Kind("bad-header", 400, "A header can't be understood")
BAD_QUERY_STRING: Final = Kind("bad-query-string", 400, "The query string can't be understood")
BAD_REQUEST: Final = Kind("bad-request", 400, "The request can't be understood")
NO_ACCESS: Final = Kind("no-access", 401, "A token is needed")
BEHIND_PROXY: Final = Kind("behind-proxy", 403, "The request came through a proxy, and no tokens are set up")
FOREIGN_ORIGIN: Final = Kind("foreign-origin", 403, "Another site may not send commands")
NO_PROOF: Final = Kind("no-proof", 403, "The form does not prove that it is ours")
READ_ONLY: Final = Kind("read-only", 403, "Whoever asks may look, and not act")
UNKNOWN_PATH: Final = Kind("unknown-path", 404, "There is nothing at this path")
UNKNOWN_NAME: Final = Kind("unknown-name", 404, "There is nothing of this name")
NOT_FOUND: Final = Kind("not-found", 404, "What the query asks for is not there")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", 405, "This path does not take this method")
BODY_TIMEOUT: Final = Kind("body-timeout", 408, "The body did not arrive in time")
REJECTED: Final = Kind("rejected", 409, "The state does not allow this command")
KEY_REUSED: Final = Kind("key-reused", 409, "The idempotency key belongs to another command")
TOO_LARGE: Final = Kind("too-large", 413, "The body is too large")
NOT_A_FORM: Final = Kind("not-a-form", 415, "The body must be sent as a form")
NOT_JSON_TYPE: Final = Kind("not-json-type", 415, "The body must be sent as application/json")
WRONG_HOST: Final = Kind("wrong-host", 421, "This server does not answer for that host")
INVALID: Final = Kind("invalid", 422, "Fields are wrong")
TOO_MANY_FAILURES: Final = Kind("too-many-failures", 429, "Too many tries failed")
APPLICATION_FAILED: Final = Kind("application-failed", 500, "The application's own code broke")
INTERNAL_ERROR: Final = Kind("internal-error", 500, "Something broke")
BUSY: Final = Kind("busy", 503, "At a bound: try again")
NOT_READY: Final = Kind("not-ready", 503, "The store can't be used now")
NOT_RUNNING: Final = Kind("not-running", 503, "The application does not run")
OUTCOME_UNKNOWN: Final = Kind("outcome-unknown", 503, "Perhaps recorded")
POISONED: Final = Kind("poisoned", 503, "A message can't be applied")
OUTDATED: Final = Kind("outdated", 503, "This process runs old code")
STORE_BROKEN: Final = Kind("store-broken", 503, "The log is not what it was")

#: Every kind, for the reference.
KINDS: Final[tuple[Kind, ...]] = tuple(kind for kind in list(vars().values()) if isinstance(kind, Kind))


def refusal_of(error: Exception) -> Refused:
    """What a client is told for an error. What is not known is logged, and told without its text."""
    for kind, explain in _EXPLAINED:
        if isinstance(error, kind):
            return explain(error)
    logger.error("a request broke", exc_info=error)
    return Refused(INTERNAL_ERROR, "The request could not be answered. The log of the application says why.")


def busy(detail: str, *, retry_after_s: float = RETRY_AFTER_S, kind: Kind = BUSY) -> Refused:
    """A refusal that asks to come back."""
    return Refused(kind, detail, headers={"Retry-After": str(max(1, ceil(retry_after_s)))})


def _same(error: Exception) -> Refused:
    assert isinstance(error, Refused)
    return error


def _invalid(error: Exception) -> Refused:
    assert isinstance(error, errors.Invalid)
    return Refused(INVALID, str(error), errors=tuple(FieldError("", problem) for problem in error.problems))


def _rejected(error: Exception) -> Refused:
    assert isinstance(error, errors.Rejected)
    kind = KEY_REUSED if isinstance(error, errors.KeyReused) else REJECTED
    return Refused(kind, error.reason, position=error.position)


def _busy(error: Exception) -> Refused:
    assert isinstance(error, errors.Busy)
    return busy(str(error), retry_after_s=error.retry_after_s)


def _application_failed(error: Exception) -> Refused:
    # The executor has logged it. Its text holds what the application raised: not for clients.
    return Refused(APPLICATION_FAILED, "The command was not recorded. The log of the application says why.")


def _poisoned(error: Exception) -> Refused:
    # Its text holds what the application raised, too, and coming back helps nobody before an operator has decided.
    assert isinstance(error, errors.Poisoned)
    return Refused(
        POISONED,
        f"The message at position {error.position} ({error.name}) can't be applied, so nothing after it can be: "
        "somebody has to start code that can apply it, or set it aside. The log of the application says why.",
    )


def _outdated(error: Exception) -> Refused:
    assert isinstance(error, errors.Outdated)
    return busy(
        f"The message at position {error.position} ({error.name}) is from newer code: "
        "this process ends, to be started with that code.",
        kind=OUTDATED,
    )


def _told(kind: Kind) -> Callable[[Exception], Refused]:
    return lambda error: Refused(kind, str(error))


def _come_back(kind: Kind) -> Callable[[Exception], Refused]:
    return lambda error: busy(str(error), kind=kind)


#: In order: the first that fits.
_EXPLAINED: Final[tuple[tuple[type[Exception], Callable[[Exception], Refused]], ...]] = (
    (Refused, _same),
    (errors.Invalid, _invalid),
    (errors.UnknownName, _told(UNKNOWN_NAME)),
    (errors.NotFound, _told(NOT_FOUND)),
    (errors.Rejected, _rejected),
    (errors.ApplyFailed, _application_failed),
    (errors.Busy, _busy),
    (errors.NotRunning, _come_back(NOT_RUNNING)),
    (errors.TooLarge, _told(TOO_LARGE)),
    (errors.NotReady, _come_back(NOT_READY)),
    (errors.OutcomeUnknown, _come_back(OUTCOME_UNKNOWN)),
    (errors.Poisoned, _poisoned),
    (errors.Outdated, _outdated),
    (errors.StoreError, _told(STORE_BROKEN)),
)

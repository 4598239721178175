"""Every error of the framework has a status of its own sort, and none tells more than a client may know."""

from __future__ import annotations

import inspect

import pytest

from journeyman import errors
from journeyman.doors.web import problems
from journeyman.doors.web.problems import KINDS, refusal_of

CASES = [
    (errors.Invalid("a/b", ["x", "y"]), 422, "invalid", None),
    (errors.UnknownName("command", "a/b"), 404, "unknown-name", None),
    (errors.NotFound("gone"), 404, "not-found", None),
    (errors.Rejected("no", position=3), 409, "rejected", None),
    (errors.Fenced("no"), 409, "rejected", None),
    (errors.KeyReused("no"), 409, "key-reused", None),
    (errors.ApplyFailed("secret"), 500, "application-failed", None),
    (errors.Busy("full.", retry_after_s=0.1), 503, "busy", "1"),
    (errors.Busy("full.", retry_after_s=7.2), 503, "busy", "8"),
    (errors.NotRunning("stopped"), 503, "not-running", "1"),
    (errors.TooLarge("it", size_bytes=2, limit_bytes=1), 413, "too-large", None),
    (errors.NotReady("away"), 503, "not-ready", "1"),
    (errors.OutcomeUnknown("who knows"), 503, "outcome-unknown", "1"),
    (errors.WrongLog("other"), 503, "store-broken", None),
    (errors.Corrupt("gap"), 503, "store-broken", None),
    (errors.Conflict(expected=1, head=2), 503, "store-broken", None),
    (errors.Poisoned(position=3, name="a/b", why="secret"), 503, "poisoned", None),
    (errors.Outdated(position=3, name="a/b", why="secret"), 503, "outdated", "1"),
    (errors.DefinitionError("secret"), 500, "internal-error", None),
    (RuntimeError("secret"), 500, "internal-error", None),
]


@pytest.mark.parametrize(("error", "status", "kind", "retry_after"), CASES)
def test_each_error_has_its_answer(error: Exception, status: int, kind: str, retry_after: str | None) -> None:
    refused = refusal_of(error)

    assert (refused.problem.status, refused.problem.type) == (status, f"urn:problem-type:journeyman:{kind}")
    assert refused.headers.get("Retry-After") == retry_after
    assert b"secret" not in refused.document


def test_the_position_of_a_refusal_is_told() -> None:
    assert refusal_of(errors.Rejected("no", position=3)).problem.position == 3
    assert b"position" not in refusal_of(errors.Rejected("no")).document


def test_all_that_a_caller_of_the_application_can_get_is_known() -> None:
    """Others are raised at import, at the start, or inside `perform`: as defects they would be told as internal."""
    elsewhere = (errors.DefinitionError, errors.WorkerFailed, errors.ServiceError, errors.Undecodable)
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.JourneymanError) and cls not in (errors.JourneymanError, errors.StoreError):
            known = any(issubclass(cls, kind) for kind, _ in problems._EXPLAINED)
            assert known or issubclass(cls, elsewhere), cls


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS) > 20

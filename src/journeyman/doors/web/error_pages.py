"""What a person sees when something is wrong: the problem in words, and what to do."""

from __future__ import annotations

from typing import Any, Final

from journeyman.doors.web.answers import Answer, Page, problem_answer
from journeyman.doors.web.asgi import Scope
from journeyman.doors.web.guard import SAFE_METHODS
from journeyman.doors.web.problems import METHOD_NOT_ALLOWED, TYPE_PREFIX, UNKNOWN_PATH, Refused
from journeyman.doors.web.templates import COMMON, Templates, wants_page

#: What a person is told instead of what a program is.
_IN_WORDS: Final = {
    TYPE_PREFIX + UNKNOWN_PATH.name: "The address may be mistyped, or what was there is gone.",
    TYPE_PREFIX + METHOD_NOT_ALLOWED.name: "The address is right, but it is not one that this can be sent to.",
}

_templates: Final = Templates(COMMON)


def answer(scope: Scope, refused: Refused) -> Answer:
    """A page for a browser, a problem document for a program."""
    return error_page(scope, refused) if wants_page(scope) else problem_answer(scope, refused)


def error_page(scope: Scope, refused: Refused) -> Page:
    """The page. Where coming back may help, it does so by itself: a form is never sent again unasked."""
    html = _templates.render(
        scope,
        "journeyman/problem.html",
        problem=refused.problem,
        detail=_IN_WORDS.get(refused.problem.type, refused.problem.detail),
        refresh_s=_refresh_s(scope, refused),
        changes=scope["method"] not in SAFE_METHODS,
    )
    return Page(html, status=refused.problem.status, headers=refused.headers)


def _refresh_s(scope: Scope, refused: Refused) -> Any:
    return refused.headers.get("Retry-After") if scope["method"] in SAFE_METHODS else None

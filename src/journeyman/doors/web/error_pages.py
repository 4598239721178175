"""What a person sees when something is wrong: the problem in words, and what to do."""

from __future__ import annotations

from typing import Final

from journeyman.doors.web.answers import Answer, Page, problem_answer
from journeyman.doors.web.asgi import Scope
from journeyman.doors.web.guard import SAFE_METHODS
from journeyman.doors.web.problems import METHOD_NOT_ALLOWED, NOT_FOUND, TYPE_PREFIX, UNKNOWN_PATH, Refused
from journeyman.doors.web.templates import COMMON, Templates, wants_page

#: What a person is told instead of what a program is: the title, and what there is to say about it.
_IN_WORDS: Final = {
    NOT_FOUND: ("It is not there", None),
    UNKNOWN_PATH: ("There is nothing at this address", "It may be mistyped, or what was there is gone."),
    METHOD_NOT_ALLOWED: ("This can't be sent here", "The address is right, but it takes no such request."),
}
_BY_TYPE: Final = {TYPE_PREFIX + kind.name: words for kind, words in _IN_WORDS.items()}

_templates: Final = Templates(COMMON)


def answer(scope: Scope, refused: Refused) -> Answer:
    """A page for a browser, a problem document for a program."""
    return error_page(scope, refused) if wants_page(scope) else problem_answer(scope, refused)


def error_page(scope: Scope, refused: Refused) -> Page:
    """The page. Where coming back may help, it does so by itself: a form is never sent again unasked."""
    problem = refused.problem
    title, detail = _BY_TYPE.get(problem.type, (problem.title, None))
    html = _templates.render(
        scope,
        "journeyman/problem.html",
        problem=problem,
        title=title,
        detail=detail or problem.detail,
        refresh_s=_refresh_s(scope, refused),
        changes=scope["method"] not in SAFE_METHODS,
    )
    return Page(html, status=problem.status, headers=refused.headers)


def _refresh_s(scope: Scope, refused: Refused) -> str | None:
    return refused.headers.get("Retry-After") if scope["method"] in SAFE_METHODS else None

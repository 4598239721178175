"""Forms that record a command."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from msgspec.structs import replace

from journeyman.app import App
from journeyman.doors.web.access import access_of
from journeyman.doors.web.forms import Form, WrongForm, new_key
from journeyman.doors.web.problems import refusal_of
from journeyman.errors import JourneymanError, KeyReused
from journeyman.feature import Command
from journeyman.receipts import Receipt

#: The status of a mistake in the application's own code: sending another form mends nothing.
BROKEN: Final = 500


async def submit(app: App, request: Request[Any, Any, Any], form: Form, command: Command) -> Receipt:
    """Record the command that a form means, once however often the form is sent; who asks is its actor.

    Raises:
        WrongForm: it was not recorded, or nobody knows. The form says which and why, and keeps what was typed and its
            key: sent once more, it is recorded once.
    """
    try:
        return await app.execute(command, actor=access_of(request.scope).actor, idempotency_key=form.key)
    except KeyReused:
        told = "This form was sent before, with other content. Send it once more to record this, too."
        raise WrongForm(replace(form, problem=told, key=new_key()), status=409) from None
    except JourneymanError as error:
        refused = refusal_of(error)
        if refused.problem.status == BROKEN:
            raise
        problem = refused.problem
        told = " ".join([problem.detail, *(wrong.detail for wrong in problem.errors)])
        raise WrongForm(replace(form, problem=told), status=problem.status) from error

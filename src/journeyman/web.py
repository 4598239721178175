"""What the pages of an application are written with, on top of litestar. See docs/pages.md."""

from __future__ import annotations

from typing import Any

import litestar

from journeyman.doors.web.access import Access, access_of
from journeyman.doors.web.answers import Answer, Page, SeeOther
from journeyman.doors.web.forms import Form, WrongForm, read_form
from journeyman.doors.web.streams import Streams, event
from journeyman.doors.web.submitting import submit
from journeyman.doors.web.templates import Templates

#: A request, as handlers get it.
Request = litestar.Request[Any, Any, Any]

__all__ = [
    "Access",
    "Answer",
    "Form",
    "Page",
    "Request",
    "SeeOther",
    "Streams",
    "Templates",
    "WrongForm",
    "access_of",
    "event",
    "read_form",
    "submit",
]

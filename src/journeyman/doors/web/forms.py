"""Forms: what a browser sends, as the command that it means, or with a sentence at each field that is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl
from uuid import uuid4

import msgspec
from litestar import Request
from msgspec import Struct
from msgspec.structs import replace

from journeyman.doors.web.bodies import read_body
from journeyman.doors.web.form_values import plain_values
from journeyman.doors.web.headers import header
from journeyman.doors.web.problems import BAD_REQUEST, INVALID, NOT_A_FORM, FieldError, Refused
from journeyman.doors.web.wrong_fields import field_of, find_wrong
from journeyman.message import BODY_BYTES_MAX
from journeyman.pending import TEXT_LENGTH_MAX

S = TypeVar("S", bound=Struct)

#: How large a form may be, in bytes: percent-encoding writes three for one.
FORM_BYTES_MAX: Final = 3 * BODY_BYTES_MAX + 64 * 1024

#: Up to how many bytes a form is parsed on the event loop: one of the largest takes a quarter of a second.
QUICK_BYTES: Final = 64 * 1024

#: How many values a form may hold.
VALUES_MAX: Final = 1000

#: What the names of fields begin with that are not the command's.
OWN: Final = "_"

#: The field that proves that the form is ours, and the one that makes sending it twice harmless.
CSRF: Final = "_csrf"
KEY: Final = "_key"

_MEDIA_TYPE: Final = "application/x-www-form-urlencoded"
_UTF8: Final = {"charset=utf-8", 'charset="utf-8"'}


def new_key() -> str:
    """An idempotency key for a form that is yet to be sent."""
    return str(uuid4())


class Form(Struct, frozen=True, kw_only=True):
    """A form: what stands in its fields, and what is wrong with it.

    `values` are texts by field; several where a name comes several times. `errors` has a sentence for each wrong
    field, `problem` one for the form as a whole. `key` is its idempotency key: while it stays the same, the form is
    recorded once, however often it is sent.
    """

    values: Mapping[str, tuple[str, ...]] = {}
    errors: Mapping[str, str] = {}
    problem: str | None = None
    key: str = msgspec.field(default_factory=new_key)

    @classmethod
    def of(cls, **values: str) -> Form:
        """A form that nobody has filled in yet, with these values."""
        return cls(values={name: (value,) for name, value in values.items()})

    def text(self, name: str) -> str:
        """What stands in a field; empty when nothing does."""
        return self.values.get(name, ("",))[0]

    @property
    def first_wrong(self) -> str | None:
        """The first field that is wrong, in the order of the form: it gets the focus."""
        return next(iter(self.errors), None)

    def read(self, cls: type[S], **given: str) -> S:
        """The command, or any other struct, that the form means, with what is `given` besides its fields.

        Raises:
            WrongForm: fields are wrong: each has a sentence.
        """
        filled = {name: texts for name, texts in self.values.items() if not name.startswith(OWN)}
        values = plain_values(filled | {name: (text,) for name, text in given.items()}, cls)
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise WrongForm(self._marked(find_wrong(cls, values, error)), status=INVALID.status) from None

    def _marked(self, errors: tuple[FieldError, ...]) -> Form:
        """The form with a sentence at each field that is wrong; what is no field of it is told for the whole."""
        sentences: dict[str, str] = {}
        for error in errors:
            sentences.setdefault(field_of(error), error.detail)
        whole = sentences.pop("", None)
        in_order = {name: sentences[name] for name in (*self.values, *sentences) if name in sentences}
        return replace(self, errors=in_order, problem=whole or _count(len(in_order)))


class WrongForm(Exception):
    """A form can't be taken as it is: show it again, with this status."""

    def __init__(self, form: Form, *, status: int) -> None:
        super().__init__(form.problem)
        self.form = form
        self.status = status


async def read_form(request: Request[Any, Any, Any]) -> Form:
    """The form that a browser sent.

    Raises:
        Refused: it is no form in UTF-8, too large, too slow, or has too many fields.
    """
    _require_form(request.scope)
    body = await read_body(request.scope, request.receive, bytes_max=FORM_BYTES_MAX)
    values = await asyncio.to_thread(_parse, body) if len(body) > QUICK_BYTES else _parse(body)
    key = values.get(KEY, ("",))[0]
    return Form(values=values, key=key if 0 < len(key) <= TEXT_LENGTH_MAX else new_key())


def _require_form(scope: Mapping[str, Any]) -> None:
    media_type, *parameters = (part.strip().lower() for part in (header(scope, b"content-type") or "").split(";"))
    charsets = {parameter for parameter in parameters if parameter.startswith("charset=")}
    if media_type != _MEDIA_TYPE or not charsets <= _UTF8:
        raise Refused(NOT_A_FORM, f"Send the form in UTF-8, with Content-Type: {_MEDIA_TYPE}.")
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise Refused(NOT_A_FORM, "Send the form uncompressed, without Content-Encoding.")


def _parse(body: bytes) -> dict[str, tuple[str, ...]]:
    """The texts by name. Browsers end lines with CR LF (HTML Standard, "constructing the entry list"); we with LF."""
    values: dict[str, tuple[str, ...]] = {}
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=VALUES_MAX)
    except UnicodeDecodeError:
        raise Refused(BAD_REQUEST, "The form must be percent-encoded UTF-8.") from None
    except ValueError:
        raise Refused(BAD_REQUEST, f"A form may hold {VALUES_MAX} values.") from None
    for name, text in pairs:
        values[name] = (*values.get(name, ()), text.replace("\r\n", "\n"))
    return values


def _count(wrong: int) -> str:
    return "One field is wrong." if wrong == 1 else f"{wrong} fields are wrong."

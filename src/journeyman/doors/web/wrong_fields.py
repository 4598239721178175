"""Every field that is wrong, each with a JSON pointer and a sentence: msgspec, which decides, names only the first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any, Final

import jsonschema_rs
import msgspec
from jsonschema_rs import ValidationErrorKind as Wrong

from journeyman.doors.web.problems import INVALID, FieldError, Refused

#: How many wrong fields one answer names.
ERRORS_MAX: Final = 100

#: How long a name that a client made up may be where it is repeated to it, in characters.
NAME_LENGTH_MAX: Final = 100

_WHERE: Final = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<item>\d+)\]")

_NOUNS: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}


class WrongFields:
    """Finds what is wrong with a value that should have been of a type."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls

    def refuse(self, value: Any, error: msgspec.ValidationError) -> Refused:
        """The refusal of a value, in plain JSON types, that msgspec refused with this error."""
        return refuse(self.find(value) or [_by_msgspec(error)])

    def find(self, value: Any) -> list[FieldError]:
        """What JSON Schema can tell. Empty where only msgspec knows: dates, for example."""
        if self._validator is None:
            return []
        found = (wrong for error in self._validator.iter_errors(value) for wrong in _explain(error))
        return list(islice(found, ERRORS_MAX))

    @cached_property
    def _validator(self) -> jsonschema_rs.Draft202012Validator | None:
        """Built at the first wrong value; most commands never see one."""
        try:
            return jsonschema_rs.Draft202012Validator(msgspec.json.schema(self._cls), mask="it")
        except (TypeError, ValueError):
            return None  # A type without schema, or a pattern that Python alone can read.


def find_wrong(cls: type[Any], value: Any, error: msgspec.ValidationError) -> tuple[FieldError, ...]:
    """All that is wrong with a value, in plain JSON types, that msgspec refused with this error."""
    found, first = WrongFields(cls).find(value), _by_msgspec(error)
    if found and (not first.pointer or any(wrong.pointer.startswith(first.pointer) for wrong in found)):
        return tuple(found)
    return (*found, first)


def field_of(error: FieldError) -> str:
    """The field, at the top of what was sent, that the error is in; empty for all of it."""
    return error.pointer[1:].partition("/")[0].replace("~1", "/").replace("~0", "~")


def refuse(errors: Iterable[FieldError]) -> Refused:
    """The refusal that lists them."""
    listed = tuple(errors)
    count = "A field is wrong" if len(listed) == 1 else f"{len(listed)} fields are wrong"
    return Refused(INVALID, f"{count}: see errors. Correct this and send it again.", errors=listed)


def pointer(*path: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step)[:NAME_LENGTH_MAX].replace('~', '~0').replace('/', '~1')}" for step in path)


def sentence(error: msgspec.ValidationError) -> str:
    """What msgspec says, without the place."""
    return _WHERE.sub("", str(error)).replace("`", "") + "."


def _by_msgspec(error: msgspec.ValidationError) -> FieldError:
    where = _WHERE.search(str(error))
    # Inside a dict, msgspec does not say at which key, and writes [...]: then it is somewhere in what was named so far.
    known = where["path"].partition("[...]")[0] if where else ""
    return FieldError(
        pointer(*(step["name"] or step["item"] for step in _STEP.finditer(known))),
        sentence(error),
    )


def _explain(error: jsonschema_rs.ValidationError) -> Iterator[FieldError]:
    """One error of the schema as one or several wrong fields."""
    kind, path = error.kind, error.instance_path
    if isinstance(kind, Wrong.Required):
        yield FieldError(pointer(*path, kind.property), "This field is missing.")
    elif isinstance(kind, Wrong.AdditionalProperties):
        for name in kind.unexpected:
            yield FieldError(pointer(*path, name), "There is no such field.")
    elif isinstance(kind, Wrong.AnyOf) and (wanted := _only_alternative(kind)) is not None:
        for inner in wanted:
            yield from _explain(inner)
    else:
        yield FieldError(pointer(*path), _sentence(kind, error.message))


def _only_alternative(kind: Wrong.AnyOf) -> list[jsonschema_rs.ValidationError] | None:
    """Of "this or null", what is wrong with this; None where there are more alternatives."""
    real = [branch for branch in kind.context if not _wants_null(branch)]
    return real[0] if len(real) == 1 else None


def _wants_null(branch: list[jsonschema_rs.ValidationError]) -> bool:
    kind = branch[0].kind if len(branch) == 1 else None
    return isinstance(kind, Wrong.Type) and kind.types == ["null"]


def _sentence(kind: Any, message: str) -> str:
    match kind:
        case Wrong.Type():
            return f"It must be {' or '.join(_NOUNS[name] for name in kind.types)}."
        case Wrong.MinLength():
            return f"It must have at least {_count(kind.limit, 'character')}."
        case Wrong.MaxLength():
            return f"It may have at most {_count(kind.limit, 'character')}."
        case Wrong.MinItems():
            return f"It must have at least {_count(kind.limit, 'item')}."
        case Wrong.MaxItems():
            return f"It may have at most {_count(kind.limit, 'item')}."
        case Wrong.Minimum() | Wrong.ExclusiveMinimum() | Wrong.Maximum() | Wrong.ExclusiveMaximum():
            return f"It must be {_BOUNDS[type(kind)]} {kind.limit}."
        case Wrong.Enum():
            return f"It must be one of {', '.join(map(_json, kind.options))}."
        case Wrong.Pattern():
            return f"It must match the pattern {kind.pattern}."
        case Wrong.AnyOf():
            return "It fits none of the forms that this field may have."
    return message[:1].upper() + message[1:] + "."


_BOUNDS: Final[dict[type[Any], str]] = {
    Wrong.Minimum: "at least",
    Wrong.Maximum: "at most",
    Wrong.ExclusiveMinimum: "more than",
    Wrong.ExclusiveMaximum: "less than",
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

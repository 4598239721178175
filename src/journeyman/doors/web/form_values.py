"""The texts of a form as the values that a struct's fields may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from journeyman.doors.web.bodies import parse
from journeyman.doors.web.problems import Refused
from journeyman.doors.web.query_strings import LISTS, OBJECTS, form_of, items_of


def plain_values(given: Mapping[str, Sequence[str]], cls: type[Any]) -> dict[str, Any]:
    """The values, in plain JSON types. What can't be one stays a text, for whoever judges it to refuse.

    An empty field that need not be filled in counts as not given, and a box that is not ticked as false: a browser
    doesn't send it.
    """
    values: dict[str, Any] = dict(given)
    for field in msgspec.structs.fields(cls):
        name, texts = field.encode_name, given.get(field.encode_name)
        if texts is None:
            if field.type is bool:
                values[name] = False
        elif form_of(field.type) == "list":
            values[name] = [_value(text, field.type) for text in texts]
        elif texts[0] == "" and not field.required and not _takes_empty(field.default):
            del values[name]
        else:
            values[name] = _value(texts[0], field.type)
    return values


def _takes_empty(default: Any) -> bool:
    """Whether an empty text may be meant: for a field that is a text when it is not given."""
    return isinstance(default, str)


def _value(text: str, kind: Any) -> Any:
    if not _is_json(inspect.type_info(kind)):
        return text
    try:
        return parse(text.encode()) if text else None
    except Refused:
        return text


def _is_json(info: Any) -> bool:
    """Whether values of the type are written as JSON, and not as the text that they are."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    if isinstance(info, inspect.UnionType):
        return all(map(_is_json, info.types))
    if isinstance(info, inspect.LiteralType):
        return not any(isinstance(value, str) for value in info.values)
    if isinstance(info, LISTS):
        return all(map(_is_json, items_of(info)))
    return isinstance(info, (inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, *OBJECTS))

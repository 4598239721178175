"""Query strings: text, converted to the types that a query declares for its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect
from msgspec.structs import FieldInfo

from journeyman.doors.web.bodies import parse
from journeyman.doors.web.problems import BAD_QUERY_STRING, FieldError, Refused
from journeyman.doors.web.wrong_fields import ERRORS_MAX, pointer, refuse, sentence

Q = TypeVar("Q", bound=msgspec.Struct)

#: How many values one query string may hold.
VALUES_MAX: Final = 1000

#: How a field is written: once as text, repeated for a list, or once as JSON where text can't say it.
Form = Literal["text", "list", "json"]

#: The types that are arrays in JSON, and those that are objects.
LISTS: Final = (
    inspect.ListType,
    inspect.SetType,
    inspect.FrozenSetType,
    inspect.VarTupleType,
    inspect.TupleType,
    inspect.CollectionType,
)
OBJECTS: Final = (
    inspect.StructType,
    inspect.DictType,
    inspect.TypedDictType,
    inspect.DataclassType,
    inspect.NamedTupleType,
)


class QueryStringReader(Generic[Q]):
    """Makes a struct of a query string."""

    def __init__(self, cls: type[Q]) -> None:
        self._cls = cls
        self.fields: Mapping[str, FieldInfo] = {field.encode_name: field for field in msgspec.structs.fields(cls)}
        self.forms: Mapping[str, Form] = {name: form_of(field.type) for name, field in self.fields.items()}

    def read(self, query_string: bytes) -> Q:
        """The struct.

        Raises:
            Refused: the query string is malformed, or has wrong fields: all of them are named.
        """
        given = _parse(query_string) if query_string else {}
        errors: list[FieldError] = []
        values = {name: self._value(name, texts, errors) for name, texts in given.items() if name in self.fields}
        if not errors and len(values) == len(given):
            try:
                return msgspec.convert(values, self._cls, strict=False)
            except msgspec.ValidationError as error:
                raise refuse(self._wrong(given, values) or [FieldError("", sentence(error))]) from None
        told = {error.pointer for error in errors}
        more = (error for error in self._wrong(given, values) if error.pointer not in told)
        raise refuse([*errors, *more][:ERRORS_MAX])

    def _value(self, name: str, texts: list[str], errors: list[FieldError]) -> Any:
        form = self.forms[name]
        if form == "list":
            return texts
        if len(texts) > 1:
            errors.append(FieldError(pointer(name), "This field is given more than once."))
        if form == "text":
            return texts[0]
        try:
            return parse(texts[0].encode())
        except Refused as refused:
            errors.append(FieldError(pointer(name), f"It must be JSON, percent-encoded. {refused.problem.detail}"))

    def _wrong(self, given: Mapping[str, Any], values: Mapping[str, Any]) -> list[FieldError]:
        errors = [FieldError(pointer(name), "There is no such field.") for name in given if name not in self.fields]
        for name, field in self.fields.items():
            if name not in values:
                if field.required:
                    errors.append(FieldError(pointer(name), "This field is missing."))
            elif values[name] is not None and (error := _unfit(values[name], field.type)):
                errors.append(FieldError(pointer(name), error))
        return errors


def _unfit(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        return sentence(error)
    return None


def _parse(query_string: bytes) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=VALUES_MAX
        )
    except UnicodeDecodeError:
        raise Refused(BAD_QUERY_STRING, "It must be percent-encoded UTF-8.") from None
    except ValueError:
        raise Refused(BAD_QUERY_STRING, f"It may hold {VALUES_MAX} values.") from None
    for name, text in pairs:
        given.setdefault(name, []).append(text)
    return given


def form_of(kind: Any) -> Form:
    """How a field of that type is written."""
    info = inspect.type_info(kind)
    while isinstance(info, inspect.Metadata):
        info = info.type
    alternatives = info.types if isinstance(info, inspect.UnionType) else (info,)
    if any(isinstance(one, OBJECTS) for one in alternatives):
        return "json"
    for one in alternatives:
        if isinstance(one, LISTS):
            return "json" if _holds_objects(one) else "list"
    return "text"


def _holds_objects(info: Any) -> bool:
    return any(isinstance(item, (*LISTS, *OBJECTS)) for item in items_of(info))


def items_of(info: Any) -> tuple[Any, ...]:
    """The types of a list's items."""
    return info.item_types if isinstance(info, inspect.TupleType) else (info.item_type,)

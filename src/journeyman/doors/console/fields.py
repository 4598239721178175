"""The fields of a form for any command or query, from its JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from journeyman.doors.web.forms import Form

#: From this length on a text gets a large field.
LONG_TEXT: Final = 200

#: How a field is filled in. `lines` is a list, an item on each line; `json` is for what has parts of its own.
Kind = Literal["line", "area", "number", "choice", "switch", "lines", "json"]

_SCALARS: Final = frozenset({"string", "integer", "number", "boolean"})

_FORMATS: Final = {
    "date-time": "A date and time, like 2026-11-25T12:00:00Z.",
    "date": "A date, like 2026-11-25.",
    "time": "A time of the day, like 12:00:00.",
    "uuid": "A UUID.",
    "duration": "A duration, like PT90S.",
}

_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One field. `options` are what can be chosen, as values and labels; `text` is what stands in it at first."""

    name: str
    kind: Kind
    required: bool
    hint: str = ""
    options: tuple[tuple[str, str], ...] = ()
    length_max: int | None = None
    text: str = ""


def fields_of(cls: type[Any], *, subject: str | None = None) -> list[Field]:
    """The fields of a struct. `subject` is the field that holds a short name, and gets a short field."""
    schema = msgspec.json.schema(cls)
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    body = _resolved(schema, definitions)
    required = frozenset(body.get("required", ()))
    return [
        _field(name, part, definitions, required=name in required, short=name == subject)
        for name, part in body.get("properties", {}).items()
        if not name.startswith("_")
    ]


def blank(fields: Sequence[Field]) -> Form:
    """A form with what stands in its fields at first."""
    return Form.of(**{field.name: field.text for field in fields if field.text})


def spread(form: Form, fields: Sequence[Field]) -> Form:
    """The form with each list as the items that stand on its lines."""
    lists = {field.name for field in fields if field.kind == "lines"}
    values = {
        name: tuple(line for text in texts for line in text.split("\n") if line) if name in lists else texts
        for name, texts in form.values.items()
    }
    return msgspec.structs.replace(form, values=values)


def _field(name: str, part: Any, definitions: Mapping[str, Any], *, required: bool, short: bool) -> Field:
    inner, takes_null = _alternative(part, definitions)
    kind = _kind(inner, definitions, takes_null=takes_null, short=short)
    default = part.get("default")
    return Field(
        name=name,
        kind=kind,
        required=required,
        hint=" ".join(filter(None, [_prose(part, inner), _bounds(inner), _how(kind)])),
        options=_options(inner, takes_null=takes_null) if kind == "choice" else (),
        length_max=inner.get("maxLength") if kind in ("line", "area") else None,
        text=_text(default, kind),
    )


def _resolved(part: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema that a reference stands for."""
    reference = part.get("$ref")
    return part if reference is None else definitions.get(str(reference).rpartition("/")[2], {})


def _alternative(part: Any, definitions: Mapping[str, Any]) -> tuple[Any, bool]:
    """Of "this or null" this, and whether null is allowed; what has more alternatives stays as it is."""
    alternatives = [_resolved(one, definitions) for one in part.get("anyOf", ())]
    real = [one for one in alternatives if one.get("type") != "null"]
    if len(real) == 1:
        return real[0], len(real) < len(alternatives)
    return _resolved(part, definitions), False


def _kind(inner: Any, definitions: Mapping[str, Any], *, takes_null: bool, short: bool) -> Kind:
    if "enum" in inner:
        return "choice"
    match inner.get("type"):
        case "boolean":
            return "choice" if takes_null else "switch"
        case "integer" | "number":
            return "number"
        case "string":
            is_short = short or "format" in inner or inner.get("maxLength", LONG_TEXT + 1) <= LONG_TEXT
            return "line" if is_short else "area"
        case "array" if _resolved(inner.get("items") or {}, definitions).get("type") in _SCALARS:
            return "lines"
    return "json"


def _options(inner: Any, *, takes_null: bool) -> tuple[tuple[str, str], ...]:
    values = inner.get("enum", (True, False))
    options = tuple((_written(value), _written(value)) for value in values if value is not None)
    return (("", "none"), *options) if takes_null or None in values else options


def _written(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _text(default: Any, kind: Kind) -> str:
    """What stands in a field at first: its default."""
    if default is None or default == [] or default == {}:
        return ""
    if kind == "switch":
        return "true" if default else ""
    if kind == "lines":
        return "\n".join(map(_written, default))
    return _written(default)


def _prose(part: Any, inner: Any) -> str:
    return str(part.get("description") or inner.get("description") or "").partition("\n")[0]


def _bounds(inner: Any) -> str:
    told = [text.format(inner[bound]) for bound, text in _BOUNDS.items() if bound in inner]
    if "pattern" in inner:
        told.append(f"it matches {inner['pattern']}")
    sentence = ", ".join(told)
    return " ".join(filter(None, [_FORMATS.get(inner.get("format", "")), sentence.capitalize() + "." if told else ""]))


def _how(kind: Kind) -> str:
    return {"lines": "One on each line.", "json": "As JSON."}.get(kind, "")

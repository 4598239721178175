"""Between commands and bytes: names, versions, upcasters, and the schemas that guard old messages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from journeyman.errors import DefinitionError, Invalid, Undecodable
from journeyman.message import NO_META, Message, Meta, Record

C = TypeVar("C")

#: Turns the body of one version, as plain JSON values, into the next version's.
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

# Deterministic order, so that equal commands have equal bytes: idempotency keys compare them.
_encoder = msgspec.json.Encoder(order="deterministic")
_meta_decoder = msgspec.json.Decoder(Meta)


class MessageType(msgspec.Struct, Generic[C], frozen=True, kw_only=True):
    """How messages of one name are written and read.

    `upcasters` has an entry for each version from 2 to `version`: what makes that version of the one before.
    Messages under a former name are read as this type; new ones are written under `name`.
    """

    name: str
    body: type[C]
    version: int = 1
    former_names: tuple[str, ...] = ()
    upcasters: Mapping[int, Upcaster] = {}


class Codec:
    """Encodes and decodes the bodies of all message types of an application.

    Raises:
        DefinitionError: two types share a name, or an upcaster is missing.
    """

    def __init__(self, types: Iterable[MessageType[Any]]) -> None:
        self.types: dict[str, MessageType[Any]] = {}
        self._readers: dict[str, _Reader] = {}
        for message_type in types:
            self._add(message_type)

    def _add(self, message_type: MessageType[Any]) -> None:
        if message_type.version < 1:
            raise DefinitionError(f"{message_type.name} has version {message_type.version}; versions count from 1.")
        missing = set(range(2, message_type.version + 1)) ^ set(message_type.upcasters)
        if missing:
            raise DefinitionError(
                f"{message_type.name} has version {message_type.version}: it needs exactly one upcaster to each of "
                f"the versions from 2 to that; look at {sorted(missing)}."
            )
        reader = _Reader(message_type)
        for name in (message_type.name, *message_type.former_names):
            if name in self._readers:
                raise DefinitionError(f"Two commands are named {name}. A name, once used, belongs to one command.")
            self._readers[name] = reader
        self.types[message_type.name] = message_type

    def knows(self, name: str) -> bool:
        """Whether messages of this name can be read."""
        return name in self._readers

    def encode(self, body: Any) -> bytes:
        """The body as JSON.

        Raises:
            Invalid: a field holds what JSON can't: NaN, infinity, or a value of no JSON type.
        """
        try:
            data = _to_json(body)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Invalid(type(body).__name__, [str(error)]) from error
        # msgspec writes NaN and infinity as null, which a field that may be None would take as that.
        if b"null" in data and _has_non_finite(msgspec.to_builtins(body)):
            raise Invalid(type(body).__name__, ["a number is NaN or infinite, which JSON can't say"])
        return data

    def recode(self, name: str, body: Any) -> tuple[bytes, Any]:
        """The body as JSON, and what is read from that: what every replay will see.

        Raises:
            Invalid: a field holds what JSON can't, or what its type does not allow.
        """
        data = self.encode(body)
        try:
            return data, self._readers[name].decode(data)
        except Exception as error:
            raise Invalid(name, [str(_undecodable(error))]) from error

    def decode_body(self, name: str, version: int, data: bytes) -> Any:
        """The typed body of a message.

        Raises:
            Undecodable: the name or version is not known, or the bytes do not fit; `newer` tells which.
        """
        reader = self._readers.get(name)
        if reader is None:
            raise Undecodable(f"no command is named {name}", newer=True)
        return reader.read(version, data)

    def decode(self, record: Record) -> Message[Any]:
        """The message of a record.

        Raises:
            Undecodable: as `decode_body`, or the meta is damaged.
        """
        reader = self._readers.get(record.name)
        if reader is None or record.version != reader.version:
            body = self.decode_body(record.name, record.version, record.body)
        else:  # Nearly always. One call less counts where a million messages are read.
            try:
                body = reader.decode(record.body)
            except Exception as error:
                raise _undecodable(error) from error
        return Message(record, body, NO_META if record.meta is None else decode_meta(record.meta))

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The JSON Schema of each type's current version, without prose, by name and then by version."""
        return {name: {str(kind.version): _schema(kind.body)} for name, kind in sorted(self.types.items())}


class _Reader:
    def __init__(self, message_type: MessageType[Any]) -> None:
        self._type = message_type
        self.version = message_type.version
        self.decode = msgspec.json.Decoder(message_type.body).decode

    def read(self, version: int, data: bytes) -> Any:
        try:
            return self.decode(data if version == self.version else self._upcast(version, data))
        except Undecodable:
            raise
        except Exception as error:
            raise _undecodable(error) from error

    def _upcast(self, version: int, data: bytes) -> bytes:
        """The body in the current version, as JSON again: so that one decoder reads all versions alike."""
        if version > self.version:
            raise Undecodable(f"its version is {version}, this code knows up to {self.version}", newer=True)
        if version < 1:
            raise Undecodable(f"its version is {version}; versions count from 1", newer=False)
        body: dict[str, Any] = msgspec.json.decode(data)
        for step in range(version + 1, self.version + 1):
            try:
                body = self._type.upcasters[step](body)
            except Exception as error:
                raise Undecodable(f"its upcaster to version {step} raised {error!r}", newer=False) from error
        return _to_json(body)


def _undecodable(error: Exception) -> Undecodable:
    """Not only for msgspec's errors: a body's own __post_init__ may raise anything."""
    return Undecodable(str(error) or repr(error), newer=False)


def _to_json(value: Any) -> bytes:
    try:
        return _encoder.encode(value)
    except TypeError:
        # The ordering encoder takes no other dicts than those with str keys; in JSON, all keys are str.
        return _encoder.encode(msgspec.to_builtins(value, str_keys=True))


def _has_non_finite(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_non_finite(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple | set | frozenset) and any(map(_has_non_finite, value))


def check_name(kind: str, name: str) -> None:
    """Refuse a name that is not lower-case words joined by hyphens.

    Raises:
        DefinitionError: it isn't.
    """
    if not _NAME.fullmatch(name):
        raise DefinitionError(
            f"The {kind} name {name!r} must be lower-case words joined by hyphens, like 'set-summary'."
        )


def encode_meta(meta: Meta) -> bytes | None:
    """The meta as JSON; None when it says nothing."""
    return None if meta == NO_META else _encoder.encode(meta)


def decode_meta(data: bytes) -> Meta:
    """The meta of a record.

    Raises:
        Undecodable: it is not a meta object. Fields of newer code are passed over.
    """
    try:
        return _meta_decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Undecodable(f"its meta is damaged: {error}", newer=False) from error


def merge_schemas(
    codec: Codec, recorded: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The schema file's next content, and a sentence for each change that would make old messages unreadable.

    `recorded` is the file's content: name → version → schema. A version, once in the file, keeps its schema for ever:
    old messages and running processes rely on it. A name stays readable for ever, as a former name perhaps, and then
    what was recorded under it binds the command of today.
    """
    merged = {name: dict(versions) for name, versions in recorded.items()}
    faults = [
        f"{name} can't be read any more: keep its command, or name it among the former names of another"
        for name in recorded
        if not codec.knows(name)
    ]
    for name, kind in sorted(codec.types.items()):
        schema = _schema(kind.body)
        merged.setdefault(name, {}).setdefault(str(kind.version), schema)
        for known_as in (name, *kind.former_names):
            faults += _changes(known_as, merged.get(known_as, {}), kind.version, schema)
    return merged, faults


def _changes(name: str, recorded: Mapping[str, Any], version: int, schema: Any) -> list[str]:
    """What is wrong with a command of this version and schema, where those are recorded under the name."""
    newest = max(map(int, recorded), default=0)
    if newest > version:
        return [f"{name} has version {version} now, but version {newest} is recorded: versions only grow"]
    if _comparable(recorded.get(str(version), schema)) == _comparable(schema):
        return []
    better = f"make it version {version + 1} and write an upcaster to it"
    return [f"{name} version {version} has another schema than before: {better}"]


def _schema(body: type[Any]) -> Any:
    # By way of JSON, as the file has it: a default that is a tuple here is a list there.
    return _without_prose(msgspec.json.decode(_to_json(msgspec.json.schema(body))))


def _comparable(schema: Any) -> bytes:
    """The schema with its classes numbered as they are met: a class may be renamed, for its name is in no message."""
    numbers: dict[str, int] = {}
    definitions = schema.get("$defs", {})

    def number(part: Any) -> Any:
        if isinstance(part, list):
            return [number(item) for item in part]
        if not isinstance(part, dict):
            return part
        name = str(part.get("$ref", "")).removeprefix("#/$defs/")
        if name not in definitions:
            # The order of fields is in no message either.
            part = {**part, "required": sorted(part["required"])} if isinstance(part.get("required"), list) else part
            return {key: number(value) for key, value in sorted(part.items()) if key != "$defs"}
        if name in numbers:
            return {"$ref": numbers[name]}
        numbers[name] = len(numbers)
        return {**number({**part, **definitions[name], "$ref": ""}), "$ref": numbers[name]}

    return _encoder.encode(number(schema))


def _without_prose(schema: Any) -> Any:
    """The schema without titles and descriptions, which may change at will."""
    if isinstance(schema, list):
        return [_without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # Under "properties" and "$defs" the keys are names of the application's, perhaps "title".
    return {
        key: {name: _without_prose(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _without_prose(value)
        for key, value in schema.items()
        if key not in ("title", "description")
    }

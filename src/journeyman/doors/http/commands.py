"""`POST /commands/{feature}/{name}`: one handler for each command."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from journeyman.app import App
from journeyman.doors.http.answers import JsonAnswer
from journeyman.doors.web.access import access_of
from journeyman.doors.web.asgi import Scope
from journeyman.doors.web.bodies import parse, read_body
from journeyman.doors.web.exposed import exposed_commands
from journeyman.doors.web.headers import idempotency_key, require_json
from journeyman.doors.web.problems import NOT_JSON, Refused
from journeyman.doors.web.wrong_fields import WrongFields
from journeyman.feature import Command, CommandType

PREFIX = "/commands/"

#: Says that the command had been recorded by an earlier request with the same key.
REPLAYED = {"idempotent-replayed": "true"}


class Recorded(msgspec.Struct, frozen=True):
    """The command is recorded, durably."""

    position: int
    message_id: str


def command_handlers(app: App) -> list[HTTPRouteHandler]:
    """A handler for each command that may come in."""
    return [_handler(app, command) for command in exposed_commands(app.catalog)]


def _handler(app: App, command: CommandType) -> HTTPRouteHandler:
    reader = CommandReader(command.message_type.body)

    async def execute(request: Request[Any, Any, Any]) -> JsonAnswer:
        scope = cast(Scope, request.scope)
        require_json(scope)
        key = idempotency_key(scope)
        body = reader.read(await read_body(scope, request.receive))
        receipt = await app.execute(body, actor=access_of(scope).actor, idempotency_key=key)
        recorded = Recorded(receipt.position, receipt.message_id)
        # A repeated command has the first one's answer, status and all: a client needs one path for both.
        return JsonAnswer(recorded, status=201, headers=REPLAYED if receipt.repeated else {})

    return post(PREFIX + command.name)(execute)


class CommandReader:
    """Makes a command of the body of a request."""

    def __init__(self, cls: type[Command]) -> None:
        self._decode = msgspec.json.Decoder(cls).decode
        self._wrong_fields = WrongFields(cls)

    def read(self, data: bytes) -> Command:
        """The command.

        Raises:
            Refused: the body is not JSON, or has wrong fields: all of them are named.
        """
        value = parse(data)
        try:
            return self._decode(data)
        except msgspec.ValidationError as error:
            raise self._wrong_fields.refuse(value, error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            # What Python's reader lets pass: numbers out of all range, halves of surrogate pairs.
            raise Refused(NOT_JSON, f"{error}. Correct this and send it again.") from None

"""`journeyman execute` and `journeyman query`: one command or one question, from a shell or a script."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

import msgspec
import typer

from journeyman.doors.cli.opening import operator, settings_of, with_app
from journeyman.doors.cli.output import console, print_json, show
from journeyman.errors import Invalid, Rejected, TooLarge, Undecodable, UnknownName
from journeyman.feature import Catalog, Command, Query
from journeyman.message import BODY_BYTES_MAX, INTERNAL_PREFIX
from journeyman.receipts import Receipt
from journeyman.todo.jobs import OPERATOR_COMMANDS

#: The most that is read from standard input, in bytes. JSON may write one character in six, and be indented.
INPUT_BYTES_MAX: Final = 8 * BODY_BYTES_MAX


def execute(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The command: feature/verb-object. `journeyman inspect` lists them.")],
    body: Annotated[
        str, typer.Argument(metavar="JSON", help="Its fields as a JSON object; - to read it from standard input.")
    ],
    actor: Annotated[
        str | None, typer.Option("--actor", help="Who sends it; recorded. Without it: operator:USER.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", metavar="KEY", help="With the same key again, it is recorded only once."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Record one command, and print its position and id. Workers, in another process or later, do what follows."""
    command = read_command(settings_of(context).load_app().catalog, name, _read(name, body))
    receipt = with_app(
        context, lambda app: app.execute(command, actor=actor or operator(), idempotency_key=key or None)
    )
    if json:
        print_json(receipt)
    else:
        print(_said(receipt))


def query(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The query: feature/words. `journeyman inspect` lists them.")],
    body: Annotated[
        str, typer.Argument(metavar="[JSON]", help="Its fields as a JSON object; - to read it from standard input.")
    ] = "{}",
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask one question, and print the answer. Nothing is changed."""
    question = _read_query(settings_of(context).load_app().catalog, name, _read(name, body))
    answer: Any = with_app(context, lambda app: app.query(question), reads=True)
    if json:
        print_json(answer)
    else:
        show(answer, console())


def read_command(catalog: Catalog, name: str, data: bytes) -> Command:
    """The command of that name.

    Raises:
        UnknownName, Invalid: there is none, or its fields are wrong.
        Rejected: it is a fact that only the framework records.
    """
    kind = catalog.commands.get(name)
    if kind is None:
        own = [known for known in catalog.commands if not known.startswith(INTERNAL_PREFIX)]
        raise UnknownName("command", name, [*own, *operator_commands(catalog)])
    if name.startswith(INTERNAL_PREFIX) and name not in operator_commands(catalog):
        raise Rejected(
            f"{name} is a fact that the framework alone records. People may send: "
            f"{', '.join(operator_commands(catalog))}."
        )
    try:
        command = catalog.codec.decode_body(name, kind.message_type.version, data)
    except Undecodable as error:
        raise Invalid(name, [str(error)]) from error
    assert isinstance(command, Command)
    return command


def operator_commands(catalog: Catalog) -> list[str]:
    """The names of the framework's commands that people may send."""
    return sorted(map(catalog.name_of, OPERATOR_COMMANDS))


def _read_query(catalog: Catalog, name: str, data: bytes) -> Query[Any]:
    kind = catalog.queries.get(name)
    if kind is None:
        raise UnknownName("query", name, list(catalog.queries))
    try:
        question: Query[Any] = msgspec.json.decode(data, type=kind.query)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Invalid(name, [str(error)]) from error
    return question


def _read(name: str, body: str) -> bytes:
    if body != "-":
        return body.encode(errors="surrogateescape")
    data = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1)
    if len(data) > INPUT_BYTES_MAX:
        raise TooLarge(f"The input for {name}", size_bytes=len(data), limit_bytes=INPUT_BYTES_MAX)
    return data


def _said(receipt: Receipt) -> str:
    again = " (by an earlier call with this key)" if receipt.repeated else ""
    return f"Recorded at position {receipt.position}, id {receipt.message_id}{again}"

"""`journeyman log …`: looking at the log, and mending it. All of it works without a working application."""

from __future__ import annotations

import base64
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from journeyman.doors.cli.opening import operator, with_store
from journeyman.doors.cli.output import as_json, console, one_line, print_json, print_pairs
from journeyman.errors import DefinitionError, NotFound
from journeyman.message import Message, Record
from journeyman.set_aside import read_set_asides, set_aside
from journeyman.store.base import MessageLog, Store
from journeyman.timing import SYSTEM_TIMING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: How many messages one read asks for, and the most that `tail` goes back.
READ_RECORDS: Final = 500
TAIL_MAX: Final = 100_000

#: How long one wait for the log to grow takes at most, in seconds.
WAIT_S: Final = 1.0

cli = typer.Typer(help="Look at the log, and mend it.", no_args_is_help=True, rich_markup_mode=None)


@cli.callback()
def log() -> None:
    """Look at the log, and mend it."""


@cli.command("tail")
def tail(
    context: typer.Context,
    number: Annotated[
        int, typer.Option("-n", "--number", min=0, max=TAIL_MAX, help="How many of the newest messages.")
    ] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is recorded, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, as `log export` does.")] = False,
) -> None:
    """Show the newest messages, one a line; perhaps also those to come."""
    out = None if json else console()

    async def run(store: Store) -> None:
        start = max(0, await store.log.head() - number)
        async for record in _records(store.log, after=start, follow=follow):
            _print_line(record, out)

    with_store(context, run)


@cli.command("show")
def show(
    context: typer.Context,
    position: Annotated[int, typer.Argument(min=1, help="The message's position.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, as `log export` does.")] = False,
) -> None:
    """Show one message: all that is recorded of it."""

    async def find(store: Store) -> tuple[Record, bool]:
        found = await store.log.read(position - 1, 1)
        if not found or found[0].position != position:
            raise NotFound(f"There is no message at position {position}; the log ends at {await store.log.head()}.")
        return found[0], position in await read_set_asides(store.log)

    record, is_set_aside = with_store(context, find)
    if json:
        print_json(as_object(record))
    else:
        _show(record, is_set_aside)


@cli.command("export")
def export(
    context: typer.Context,
    after: Annotated[int, typer.Option("--after", min=0, help="Begin behind this position.")] = 0,
) -> None:
    """Write the log to standard output as JSON Lines, one message a line, in order. It streams: the log may be large.

    A body that is no JSON comes as `body_base64`.
    """

    async def run(store: Store) -> None:
        async for record in _records(store.log, after=after, follow=False):
            print_json(as_object(record))

    with_store(context, run)


@cli.command("set-aside")
def set_message_aside(
    context: typer.Context,
    position: Annotated[int, typer.Argument(min=1, help="The position that the error named.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
) -> None:
    """Leave one message out of every replay, for good. For a message that no code can apply any more.

    It needs no working application: only the store.
    """
    if not reason.strip() or len(reason) > 1000:
        raise DefinitionError("The reason must have 1 to 1000 characters: it is what the next reader of the log has.")

    async def run(store: Store) -> int:
        return await set_aside(
            store.log,
            position,
            reason=reason,
            actor=operator(),
            recorded_at_us=SYSTEM_TIMING.now_us(),
            new_id=SYSTEM_TIMING.new_id,
        )

    decided_at = with_store(context, run)
    print(f"Position {position} is set aside from now on; the decision is at position {decided_at}.")


async def _records(log: MessageLog, *, after: int, follow: bool) -> AsyncIterator[Record]:
    """What is there behind a position; with `follow` also what comes, for ever."""
    while True:
        while records := await log.read(after, READ_RECORDS):
            for record in records:
                yield record
            after = records[-1].position
        sys.stdout.flush()
        if not follow:
            return
        await log.wait(after, WAIT_S)


def as_object(record: Record) -> dict[str, Any]:
    """A record for programs: its own fields, with body and meta as the JSON that they are."""
    fields = msgspec.structs.asdict(record)
    for name in ("body", "meta"):
        data: bytes | None = fields.pop(name)
        if data is None:
            fields[name] = None
        elif _is_json_line(data):
            fields[name] = msgspec.Raw(data)
        else:
            fields[f"{name}_base64"] = base64.b64encode(data).decode()
    return fields


def _is_json_line(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
        data.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return b"\n" not in data


def _print_line(record: Record, out: Console | None) -> None:
    """One message as one line: for people, or as JSON when there is no console."""
    if out is None:
        print_json(as_object(record))
    elif out.is_terminal:
        out.print(_line(record), no_wrap=True, overflow="ellipsis", crop=True)
    else:
        print(_line(record).plain)


def _line(record: Record) -> Text:
    from rich.text import Text

    subject = one_line(record.subject or "–")
    actor = f"  by {one_line(record.actor)}" if record.actor else ""
    return Text.assemble(
        f"{record.position:>7}  ",
        (f"{_recorded_at(record)}  ", "dim"),
        (f"{one_line(record.name):<34}", "bold"),
        f"  {subject}",
        (actor, "dim"),
    )


def _recorded_at(record: Record) -> str:
    return Message(record, None).recorded_at.strftime("%Y-%m-%d %H:%M:%SZ")


def _show(record: Record, is_set_aside: bool) -> None:
    out = console()
    fields = as_object(record)
    body = {name: fields.pop(name) for name in ("body", "body_base64", "meta", "meta_base64") if name in fields}
    fields = {name: value for name, value in fields.items() if value is not None}
    fields["recorded_at"] = _recorded_at(record)
    del fields["recorded_at_us"]
    if is_set_aside:
        fields["set_aside"] = "left out of every replay"
    print_pairs(out, **fields)
    for name, value in body.items():
        if value is not None:
            out.print(name.replace("_", " "), style="bold")
            out.print(as_json(value, indent=2), soft_wrap=True)

"""`journeyman import`: documents from files become commands of the application, once each, however often it is run.

What a document becomes is the application's to say, by a function beside it in its module:

    def import_command(*, title: str, content: str, post_id: str) -> Command
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
import typer

from journeyman.app import App
from journeyman.doors.cli.opening import operator, settings_of, with_app
from journeyman.doors.cli.output import console, print_json
from journeyman.errors import Busy, DefinitionError, JourneymanError, OutcomeUnknown, Rejected
from journeyman.feature import Command
from journeyman.receipts import Receipt

if TYPE_CHECKING:
    from journeyman.doors.cli.files import Document, Files

#: The function's name in the application's module.
HOOK: Final = "import_command"

#: How many documents are on their way into the log at once, with how many characters together.
BATCH_MAX: Final = 200
BATCH_CHARACTERS_MAX: Final = 4_000_000

#: For how long a store that is busy is asked again, in seconds.
PATIENCE_S: Final = 60.0

MakeCommand = Callable[..., Command]


class Counts(msgspec.Struct):
    """What an import has done so far."""

    documents: int = 0
    imported: int = 0
    already: int = 0

    def said(self) -> str:
        return f"{self.imported} imported, {self.already} here already"


class _Item(msgspec.Struct, frozen=True):
    """A document on its way: its command, and the key under which it is recorded once."""

    document: Document
    command: Command
    key: str


def import_(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", help="Files (.jsonl .ndjson .csv .md .markdown .txt), and folders of them."),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Record a post for each document in files: again, too, for nothing is doubled.

    JSON Lines and CSV have title, content and perhaps post_id. In Markdown the first heading is the title, in a text
    file the first line, else the file's name. It stops at the first fault, and says where, and what was kept.
    """
    from journeyman.doors.cli.files import find_files

    make = _hook(context)
    files = find_files(paths)
    counts = Counts()
    try:
        with_app(context, lambda app: _import(app, files, make, counts))
    except JourneymanError as error:
        error.add_note(f"Kept: {counts.said()}; importing again doubles nothing.")
        raise
    except KeyboardInterrupt:
        print(f"Stopped. Kept, at least: {counts.said()}; importing again goes on from there.", file=sys.stderr)
        raise
    if json:
        print_json({**msgspec.structs.asdict(counts), "files": len(files.paths), "passed_over": files.passed_over})
    else:
        over = f", {files.passed_over} of other kinds passed over" if files.passed_over else ""
        print(f"{counts.documents} documents in {len(files.paths)} files{over}: {counts.said()}.")


def _hook(context: typer.Context) -> MakeCommand:
    settings = settings_of(context)
    settings.load_app()
    make: MakeCommand | None = getattr(settings.load_module(), HOOK, None)
    if make is None:
        raise DefinitionError(
            f"{settings.app_name} can't import: define {HOOK}(*, title, content, post_id), which returns a command, "
            "beside the App in its module."
        )
    return make


async def _import(app: App, files: Files, make: MakeCommand, counts: Counts) -> None:
    earlier = _EarlierKeys(app)
    # Not closed at the end: a thread may still be reading when Ctrl-C ends this.
    items = _items(files, make)
    with _progress(files) as show:
        while True:
            batch, fault = await asyncio.to_thread(_take, items)
            outcomes = await asyncio.gather(*(_execute(app, item) for item in batch), return_exceptions=True)
            fault = await _count(batch, outcomes, counts, earlier) or fault
            if fault is not None:
                raise fault
            if not batch:
                return
            show(batch[-1].document, counts)


def _items(files: Files, make: MakeCommand) -> Iterator[_Item]:
    """The documents with their commands. An id derives from file name, title, content, and how often these came."""
    occurrences: Counter[str] = Counter()
    for document in files.documents():
        named = dumps([document.post_id, None if document.post_id else document.file, document.title, document.content])
        derived = uuid5(NAMESPACE_URL, named)
        if document.post_id is None:
            occurrences[str(derived)] += 1
            derived = uuid5(derived, str(occurrences[str(derived)]))
        try:
            command = make(title=document.title, content=document.content, post_id=document.post_id or str(derived))
        except JourneymanError as error:
            error.add_note(f"It stands in {document.place}.")
            raise
        yield _Item(document, command, f"import:{derived}")


def _take(items: Iterator[_Item]) -> tuple[list[_Item], JourneymanError | None]:
    """The next documents, at most a batch; and the fault, when reading came to one behind them."""
    batch: list[_Item] = []
    characters = 0
    try:
        for item in items:
            batch.append(item)
            characters += len(item.document.content)
            if len(batch) == BATCH_MAX or characters >= BATCH_CHARACTERS_MAX:
                break
    except JourneymanError as fault:
        return batch, fault
    return batch, None


async def _execute(app: App, item: _Item) -> Receipt:
    """Record one document. A busy store is asked again for a while: the key makes that harmless."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + PATIENCE_S
    for attempt in count(1):
        try:
            return await app.execute(item.command, actor=operator(), idempotency_key=item.key)
        except (Busy, OutcomeUnknown) as error:
            if loop.time() > give_up_at:
                raise
            pause_s = error.retry_after_s if isinstance(error, Busy) else 1.0
            await asyncio.sleep(min(pause_s * attempt, 5.0))
    raise AssertionError("unreachable")


async def _count(
    batch: Sequence[_Item], outcomes: Sequence[Receipt | BaseException], counts: Counts, earlier: _EarlierKeys
) -> JourneymanError | None:
    """Count what became of a batch. The first fault in it is returned; what is behind it may have been kept."""
    first: JourneymanError | None = None
    for item, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Receipt):
            counts.imported += not outcome.repeated
            counts.already += outcome.repeated
        elif isinstance(outcome, Rejected) and await earlier.have(item):
            counts.already += 1
        elif not isinstance(outcome, JourneymanError):
            raise outcome
        elif first is None:
            outcome.add_note(f"It stands in {item.document.place}.")
            first = outcome
    counts.documents += len(batch)
    return first


class _EarlierKeys:
    """The keys that imports have ever recorded. The application remembers the newest keys only; the log has them all.

    It is read when a document is refused for the first time: nearly always because the document is there already.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._keys: dict[str, set[str]] = {}

    async def have(self, item: _Item) -> bool:
        name = self._app.catalog.command_of(item.command).name
        if name not in self._keys:
            self._keys[name] = await self._read(name)
        return item.key in self._keys[name]

    async def _read(self, name: str) -> set[str]:
        keys: set[str] = set()
        after = 0
        while records := await self._app.store.log.read(after, 1000, name=name):
            keys.update(record.idempotency_key for record in records if record.idempotency_key is not None)
            after = records[-1].position
        return keys


@contextmanager
def _progress(files: Files) -> Iterator[Callable[[Document, Counts], None]]:
    """A progress bar on standard error, if that is a terminal, by the bytes read."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    out = console(stderr=True)
    columns = (TextColumn("Importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[said]}"), console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=files.size_bytes(), said="")
        yield lambda document, counts: bar.update(task, completed=document.read_bytes, said=counts.said())

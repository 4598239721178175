"""The demo: every module of the Python standard library becomes a post, and every post gets its summary."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from time import monotonic
from uuid import NAMESPACE_URL, uuid5

from msgspec import Struct, to_builtins
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from journeyman import App, Busy, OutcomeUnknown, Receipt

from .documents import Document, standard_library_documents
from .posts import CreatePost, ListPosts, PostWorker, Summarizer, posts, summarizer_from_environment

#: How many posts are on their way into the log at once, and how many are shown at the end.
IMPORT_AT_ONCE = 32
SHOWN = 5

#: For how long a store that is busy is asked again, in seconds, and how soon.
PATIENCE_S = 60.0
PAUSE_S = 1.0


#: Serves a running application in its block, and yields the URL.
Serving = Callable[[App], AbstractAsyncContextManager[str]]


class Result(Struct, frozen=True):
    """What a run of the demo did, and what the log holds by now."""

    store: str
    summarizer: str
    documents: int
    imported: int
    posts: int
    done: int
    failed: int
    unanswered: int
    messages: int
    attempts: int
    answers: int
    seconds: float


def run(store: str, *, serving: Serving | None = None, delay_s: float = 0.0, as_json: bool = False) -> int:
    """Run the demo on a store. Returns the exit code.

    With `serving` it serves while it works, and then until it is stopped: 0. Else it ends by itself, and returns 0 if
    and only if every post has its answer.
    """
    console = Console(stderr=as_json)
    try:
        result = asyncio.run(_run(store, serving, delay_s, console, as_json=as_json))
    except asyncio.CancelledError:
        console.print("Stopped. What is recorded is kept: run it again, and it goes on from there.")
        return 1 if serving is None else 0
    return 0 if result.unanswered == 0 and result.posts >= result.documents else 1


async def _run(store: str, serving: Serving | None, delay_s: float, console: Console, *, as_json: bool) -> Result:
    _end_on_signals()
    summarizer = summarizer_from_environment()
    app = App(
        features=[posts],
        workers=[PostWorker(lambda: _Slow(summarizer, delay_s) if delay_s else summarizer)],
        pages=[f"{__package__}.posts.pages:pages"],
    )
    started = monotonic()
    documents = await asyncio.to_thread(lambda: list(standard_library_documents()))
    async with app.running(store), serving(app) if serving else nullcontext() as url:
        console.print(f"Store       {app.store.url}\nSummarizer  {summarizer.description}", highlight=False)
        if url is not None:
            console.print(f"Serving     {url}", highlight=False)
        with _progress(console) as progress:
            imported = await _import(app, documents, _advance(progress, "Importing", len(documents)))
            await _summarise(app, progress)
        result = await _result(app, summarizer, documents, imported, started)
        await _tell(app, result, url, console, as_json=as_json)
        if url is not None:
            await app.wait()
    return result


async def _tell(app: App, result: Result, url: str | None, console: Console, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(to_builtins(result)) + "\n")
        sys.stdout.flush()
        return
    await _show(app, result, console)
    _point_onward(result, url, console)


async def _import(app: App, documents: list[Document], advance: Callable[[], None]) -> int:
    """Create a post for each document. Run again, it creates none twice: ids and keys derive from the content."""
    at_once = asyncio.Semaphore(IMPORT_AT_ONCE)

    async def create(document: Document) -> bool:
        post_id = str(uuid5(NAMESPACE_URL, f"{document.name}\n{document.content}"))
        post = CreatePost(post_id=post_id, title=document.title, content=document.content)
        async with at_once:
            receipt = await _record(app, post)
        advance()
        return not receipt.repeated

    return sum(await asyncio.gather(*map(create, documents)))


async def _record(app: App, post: CreatePost) -> Receipt:
    """Record one post. A busy store is asked again for a while: the key makes that harmless."""
    give_up_at = monotonic() + PATIENCE_S
    while True:
        try:
            return await app.execute(post, actor="demo", idempotency_key=f"demo:{post.post_id}")
        except (Busy, OutcomeUnknown):
            if monotonic() > give_up_at:
                raise
            await asyncio.sleep(PAUSE_S)


async def _summarise(app: App, progress: Progress) -> None:
    """Watch the worker until no post waits for its answer."""
    total = (await app.query(ListPosts())).total
    task = progress.add_task("Summarising", total=total)
    while True:
        position = app.position
        answered = total - await _unanswered(app)
        progress.update(task, completed=answered)
        if answered == total:
            return
        await app.store.log.wait(position, 1.0)
        await asyncio.sleep(0.05)  # A look at a time is enough: the worker needs the processor more.


async def _unanswered(app: App) -> int:
    none = await app.query(ListPosts(summary_status="none"))
    pending = await app.query(ListPosts(summary_status="pending"))
    return none.total + pending.total


async def _result(app: App, summarizer: Summarizer, documents: list[Document], imported: int, started: float) -> Result:
    names = await _count_messages(app)
    done = await app.query(ListPosts(summary_status="done"))
    failed = await app.query(ListPosts(summary_status="failed"))
    return Result(
        store=app.store.url,
        summarizer=summarizer.description,
        documents=len(documents),
        imported=imported,
        posts=(await app.query(ListPosts())).total,
        done=done.total,
        failed=failed.total,
        unanswered=await _unanswered(app),
        messages=names.total(),
        attempts=names["journeyman/job-started"],
        answers=names["posts/set-generated-summary"] + names["posts/fail-summary-generation"],
        seconds=round(monotonic() - started, 2),
    )


async def _count_messages(app: App) -> Counter[str]:
    """How many messages of each name the log holds: it alone says what happened."""
    names: Counter[str] = Counter()
    position = 0
    while records := await app.store.log.read(position, 1000):
        names.update(record.name for record in records)
        position = records[-1].position
    return names


async def _show(app: App, result: Result, console: Console) -> None:
    table = Table(title="The newest summaries", title_justify="left", box=None, padding=(0, 2, 1, 0))
    table.add_column("Post", style="bold", ratio=1)
    table.add_column("Summary", ratio=3)
    for post in (await app.query(ListPosts(page_size=SHOWN))).posts:
        table.add_row(_plain(post.title), _plain(post.summary or post.summary_error or ""))
    console.print()
    console.print(table)
    already = result.documents - result.imported
    console.print(
        f"{result.posts} posts, {result.imported} new" + (f", {already} here already" if already else "") + "; "
        f"{result.done} summarised, {result.failed} failed, {result.unanswered} without an answer.\n"
        f"The log holds {result.messages} messages: {result.attempts} attempts, {result.answers} answers "
        f"({result.seconds:.1f} s).",
        highlight=False,
    )


def _point_onward(result: Result, url: str | None, console: Console) -> None:
    """Say where to look next."""
    worker = os.path.relpath(sys.modules[PostWorker.__module__].__file__ or "")
    again = _command()
    lines = [
        ("the worker", worker),
        ("pull the plug", f"{again} demo --delay 0.5; kill -9 it in the middle, and run it again"),
    ]
    if result.store != "memory:":
        lines.append(("the log", f"{again} --store {result.store} log tail"))
    if url is not None:
        lines.append(("the posts", f"{url}   (until Ctrl-C; the same as JSON: {url}/queries/posts/list)"))
        lines.append(("the console", f"{url}/console"))
    text = "\n".join(f"  {what:14} {where}" for what, where in lines)
    console.print(f"\nWhere to look next\n{text}", highlight=False, markup=False, soft_wrap=True)


def _command() -> str:
    """How to start this program again from here: it need not be on the PATH."""
    if shutil.which("journeyman"):
        return "journeyman"
    started = sys.argv[0]
    return os.path.relpath(started) if os.path.basename(started) == "journeyman" else "python -m journeyman"


class _Slow:
    """A summarizer as slow as a service across the network may be: there is time to pull the plug."""

    def __init__(self, summarizer: Summarizer, delay_s: float) -> None:
        self._summarizer = summarizer
        self._delay_s = delay_s
        self.description = summarizer.description

    async def summarize(self, title: str, content: str, *, key: str) -> str:
        await asyncio.sleep(self._delay_s)
        return await self._summarizer.summarize(title, content, key=key)

    async def close(self) -> None:
        await self._summarizer.close()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:11}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _advance(progress: Progress, what: str, total: int) -> Callable[[], None]:
    task = progress.add_task(what, total=total)
    return lambda: progress.advance(task)


def _plain(text: str) -> str:
    """Text, not markup; and nothing that a terminal obeys: a summary may say whatever it likes."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.replace("[", r"\[")


def _end_on_signals() -> None:
    """Let SIGTERM and Ctrl-C end the demo cleanly, running summaries finished or handed back; a second one kills."""
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)

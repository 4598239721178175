"""The benchmarks: `make bench`, or `python -m benchmarks`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import durability, report, results
from benchmarks.machine import about
from benchmarks.results import RowResult
from benchmarks.rows import FULL, QUICK, Contender, Row, rows
from benchmarks.runs import PEERS_PYTHON, ROOT, Failed, Workplace
from benchmarks.servers import Servers

ROUNDS = 5

PLOT = "![The rates of the rows](performance.svg)\n"
BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"


def main(
    only: Annotated[str, typer.Option("--rows", help="Only these rows, by name or its beginning: a,b.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One round, small sizes: to see that it runs.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="How often each contender runs.")] = ROUNDS,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything measured here, too.")] = None,
    directory: Annotated[Path, typer.Option(help="Where the stores are laid: on the disk to measure.")] = ROOT
    / "build",
    publish: Annotated[bool, typer.Option("--publish", help="Write docs/performance.* of what is measured.")] = False,
    list_rows: Annotated[bool, typer.Option("--list", help="Only name the rows.")] = False,
) -> None:
    """Measure Journeyman beside its bare limits and its peers.

    Each row is one kind of work. The bare contenders do it in a plain script on the same driver, with the same
    durability: what is left to gain. The peers do it their way. Contenders run in turn, each in a process and on a
    store of its own; ratios are of the same round. Let the machine do nothing else meanwhile.
    """
    console = _console()
    chosen = _chosen(rows(QUICK if quick else FULL), only)
    if publish and (quick or only):
        raise typer.BadParameter("what is published is the whole: --publish goes with neither --quick nor --rows.")
    if list_rows:
        for row in chosen:
            console.print(f"{row.name:<20} {row.title}")
        return
    directory.mkdir(parents=True, exist_ok=True)
    rounds = 1 if quick else rounds
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as folder, Servers(Path(folder)) as servers:
        workplace = Workplace(Path(folder), servers)
        environment = about(Path(folder), rounds=rounds, quick=quick)
        measured, durable = _measure(console, workplace, chosen, rounds)
    report.show(console, measured, durable, environment)
    document = results.as_json(measured, durable, environment)
    if json_file is not None:
        _write_json(json_file, document)
    failures = [one.objection for one in durable if one.objection]
    failures += [why for result in measured for why in result.failed.values()]
    if failures:
        console.print("\n".join(failures), style="red", markup=False)
        raise typer.Exit(1)
    if publish:
        _publish(document, report.as_markdown(measured, durable, environment))


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, report.WIDTH_MIN))


def _chosen(all_rows: list[Row], only: str) -> list[Row]:
    """The rows whose names begin with one of the words.

    Raises:
        typer.BadParameter: a word begins no name.
    """
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not any(row.name.startswith(word) for row in all_rows):
            raise typer.BadParameter(f"no row is named {word}. There are {', '.join(row.name for row in all_rows)}.")
    return [row for row in all_rows if not words or any(row.name.startswith(word) for word in words)]


def _measure(
    console: Console, workplace: Workplace, chosen: list[Row], rounds: int
) -> tuple[list[RowResult], list[durability.Durability]]:
    """Run everything, with a bar that shows what runs."""
    measured = [RowResult(row) for row in chosen]
    checked = _checked(chosen)
    columns = (TextColumn("{task.description:<58}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        total = len(checked) + sum(rounds * len(row.contenders) for row in chosen)
        bar = progress.add_task("", total=total)
        durable = []
        for contender in checked:
            progress.update(bar, description=f"durability of {contender.name}")
            durable.append(durability.check(workplace, contender))
            progress.advance(bar)
        for result in measured:
            for number in range(rounds):
                for contender in _in_turn(result.row, number):
                    progress.update(bar, description=f"{result.row.name}: {contender.name}")
                    _run(workplace, result, contender, number)
                    progress.advance(bar)
    return measured, durable + _told(measured)


def _told(measured: list[RowResult]) -> list[durability.Durability]:
    """What those on servers have said of their connections."""
    found = [
        durability.told(contender, next(iter(result.rounds[contender.name].values())))
        for result in measured
        for contender in result.row.contenders
        if contender.name in result.rounds
    ]
    return [one for one in found if one is not None]


def _checked(chosen: list[Row]) -> list[Contender]:
    """The durability of those that take part."""
    modules = {contender.module for row in chosen for contender in row.contenders}
    return [contender for contender in durability.CHECKED if contender.module in modules]


def _in_turn(row: Row, number: int) -> list[Contender]:
    """Each round begins with another contender: none is always the first, on the coolest machine."""
    first = number % len(row.contenders)
    return [*row.contenders[first:], *row.contenders[:first]]


def _run(workplace: Workplace, result: RowResult, contender: Contender, number: int) -> None:
    try:
        workplace.prepare(contender)
        result.add(contender, number, workplace.run(contender))
    except Failed as error:
        result.failed[contender.name] = str(error)


def _write_json(file: Path, document: object) -> None:
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _publish(document: object, table: str) -> None:
    """The results into docs/performance.md, between its marks; the same as JSON, and the plot that is drawn of it."""
    page, data = ROOT / "docs/performance.md", ROOT / "docs/performance.json"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table}\n{PLOT}{END}{after}", encoding="utf-8")
    _write_json(data, document)
    subprocess.run(  # noqa: S603  # our own script
        [PEERS_PYTHON, ROOT / "benchmarks/plot.py", data, data.with_suffix(".svg")], check=True
    )


if __name__ == "__main__":
    typer.run(main)

"""The results as tables, for the terminal and for a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.durability import Durability
from benchmarks.results import RowResult, spread
from benchmarks.rows import UNITS

HEADERS = ("Who", "Median", "Also", "Spread", "Journeyman is")

#: The width of what is not printed to a terminal, in characters.
WIDTH_MIN = 132


def show(
    console: Console, results: Sequence[RowResult], durability: Sequence[Durability], about: dict[str, Any]
) -> None:
    """One table of all rows; before it what it was measured on, and how durable each contender is."""
    for name, value in about.items():
        console.print(f"{name:<12} {value}", highlight=False, soft_wrap=True)
    if durability:
        console.print(_durability_table(durability))
    table = Table(*HEADERS, box=box.SIMPLE_HEAD)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for result in results:
        table.add_row(f"[bold]{result.row.title}[/]")
        for cells in _lines(result):
            table.add_row(*cells)
        for text, reached in _goals(result):
            table.add_row(f"[{'green' if reached else 'bold red'}]{text}[/]")
        table.add_section()
    console.print(table)


def as_markdown(results: Sequence[RowResult], durability: Sequence[Durability], about: dict[str, Any]) -> str:
    """The same for a document."""
    parts = [f"- {name}: {value}" for name, value in about.items()]
    if durability:
        parts += ["", "| Who | waits for the disk, each piece of work | its connection |", "| --- | ---: | --- |"]
        parts += [f"| {one.name} | {_syncs(one)} | {one.settings} |" for one in durability]
    for result in results:
        parts += ["", f"**{result.row.title}**", ""]
        parts += [f"| {' | '.join(HEADERS)} |", "| --- | ---: | ---: | ---: | ---: |"]
        parts += [f"| {' | '.join(cells)} |" for cells in _lines(result)]
        parts += ["", *(f"- {text}" for text, _ in _goals(result))]
    return "\n".join(parts) + "\n"


def _durability_table(durability: Sequence[Durability]) -> Table:
    table = Table("Who", "Waits for the disk, each piece of work", "Its connection", "", box=box.SIMPLE_HEAD)
    for one in durability:
        table.add_row(one.name, _syncs(one), one.settings, "[bold red]no equal[/]" if one.objection else "")
    return table


def _syncs(one: Durability) -> str:
    if one.server:
        return f"its {one.server} server does"
    if one.syncs is None:
        return "not counted" if one.failed else "not counted: no strace here"
    return f"{one.syncs:.2f} times"


def _lines(result: RowResult) -> Iterator[tuple[str, ...]]:
    """A line for each contender; a first figure is what is compared."""
    own = next((one.name for one in result.row.contenders if one.name in result.rounds), "")
    for contender in result.row.contenders:
        name = contender.name
        if name in result.failed:
            yield name, "failed", "", "", ""
        if figures := result.figures(name):
            first, *others = figures
            ratio = None if name == own else result.ratio(own, name, first)
            yield (
                name,
                _written(first, median(result.values(name, first))),
                ", ".join(_written(other, median(result.values(name, other))) for other in others),
                f"± {spread(result.values(name, first)):.0%}",
                "" if ratio is None else f"{ratio:,.2f} ×",
            )


def _goals(result: RowResult) -> Iterator[tuple[str, bool]]:
    for goal in result.row.goals:
        value, reached = result.reached(goal)
        measured = "no figure" if value is None else f"measured {value:,.2f}"
        yield f"{'✓ reached' if reached else '✗ not reached'}: {goal.text}; {measured}", reached


def _written(figure: str, value: float) -> str:
    unit, _ = UNITS[figure]
    label = {"p50_ms": "p50 ", "p99_ms": "p99 ", "process_s": "with the process "}.get(figure, "")
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
    return f"{label}{number} {unit}" if unit != "/s" else f"{number}/s"

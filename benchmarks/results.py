"""What came out: the figures of all rounds, their medians, and whether the goals are reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.durability import Durability
from benchmarks.load import Figures
from benchmarks.rows import UNITS, Contender, Goal, Row


@dataclass
class RowResult:
    """The figures of one row, by contender and round; and what failed, by contender."""

    row: Row
    rounds: dict[str, dict[int, Figures]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, contender: Contender, number: int, figures: Figures) -> None:
        self.rounds.setdefault(contender.name, {})[number] = figures

    def figures(self, contender: str) -> list[str]:
        """The names of the figures that a contender has told, in their order."""
        told = next(iter(self.rounds.get(contender, {}).values()), {})
        return [name for name in UNITS if name in told]

    def values(self, contender: str, figure: str) -> list[float]:
        return [figures[figure] for figures in self.rounds.get(contender, {}).values() if figure in figures]

    def ratio(self, of: str, than: str, figure: str) -> float | None:
        """The median of the ratios of each round; None when there is no round in which both have the figure."""
        ours, theirs = self.rounds.get(of, {}), self.rounds.get(than, {})
        both = [number for number in ours if figure in ours[number] and figure in theirs.get(number, {})]
        return median(ours[number][figure] / theirs[number][figure] for number in both) if both else None

    def reached(self, goal: Goal) -> tuple[float | None, bool]:
        """What is compared with the goal's bound, and whether that is enough; never without a figure."""
        if goal.than is not None:
            value = self.ratio(goal.of, goal.than, goal.figure)
        else:
            values = self.values(goal.of, goal.figure)
            value = median(values) if values else None
        if value is None:
            return None, False
        return value, value >= goal.bound if goal.at_least else value <= goal.bound


def spread(values: Sequence[float]) -> float:
    """How far the farthest round is from the median, as a share of it."""
    middle = median(values)
    return max(abs(value - middle) for value in values) / abs(middle) if middle else 0.0


def as_json(results: Sequence[RowResult], durability: Sequence[Durability], about: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "about": about,
        "durability": [{"name": one.name, "syncs": one.syncs, "settings": one.settings} for one in durability],
        "rows": [_row(result) for result in results],
    }


def _row(result: RowResult) -> dict[str, Any]:
    goals = [(goal, *result.reached(goal)) for goal in result.row.goals]
    return {
        "name": result.row.name,
        "title": result.row.title,
        "failed": result.failed,
        "contenders": {name: _contender(result, name) for name in result.rounds},
        "goals": [{"text": goal.text, "value": value, "reached": reached} for goal, value, reached in goals],
    }


def _contender(result: RowResult, name: str) -> dict[str, Any]:
    told = {figure: result.values(name, figure) for figure in result.figures(name)}
    settings = {figures["durability"] for figures in result.rounds[name].values() if "durability" in figures}
    return {
        "figures": {
            figure: {"median": median(values), "spread": spread(values), "rounds": values}
            for figure, values in told.items()
        },
        "durability": sorted(settings),
    }

"""Draws the rates of a run: python benchmarks/plot.py RESULTS.json PLOT.svg

Needs matplotlib, which only the peers' environment has.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt  # after the choice of what it draws with

COLOURS = {"journeyman": "#1b6ca8", "bare": "#b8b8b8"}
PEER_COLOUR = "#d98c3f"


def rates_of(document: Any) -> dict[str, dict[str, tuple[float, float]]]:
    """Of each row that has rates: its title, and for each contender the median and the distance to the farthest."""
    return {
        row["title"]: {
            name: (rate["median"], rate["median"] * rate["spread"])
            for name, contender in row["contenders"].items()
            if (rate := contender["figures"].get("per_s"))
        }
        for row in document["rows"]
        if any("per_s" in contender["figures"] for contender in row["contenders"].values())
    }


def draw(document: Any, file: Path) -> None:
    """A panel for each row, each with its own scale from zero: bars are to be compared within a row."""
    rates = rates_of(document)
    heights = [0.9 + 0.32 * len(bars) for bars in rates.values()]
    figure, panels = plt.subplots(
        len(rates), 1, figsize=(9, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for panel, (title, bars) in zip(panels[:, 0], rates.items(), strict=True):
        names = list(bars)[::-1]
        colours = [COLOURS.get(name.partition(":")[0], PEER_COLOUR) for name in names]
        panel.barh(names, [bars[name][0] for name in names], xerr=[bars[name][1] for name in names], color=colours)
        panel.set_title(f"{title}, per second", loc="left", fontsize=10)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    figure.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))

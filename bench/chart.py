"""Draws the chart of the README: reads latest.json of the folder given, writes latest.svg."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {"floor": "#b8bec7", "queue": "#4b5fa8", "inline": "#e0912f", "process": "#4f9a77"}
LABELS = {
    "floor": "floor: no Python",
    "queue": "Py, in: :thread",
    "inline": "Py, inline",
    "process": "Py, in: :process",
}
LATENCY = {"L1 p50": "call\np50", "L1 p99": "call\np99", "L1 cold p50": "cold call\np50"}
RATE = {"T1": "64\nprocesses", "T2": "1,000\nprocesses"}
WIDTH = 0.21
LEAST_LATENCY = 0.05  # a logarithmic axis has no zero: where its bars begin

Medians = dict[tuple[str, str], float]


def main(folder: Path) -> None:
    report: dict[str, Any] = json.loads((folder / "latest.json").read_text())
    medians = {
        (row["name"], row["way"]): statistics.median(row["values"]) for row in report["rows"]
    }
    # The same figures give the same file.
    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "py"})
    drawn(medians, report["machine"]).savefig(folder / "latest.svg", metadata={"Date": None})


def drawn(medians: Medians, machine: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[len(LATENCY), len(RATE)])
    bars(left, LATENCY, medians)
    left.set_yscale("log")
    left.set_ylim(bottom=LEAST_LATENCY)
    left.set_title("Latency, µs (log scale, less is better)", loc="left")
    bars(right, RATE, medians)
    right.set_title("Calls per second (more is better)", loc="left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(COLOURS), frameon=False)
    note = "math.sqrt; {cores} cores, Python {python}, OTP {otp}".format(**machine)
    figure.text(0.99, 0.02, note, ha="right", color="#5b6470")
    return figure


def bars(axes: Axes, groups: dict[str, str], medians: Medians) -> None:
    for place, (way, colour) in enumerate(COLOURS.items()):
        heights = [medians[name, way] for name in groups]
        middle = (len(COLOURS) - 1) / 2
        positions = [index + (place - middle) * WIDTH for index in range(len(groups))]
        drawn_bars = axes.bar(positions, heights, WIDTH * 0.94, color=colour, label=LABELS[way])
        axes.bar_label(drawn_bars, [shown(height) for height in heights], padding=2, fontsize=8)
    axes.set_xticks(range(len(groups)), list(groups.values()))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    axes.yaxis.set_visible(False)
    axes.margins(y=0.12)


def shown(number: float) -> str:
    if number >= 1_000_000:
        return f"{number / 1_000_000:.1f} M"
    if number >= 1_000:
        return f"{number / 1_000:.0f} k"
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

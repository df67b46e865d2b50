"""An experiment's results as a picture: every cell's difference to greedy, with its interval."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from suder.evaluation.result import DIRECTIONS
from suder.storage.files import write_bytes

_TITLES = {
    "generation": "pictures of unseen prompts",
    "understanding": "captions of unseen pictures",
}
_COLORS = ("#0b6e8a", "#d1603d", "#5b8c3e", "#7a5195")  # one a start model


def plot(results: dict[str, Any], path: Path) -> None:
    """Write a PNG: one row an arm, one dot a cell, zero being the start model decoded greedily."""
    arms = list(results["arms"])
    starts = list(results["controls"])
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(10, 1.4 + 0.42 * max(len(arms), 1)), layout="constrained")
        FigureCanvasAgg(figure)
        for place, direction in enumerate(DIRECTIONS):
            axis = figure.add_subplot(1, 2, place + 1)
            _panel(axis, results["cells"], arms, starts, direction)
            axis.set_title(_TITLES[direction], loc="left", fontweight="bold")
            if place:
                axis.set_yticklabels([])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=len(starts), frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())


def _panel(axis: Any, cells: list[dict[str, Any]], arms: list[str], starts: list[str],
           direction: str) -> None:  # fmt: skip
    axis.axvline(0, color="#888888", linewidth=1)
    labelled = set()
    for height, arm in enumerate(arms):
        rows = [cell for cell in cells if cell["arm"] == arm]
        for step, cell in enumerate(rows):
            one = cell["greedy"][direction]
            low, high = one["interval"]
            start = starts.index(cell["start"])
            y = height + 0.6 * ((step + 0.5) / len(rows) - 0.5)
            color = _COLORS[start % len(_COLORS)]
            label = None if start in labelled else f"start {Path(cell['start']).name}"
            labelled.add(start)
            axis.plot([100 * low, 100 * high], [y, y], color=color, linewidth=1.4, alpha=0.6)
            axis.plot(100 * one["difference"], y, "o", color=color, markersize=4, label=label)
    axis.set_yticks(range(len(arms)), arms)
    axis.set_ylim(max(1, len(arms)) - 0.5, -0.5)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.spines[["right"]].set_visible(False)
    axis.set_xlabel("points over the start model, both greedy (95% interval)")

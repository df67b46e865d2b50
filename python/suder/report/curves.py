"""The report's diagrams, as PNG inside the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib

from suder.evaluation.compare import Row
from suder.report.figures import STYLE, legend, new_figure, png, rounds_axis
from suder.report.run_data import RunData
from suder.report.shapes import is_number
from suder.storage.shown import shown as visible

DIRECTIONS = {"generation": "#0b6e8a", "understanding": "#d1603d"}
NAMES = {"generation": "drawing (text to picture)", "understanding": "captioning (picture to text)"}
_LONGEST = 40  # characters of a category in a diagram
BASE, TUNED = "#a9b4bd", "#0b6e8a"


def training_curves(run: RunData) -> str:
    """Both rewards, KL, gradient norms and entropy of the training samples, round by round."""
    panels = [
        ("reward", "dual reward of the samples", "nats per token"),
        ("kl", "KL to the start, training samples", "nats per token"),
        ("grad_norm", "gradient norm, before balancing", ""),
        ("entropy", "entropy of the samples", "nats per token"),
    ]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 5.2)
        for place, (name, title, unit) in enumerate(panels):
            axis = figure.add_subplot(2, 2, place + 1)
            for direction, color in DIRECTIONS.items():
                at, values = run.series(f"{name}/{direction}")
                if name == "kl" and not at:  # not trained, but held
                    at, values = run.series(f"anchor_kl/{direction}")
                _trend(axis, at, values, color, NAMES[direction])
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_ylabel(unit)
            rounds_axis(axis, labelled=place >= 2)
        legend(figure)
        return png(figure)


def guard_curves(run: RunData) -> str:
    """What the guard saw on held-out inputs: KL, and the reward under the frozen start model."""
    kept = run.summary.kept_round if run.summary else None
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 2.9)
        for place, (name, title) in enumerate(
            (
                ("kl", "KL to the start, held-out inputs"),
                ("gain", "reward gained, start model's view"),
            )
        ):
            axis = figure.add_subplot(1, 2, place + 1)
            for direction, color in DIRECTIONS.items():
                at, values = run.series(f"guard/{name}/{direction}")
                axis.plot(at, values, "o-", color=color, markersize=3, label=NAMES[direction])
            limit = run.setting("guard.kl_limit")
            if name == "kl" and is_number(limit) and axis.get_ylim()[1] > 0.4 * limit:
                axis.axhline(limit, color="#b8412f", linewidth=1, linestyle="--")
                axis.annotate("limit for pictures", (0, limit), color="#b8412f", va="bottom")
            if kept is not None:
                axis.axvline(kept, color="#444c52", linewidth=1, linestyle=":", label="kept")
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_ylabel("nats per token")
            rounds_axis(axis)
        legend(figure)
        return png(figure)


def category_bars(rows: Sequence[Row]) -> str:
    """Accuracy of base and tuned with intervals, a pair of bars a category, per direction."""
    titles = {
        "generation": "pictures of unseen prompts",
        "understanding": "captions of unseen pictures",
    }
    counts = [sum(row["direction"] == direction for row in rows) for direction in titles]
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = new_figure(10, 0.9 + 0.42 * max([*counts, 1]))
        for place, (direction, title) in enumerate(titles.items()):
            axis = figure.add_subplot(1, 2, place + 1)
            shown = [row for row in rows if row["direction"] == direction]
            sides = (
                ("base", BASE, -0.19, [(row["base"], *row["base_interval"]) for row in shown]),
                ("tuned", TUNED, 0.19, [(row["tuned"], *row["tuned_interval"]) for row in shown]),
            )
            for side, color, shift, found in sides:
                error = [
                    [100 * max(0.0, value - low) for value, low, _ in found],
                    [100 * max(0.0, high - value) for value, _, high in found],
                ]
                axis.barh(
                    [y + shift for y in range(len(shown))],
                    [100 * value for value, _, _ in found],
                    xerr=error,
                    error_kw={"linewidth": 1},
                    color=color,
                    height=0.36,
                    ecolor="#5d676e",
                    label=side,
                )
            labels = [
                f"{visible(row['category'][:_LONGEST].replace('_', ' '))} ({row['n']})"
                for row in shown
            ]
            # A category is text, not a formula between dollar signs.
            axis.set_yticks(range(len(shown)), labels, parse_math=False)
            axis.set_ylim(len(shown) - 0.5, -0.5)
            axis.set_xlim(0, 100)
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_xlabel("right, % (95% interval)")
        legend(figure)
        return png(figure)


def _trend(axis: Any, at: Sequence[int], values: Sequence[float], color: str, label: str) -> None:
    """The values, faint, and their running mean over a twentieth of the run."""
    width = max(1, len(values) // 20)
    axis.plot(at, values, color=color, alpha=0.25, linewidth=0.8)
    smooth = [
        sum(values[max(0, i - width + 1) : i + 1]) / (i + 1 - max(0, i - width + 1))
        for i in range(len(values))
    ]
    axis.plot(at, smooth, color=color, label=label)

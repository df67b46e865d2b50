"""An experiment's results as Markdown: arms in short, the controls, and every cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suder.evaluation.result import DIRECTIONS

_HEAD = (
    "Differences are in points of accuracy, paired item by item with the start model, with 95% "
    "intervals (t over whole combinations of things). *Greedy*: tuned greedy against start "
    "greedy. *Sampled*: both at temperature 1."
)
_ARMS = (
    "Pooled over an arm's cells: intervals hold the noise of items, which all cells share, and the "
    "spread of seeds, where a start has two or more; they are of these start models. A cell's own "
    "interval is of items alone. *up* / *down*: cells whose own lies above / below zero. "
    "*regret*: points between the checkpoint that the guard kept and the best one evaluated, mean "
    "(worst). *reward accuracy*: how often the dual reward ranks a right candidate of the tuned "
    "model above a wrong one, pictures / captions."
)


def markdown(results: dict[str, Any]) -> str:
    """The whole result as a Markdown text."""
    parts = [
        f"# Experiment on split `{results['split']}`",
        _HEAD,
        "## Arms",
        _arms(results["arms"]),
        _ARMS,
        "## The start model, nothing trained",
        _controls(results["controls"]),
        "## Every cell",
        _cells(results["cells"]),
    ]
    if results["missing"]:
        parts.append(f"Not finished: {', '.join(results['missing'])}.")
    return "\n\n".join(parts) + "\n"


def _arms(arms: dict[str, Any]) -> str:
    head = [
        "arm",
        "cells",
        "pictures, greedy",
        "up / down",
        "captions, greedy",
        "up / down",
        "pictures, sampled",
        "captions, sampled",
        "regret",
        "reward accuracy",
    ]
    rows = []
    for name, arm in arms.items():
        row = [name, str(arm["cells"])]
        for direction in DIRECTIONS:
            found = arm["greedy"][direction]
            row += [
                _points(found["estimate"], [found["low"], found["high"]]),
                f"{found['up']} / {found['down']}",
            ]
        for direction in DIRECTIONS:
            found = arm["sampled"][direction]
            row.append(_points(found["estimate"], [found["low"], found["high"]]))
        row.append(f"{100 * arm['regret']['mean']:.1f} ({100 * arm['regret']['worst']:.1f})")
        accuracy = [100 * arm[f"reward_accuracy/{direction}"] for direction in DIRECTIONS]
        rows.append([*row, " / ".join(f"{value:.0f}%" for value in accuracy)])
    return _table(head, rows)


def _controls(controls: dict[str, Any]) -> str:
    head = ["start", "decoding", "pictures", "against greedy", "captions", "against greedy"]
    rows = []
    for start, control in controls.items():
        for name, found in control["rows"].items():
            row = [Path(start).name, name]
            for direction in DIRECTIONS:
                one = found[direction]
                if "accuracy" in one:
                    row += [f"{100 * one['accuracy']:.1f}%", ""]
                else:
                    row += [
                        f"{100 * one['tuned']:.1f}%",
                        _points(one["difference"], one["interval"]),
                    ]
            rows.append(row)
        ceiling = [f"{100 * control['any_of'][direction]:.1f}%" for direction in DIRECTIONS]
        rows.append([Path(start).name, "any of them right", ceiling[0], "", ceiling[1], ""])
        shown = []
        for direction in DIRECTIONS:
            estimate, low, high = (100 * part for part in control["reward_accuracy"][direction][:3])
            shown.append(f"{estimate:.0f}% [{low:.0f}, {high:.0f}]")
        rows.append([Path(start).name, "reward accuracy", shown[0], "", shown[1], ""])
    return _table(head, rows)


def _cells(cells: Sequence[dict[str, Any]]) -> str:
    head = [
        "arm",
        "start",
        "seed",
        "pictures, greedy",
        "captions, greedy",
        "pictures, sampled",
        "captions, sampled",
        "kept / rounds",
        "regret",
        "kept; best; last",
    ]
    rows = []
    for cell in cells:
        guard = cell["guard"]
        rows.append(
            [
                cell["arm"],
                Path(cell["start"]).name,
                str(cell["seed"]),
                *(
                    _points(cell[kind][direction]["difference"], cell[kind][direction]["interval"])
                    for kind in ("greedy", "sampled")
                    for direction in DIRECTIONS
                ),
                f"{guard['kept_round']} / {cell['rounds']}",
                f"{100 * guard['regret']:.1f}",
                "; ".join(f"{100 * guard[name]:.1f}" for name in ("kept", "best", "last")),
            ]
        )
    return _table(head, rows)


def _points(difference: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * difference:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

"""Finished cells to results: paired differences, reward accuracy, the guard's regret."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suder.evaluation.compare import difference_of, is_same_model, same_items
from suder.evaluation.pooling import pooled_interval, seeds_tell
from suder.evaluation.result import DIRECTIONS, Evaluation, load_evaluation
from suder.evaluation.statistics import Interval, mean_interval
from suder.experiment.plan import CONTROL, Cell
from suder.experiment.runner import finished

# What is compared with what: the tuned model's file, the start model's.
COMPARISONS = {
    "greedy": ("greedy.npz", "greedy.npz"),
    "sampled": ("sampled.npz", "t1.npz"),
    "sampled against greedy": ("sampled.npz", "greedy.npz"),
}


def collect(cells: Sequence[Cell], out: Path) -> dict[str, Any]:
    """Everything that the finished cells say, as one JSON tree; unfinished ones are named."""
    done = {cell.name: finished(cell, out) for cell in cells}
    results = {name: result for name, result in done.items() if result is not None}
    controls = {
        cell.start: _control(cell, results[cell.name], out)
        for cell in cells
        if cell.arm == CONTROL and cell.name in results
    }
    trained = [
        _trained(cell, results[cell.name], out)
        for cell in cells
        if cell.arm != CONTROL and cell.name in results and cell.start in controls
    ]
    return {
        "split": cells[0].split if cells else None,
        "controls": controls,
        "cells": trained,
        "arms": _arms(cells, trained, out),
        "missing": [name for name, result in done.items() if result is None],
    }


def _folder(cell: Cell, out: Path) -> Path:
    return out / "cells" / cell.name


def _start_folder(start: str, out: Path) -> Path:
    return out / "cells" / f"{CONTROL}.{Path(start).name}"


def _control(cell: Cell, result: dict[str, Any], out: Path) -> dict[str, Any]:
    """The start model's own numbers, and each way of decoding it paired with greedy."""
    folder = _folder(cell, out)
    greedy = load_evaluation(folder / "greedy.npz")
    rows: dict[str, Any] = {"greedy": _alone(greedy)}
    for temperature in cell.measures.temperatures:
        name = f"t{temperature:g}"
        rows[f"temperature {temperature:g}"] = _paired(
            greedy, load_evaluation(folder / f"{name}.npz")
        )
    best = {}
    for direction in DIRECTIONS:
        items = getattr(greedy, direction)
        picked = np.array(result["best_of"][direction])
        best[direction] = _difference(items.correct, picked, items.clusters, same=False)
    rows[f"best of {cell.measures.candidates}"] = best
    return {
        "rows": rows,
        "any_of": result["any_of"],
        "reward_accuracy": result["reward_accuracy"],
        "seconds": result["seconds"],
    }


def _trained(cell: Cell, result: dict[str, Any], out: Path) -> dict[str, Any]:
    folder, start = _folder(cell, out), _start_folder(cell.start, out)
    compared = {
        name: _paired(load_evaluation(start / base), load_evaluation(folder / tuned))
        for name, (tuned, base) in COMPARISONS.items()
    }
    summary = result["summary"]
    return {
        "arm": cell.arm,
        "start": cell.start,
        "seed": cell.seed,
        **compared,
        "reward_accuracy": result["reward_accuracy"],
        "guard": regret(result["checkpoints"]),
        "rounds": summary["rounds"],
        "stopped": summary["stopped"],
        "seconds": result["seconds"],
        "training_seconds": summary["seconds"],
    }


def regret(checkpoints: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How far what the guard kept lies from the best and the last of the evaluated checkpoints.

    A checkpoint counts by the mean of its greedy accuracies of both directions. The best of k noisy
    numbers is a little better than the best checkpoint is, so the regret is if anything too high.
    """
    score = [(row["generation"] + row["understanding"]) / 2 for row in checkpoints]
    kept = next(place for place, row in enumerate(checkpoints) if row["kept"])
    best = int(np.argmax(score))
    return {
        "kept_round": checkpoints[kept]["round"],
        "kept": score[kept],
        "best_round": checkpoints[best]["round"],
        "best": score[best],
        "last_round": checkpoints[-1]["round"],
        "last": score[-1],
        "start": score[0],
        "regret": score[best] - score[kept],
    }


def _arms(cells: Sequence[Cell], trained: Sequence[dict[str, Any]], out: Path) -> dict[str, Any]:
    """Each arm over its cells: mean difference with its interval, worst cell, counts."""
    arms: dict[str, Any] = {}
    for arm in dict.fromkeys(cell.arm for cell in cells):
        rows = [row for row in trained if row["arm"] == arm]
        if not rows:
            continue
        starts = [row["start"] for row in rows]
        summary: dict[str, Any] = {"cells": len(rows), "seeds_in_intervals": seeds_tell(starts)}
        members = [
            cell
            for cell in cells
            if any(
                (row["arm"], row["start"], row["seed"]) == (cell.arm, cell.start, cell.seed)
                for row in rows
            )
        ]
        for name in COMPARISONS:
            summary[name] = {
                direction: {
                    **_pooled(members, out, name, direction)._asdict(),
                    "worst": min(row[name][direction]["difference"] for row in rows),
                    "up": sum(row[name][direction]["interval"][0] > 0 for row in rows),
                    "down": sum(row[name][direction]["interval"][1] < 0 for row in rows),
                }
                for direction in DIRECTIONS
            }
        for direction in DIRECTIONS:
            accuracy = [row["reward_accuracy"][direction][0] for row in rows]
            summary[f"reward_accuracy/{direction}"] = float(np.mean(accuracy))
        regrets = [row["guard"]["regret"] for row in rows]
        summary["regret"] = {"mean": float(np.mean(regrets)), "worst": max(regrets)}
        arms[arm] = summary
    return arms


def _pooled(cells: Sequence[Cell], out: Path, comparison: str, direction: str) -> Interval:
    """Mean difference over an arm's cells, with the noise of items and of seeds."""
    tuned_file, base_file = COMPARISONS[comparison]
    differences: list[np.ndarray] = []
    same: list[bool] = []
    clusters: list[str] = []
    for cell in cells:
        base = load_evaluation(_start_folder(cell.start, out) / base_file)
        tuned = load_evaluation(_folder(cell, out) / tuned_file)
        before, after = same_items(base, tuned, direction)
        if clusters and before.clusters != clusters:
            raise ValueError(f"{cell.name} was judged on other inputs than the arm's other cells")
        differences.append(after.correct.astype(float) - before.correct)
        same.append(is_same_model(base, tuned))
        clusters = before.clusters
    found = pooled_interval(np.stack(differences), [cell.start for cell in cells], clusters)
    return found._replace(estimate=0.0, low=0.0, high=0.0) if all(same) else found


def _paired(base: Evaluation, tuned: Evaluation) -> dict[str, Any]:
    rows, same = {}, is_same_model(base, tuned)
    for direction in DIRECTIONS:
        before, after = same_items(base, tuned, direction)
        rows[direction] = _difference(before.correct, after.correct, before.clusters, same)
    return rows


def _difference(
    base: np.ndarray, tuned: np.ndarray, clusters: Sequence[str], same: bool
) -> dict[str, Any]:
    found = difference_of(base, tuned, clusters, same)
    return {
        "base": float(np.mean(base)),
        "tuned": float(np.mean(tuned)),
        "difference": found.estimate,
        "interval": [found.low, found.high],
        "n": found.n,
        "clusters": found.clusters,
    }


def _alone(evaluation: Evaluation) -> dict[str, Any]:
    rows = {}
    for direction in DIRECTIONS:
        items = getattr(evaluation, direction)
        found = mean_interval(items.correct, items.clusters)
        rows[direction] = {
            "accuracy": found.estimate,
            "interval": [found.low, found.high],
            "n": found.n,
            "clusters": found.clusters,
        }
    return rows

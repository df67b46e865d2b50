"""A run's start model and its result, judged on the same held-out inputs with the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import suder
from suder.evaluation.compare import Row, compare
from suder.evaluation.evaluate import about_model, evaluate, settings_of
from suder.evaluation.result import Evaluation, kept_evaluation
from suder.evaluation.worlds import task_of
from suder.settings.config_file import load_config
from suder.storage.files import finite, read_object, write_json

DECODINGS = ("greedy", "sampled")
SIDES = ("base", "tuned")


def judge_run(
    run: Path,
    *,
    world: str = "shapes",
    split: str = "test",
    n: int = 1000,
    seed: int = 0,
    reuse: bool = False,
    replace: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Evaluate a finished run, greedily and sampled, and return its summary with the comparison.

    The first evaluation is the run's: the comparison is written into summary.json and the items to
    `run/evaluation/{base,tuned}.{greedy,sampled}.npz`, for the report. A later one of other inputs
    goes into a folder of its own below, with its `comparison.json`, and the run's stays, unless
    `replace` is asked for. `reuse` takes the items that are there (of an evaluation that was cut
    off) if they are of the same weights, the same inputs and the same settings.

    Raises:
        FileNotFoundError: `run` is no finished run.
    """
    if not (run / "summary.json").is_file() or not (run / "model").is_dir():
        raise FileNotFoundError(
            f"{run} is no finished run (no summary.json or model/ in it); "
            f"finish it with `suder train --resume {run}`"
        )
    config = load_config(run / "config.yaml")
    asked_for = {"world": world, "split": split, "n": n, "seed": seed}
    known: dict[str, Any] = read_object(run / "summary.json")
    the_runs = replace or _is_same(known.get("evaluation"), asked_for)
    folder = run / "evaluation"
    if not the_runs:
        folder = folder / f"{world}.{split}.n{n}.seed{seed}"
    task = task_of(world, split, n, seed)
    models = {"base": config.model, "tuned": str(run / "model")}
    found: dict[tuple[str, str], Evaluation] = {}
    for side in SIDES:
        asked = config.prompts.model_dump()
        model = suder.load_model(models[side], device=config.device, **asked)
        about = about_model(model)
        for decoding in DECODINGS:
            file = folder / f"{side}.{decoding}.npz"
            how: dict[str, Any] = {
                "seed": seed,
                "greedy": decoding == "greedy",
                "max_new_tokens": config.sampling.max_new_tokens,
                "about": about,
            }
            kept = kept_evaluation(file, settings_of(model, task, **how)) if reuse else None
            if kept is None:
                kept = evaluate(model, task=task, progress=progress, **how)
                kept.save(file)
            found[side, decoding] = kept
    told: dict[str, Any] = dict(asked_for)
    for decoding in DECODINGS:
        told[decoding] = compare(found["base", decoding], found["tuned", decoding])
    summary: dict[str, Any] = read_object(run / "summary.json") | {"evaluation": told}
    if the_runs:
        write_json(run / "summary.json", finite(summary))  # older runs wrote infinities
    else:
        write_json(folder / "comparison.json", told)
    return summary


def _is_same(known: Any, about: dict[str, Any]) -> bool:
    """Whether the run has no evaluation yet, or one of these very inputs."""
    return not isinstance(known, dict) or all(known.get(key) == about[key] for key in about)


def comparison_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Rows of a table for people: direction, category, n, base, tuned, difference, interval."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        low, high = row["interval"]
        lines.append(
            (
                "pictures" if row["direction"] == "generation" else "captions",
                row["category"].replace("_", " "),
                str(row["n"]),
                f"{100 * row['base']:.1f}%",
                f"{100 * row['tuned']:.1f}%",
                f"{100 * row['difference']:+.1f}",
                f"{100 * low:+.1f} to {100 * high:+.1f}",
            )
        )
    return lines

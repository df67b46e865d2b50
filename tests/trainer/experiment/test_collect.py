"""What is collected from finished cells: here from made-up results."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suder.cli import main
from suder.evaluation.result import Evaluation, Items
from suder.evaluation.statistics import paired_interval
from suder.experiment.collect import collect, regret
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import CONTROL, Cell, read_plan
from suder.experiment.plot import plot
from suder.experiment.table import markdown
from suder.storage.files import WriteError, finite, write_json
from suder.storage.folders import claim
from tests.trainer.experiment.conftest import folder_of


def evaluation(correct: np.ndarray) -> Evaluation:
    n = len(correct)
    names = [f"prompt {i}" for i in range(n)]
    clusters = [f"cluster {i // 4}" for i in range(n)]
    pictures = np.zeros((0, 32, 32, 3), np.uint8)
    items = Items(names, names, ["single"] * n, clusters, {"correct": correct}, pictures)
    return Evaluation(items, items, {"task": "shapes/test", "seed": 0, "greedy": True})


def made_up(out: Path, make_recipe: Callable[..., Path]) -> tuple[list[Cell], dict[str, Any]]:
    cells = read_plan(make_recipe()).narrowed(starts=["shapes"], arms=[CONTROL, "grpo"]).cells()
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {}
    for cell in cells:
        folder = folder_of(cell, out)
        names = ("greedy", "t1", "t0.5") if cell.arm == CONTROL else ("greedy", "sampled")
        for name in names:
            truth[cell.name, name] = rng.random(200) < (0.4 if cell.arm == CONTROL else 0.6)
            evaluation(truth[cell.name, name]).save(folder / f"{name}.npz")
        result: dict[str, Any] = {
            "fingerprint": cell.fingerprint(),
            "seconds": 9.0,
            "reward_accuracy": {"generation": [0.8, 0.7, 0.9], "understanding": [0.7, 0.6, 0.8]},
        }
        if cell.arm == CONTROL:
            best = rng.random(200) < 0.5
            result["best_of"] = {"generation": best.tolist(), "understanding": best.tolist()}
            result["any_of"] = {"generation": 0.9, "understanding": 0.9}
            truth["best"] = best
        else:
            result["summary"] = {"rounds": 2, "stopped": None, "seconds": 5.0}
            result["checkpoints"] = [
                {"round": 0, "kept": False, "generation": 0.4, "understanding": 0.4},
                {"round": 1, "kept": True, "generation": 0.5, "understanding": 0.6},
                {"round": 2, "kept": False, "generation": 0.7, "understanding": 0.5},
            ]
        write_json(folder / "result.json", result)
    return cells, truth


def test_collect_pairs_each_cell_with_its_own_start(
    tmp_path: Path, make_recipe: Callable[..., Path]
):
    cells, truth = made_up(tmp_path, make_recipe)
    results = collect(cells, tmp_path)
    start = cells[0].name
    clusters = [f"cluster {i // 4}" for i in range(200)]
    for cell, row in zip(cells[1:], results["cells"], strict=True):
        pairs = {
            "greedy": ("greedy", "greedy"),
            "sampled": ("sampled", "t1"),
            "sampled against greedy": ("sampled", "greedy"),
        }
        for comparison, (tuned, base) in pairs.items():
            direct = paired_interval(truth[start, base], truth[cell.name, tuned], clusters)
            found = row[comparison]["generation"]
            assert found["difference"] == pytest.approx(direct.estimate)
            assert found["interval"] == [direct.low, direct.high]
        assert row["guard"]["regret"] == pytest.approx(0.6 - 0.55)
    control = results["controls"]["shapes"]["rows"]
    best = control["best of 2"]["understanding"]
    assert best["difference"] == pytest.approx(truth["best"].mean() - truth[start, "greedy"].mean())
    assert set(control) == {"greedy", "temperature 1", "temperature 0.5", "best of 2"}
    arm = results["arms"]["grpo"]
    mean = np.mean([row["greedy"]["generation"]["difference"] for row in results["cells"]])
    assert arm["greedy"]["generation"]["estimate"] == pytest.approx(mean)
    assert arm["greedy"]["generation"]["up"] == 2
    assert arm["cells"] == 2
    tree = {"a": (float("nan"), 1.0), "b": results}
    assert json.loads(json.dumps(finite(tree), allow_nan=False))["a"] == [None, 1.0]
    text = markdown(results)
    assert f"{100 * mean:+.1f}" in text
    assert "5.0 (5.0)" in text


def test_what_is_missing_is_named(tmp_path: Path, make_recipe: Callable[..., Path]):
    cells, _ = made_up(tmp_path, make_recipe)
    (tmp_path / "cells" / cells[2].name / "result.json").unlink()
    results = collect(cells, tmp_path)
    assert results["missing"] == [cells[2].name]
    assert f"Not finished: {cells[2].name}." in markdown(results)
    assert results["arms"]["grpo"]["cells"] == 1


def test_command_collects(
    tmp_path: Path, make_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    claim(out)
    made_up(out, make_recipe)
    command = ["experiment", "--out", str(out), "--recipe", str(make_recipe()), "--table-only"]
    narrowed = [*command, "--arms", "grpo", "--starts", "shapes"]
    assert main(narrowed) == 0
    assert "| grpo | 2 |" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["missing"] == []
    assert "| grpo | 2 |" in (out / "results.md").read_text()
    assert (out / "results.png").stat().st_size > 5000
    assert main([*narrowed, "--set", "rounds=3"]) == 2
    assert "made with other settings" in capsys.readouterr().err
    assert main([*command, "--jobs", "0"]) == 2


def test_regret():
    rows = [
        {"round": 0, "kept": True, "generation": 0.5, "understanding": 0.7},
        {"round": 40, "kept": False, "generation": 0.2, "understanding": 0.1},
    ]
    found = regret(rows)
    assert found["regret"] == 0.0
    assert (found["kept_round"], found["best_round"], found["last_round"]) == (0, 0, 40)
    assert found["last"] == pytest.approx(0.15)


def test_a_full_disk_leaves_no_half_of_a_picture(tmp_path: Path, make_recipe: Callable[..., Path]):
    cells, _ = made_up(tmp_path, make_recipe)
    results = collect(cells, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"no space left for .*results\.png: it takes [\d,]+"):
            plot(results, tmp_path / "results.png")
        with pytest.raises(WriteError, match=r"no space left for .*0000\.png: it takes [\d,]+"):
            write_inputs(tmp_path / "inputs", pictures=24, prompt_count=24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    halves = {"results.png", "results.png.partial", "0000.png", "0000.png.partial"}
    assert not halves & {path.name for path in tmp_path.rglob("*")}
    write_inputs(tmp_path / "inputs", pictures=24, prompt_count=24)

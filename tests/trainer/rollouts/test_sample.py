"""`suder sample --parquet`, then scored, paired and learnt from: no run in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import suder
from suder.cli import main
from suder.rollouts.files import read_table


@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_samples_become_a_run(
    inputs_folder: Path, lively_model_folder: Path, tmp_path: Path, direction: str, capsys: Any
) -> None:
    model, out = str(lively_model_folder), tmp_path / "out"
    inputs = {"understanding": ["--images", str(inputs_folder / "pictures")]}
    inputs["generation"] = ["--prompts", str(inputs_folder / "prompts.txt")]
    how = ["--n", "3", "--seed", "2", "--parquet", "--out", str(out)]
    how += ["--max-new-tokens", "6"] if direction == "understanding" else []
    assert main(["sample", "--model", model, *inputs[direction], *how]) == 0
    rows = read_table([out / "samples.parquet"]).to_pylist()
    assert len(rows) == 36
    assert [(row["group"], row["candidate"]) for row in rows[:4]] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
    ]
    assert all(row["reward"] is None and not row["valid"] for row in rows)
    if direction == "generation":
        prompts = (inputs_folder / "prompts.txt").read_text().splitlines()
        expected = suder.sample(suder.load_model(model), "generation", prompts, 3, seed=2)
        assert [row["tokens"] for row in rows] == expected.tokens.tolist()
        assert torch.equal(torch.tensor([row["logprob"] for row in rows]), expected.logprob)
    scored = tmp_path / "scored.parquet"
    assert main(["score", str(out), "--model", model, "--out", str(scored)]) == 0
    train = ["--model", model, "--output", str(tmp_path / "run"), f"directions={direction}"]
    for option, place in (("--images", "pictures"), ("--prompts", "prompts.txt")):
        if option not in inputs[direction]:
            train += [option, str(inputs_folder / place)]
    train += ["rounds=1", "guard.enabled=false", "reward.cut_captions=keep"]
    assert main(["train", "--rollouts", str(out), *train]) == 2  # there are no rewards in it
    assert "have no reward: `suder score`" in capsys.readouterr().err
    done = main(["train", "--rollouts", str(scored), *train])
    valid = any(row["valid"] for row in read_table([scored]).to_pylist())
    assert done == (0 if valid else 2)
    assert valid or direction == "understanding"

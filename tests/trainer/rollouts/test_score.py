"""`suder score` of rollouts: the run's rewards by the run's model, others by another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import suder
from suder.cli import main
from suder.rollouts.files import read_table, write_table
from tests.tolerances import TOLERANCES

REWARD = TOLERANCES["reward", "cpu", torch.float32]


def numbers(column: Any) -> torch.Tensor:
    return torch.tensor([torch.nan if one is None else one for one in column.to_pylist()])


def test_the_model_that_drew_gives_the_rewards_that_stand_there(
    finished_run: Path, lively_model_folder: Path, tmp_path: Path
) -> None:
    """The first round's candidates were scored by the start model; and again, beside the old."""
    first, out = finished_run / "rollouts" / "000001.parquet", tmp_path / "out.parquet"
    model = str(lively_model_folder)
    for drawer in ([], ["--drawn-by", model]):  # of its pixels the same, for one that reads those
        command = ["score", str(first), "--model", model, "--out", str(out), "--overwrite"]
        assert main([*command, *drawer]) == 0
        before, after = read_table([first]), read_table([out])
        assert after.column_names == [*before.column_names, "earlier_reward"]
        for name in before.column_names:
            if name not in ("reward", "advantage", "scorer"):
                assert after[name] == before[name], name
        assert after["earlier_reward"].to_pylist() == before["reward"].to_pylist()
        assert set(after["scorer"].to_pylist()) == {model}
        for name, limits in (
            ("reward", REWARD),
            # (r - mean) / std of rewards that may be 1e-2 apart
            ("advantage", {"rtol": 0.0, "atol": 100 * REWARD["atol"]}),
        ):
            found, told = (numbers(table[name]) for table in (after, before))
            assert torch.allclose(found, told, **limits, equal_nan=True)


def test_another_model_and_question(
    finished_run: Path, random_model_folder: Path, tmp_path: Path
) -> None:
    first, out = finished_run / "rollouts" / "000001.parquet", tmp_path / "out.parquet"
    command = ["score", str(first), "--model", str(random_model_folder), "--out", str(out)]
    assert main([*command, "--question", "a red?"]) == 0
    model = suder.load_model(random_model_folder, question="a red?")
    rows = read_table([out]).to_pylist()
    drawn = [row for row in rows if row["direction"] == "generation"]
    expected = suder.DualReward(model).generation(
        [row["input"] for row in drawn], torch.tensor([row["tokens"] for row in drawn])
    )
    assert torch.allclose(torch.tensor([row["reward"] for row in drawn]), expected, **REWARD)
    assert all(row["reward"] != row["earlier_reward"] for row in drawn)


def test_what_is_wrong_is_said(
    run: Path, lively_model_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    first, out = run / "rollouts" / "000001.parquet", tmp_path / "out.parquet"
    options = ["--model", str(lively_model_folder), "--out", str(out)]
    table = read_table([first])
    place = table.column_names.index("input")
    names = [
        "gone.png" if one["direction"] == "understanding" and one["group"] == 0 else one["input"]
        for one in table.to_pylist()
    ]
    write_table(first, table.set_column(place, "input", [names]))
    assert main(["score", str(first), *options]) == 0
    assert "no reward: picture gone.png" in capsys.readouterr().err
    rows = read_table([out]).to_pylist()
    lost = [row for row in rows if row["input"] == "gone.png"]
    assert len(lost) == 4
    assert all(row["reward"] is None and not row["valid"] for row in lost)
    others = [row for row in rows if row["input"] != "gone.png"]
    assert all(row["valid"] == (row["earlier_reward"] is not None) for row in others)
    assert main(["score", str(first), *options]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "x.jsonl"), "--drawn-by", "shapes"]) == 2
    short = [row[:2] for row in table["tokens"].to_pylist()]
    write_table(first, table.set_column(table.column_names.index("tokens"), "tokens", [short]))
    assert main(["score", str(first), *options, "--overwrite"]) == 2
    assert "has 2 tokens, and this model draws with 4" in capsys.readouterr().err
    assert read_table([out]).to_pylist() == rows


@pytest.mark.parametrize("cut", [True, False])
def test_a_caption_that_took_no_part_takes_none(
    run: Path, lively_model_folder: Path, tmp_path: Path, cut: bool
) -> None:
    first, out = run / "rollouts" / "000001.parquet", tmp_path / "out.parquet"
    table = read_table([first])
    for name, value in (("finished", not cut), ("valid", False)):
        column = [[value] * len(table)]
        table = table.set_column(table.column_names.index(name), name, column)
    write_table(first, table)
    command = ["score", str(first), "--model", str(lively_model_folder), "--out", str(out)]
    assert main(command) == 0
    rows = read_table([out]).to_pylist()
    assert [row["valid"] for row in rows] == [not cut and row["reward"] is not None for row in rows]
    assert any(row["valid"] for row in rows) != cut

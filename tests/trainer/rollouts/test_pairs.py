"""Pairs by each rule beside what a person would pick, and in the forms that others read."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from trl.data_utils import is_conversational, prepare_multimodal_messages

from suder.cli import main
from suder.models import load_model
from suder.rollouts.files import find_files, read_table
from suder.rollouts.pairs import pair_rows
from suder.rollouts.rows import to_table
from suder.rollouts.schema import COLUMNS

REWARD = st.none() | st.integers(-3, 3).map(float)


def candidates(rewards: list[list[float | None]], valid: bool = True) -> Any:
    """A table of groups with these rewards, all tokens different."""
    flat = [(g, c, one) for g, group in enumerate(rewards) for c, one in enumerate(group)]
    rows: dict[str, list[Any]] = {name: [None] * len(flat) for name, _, _ in COLUMNS}
    rows |= {name: [0] * len(flat) for name in ("round", "seed")}
    rows |= {"run": ["r"] * len(flat), "direction": ["understanding"] * len(flat)}
    rows |= {"group": [g for g, _, _ in flat], "candidate": [c for _, c, _ in flat]}
    rows |= {"input": ["x.png"] * len(flat), "text": [str(i) for i in range(len(flat))]}
    rows |= {"tokens": [[i] for i in range(len(flat))], "finished": [True] * len(flat)}
    rows |= {"reward": [one for _, _, one in flat], "valid": [valid] * len(flat)}
    return to_table(rows)


@given(
    st.lists(st.lists(REWARD, min_size=1, max_size=5), min_size=1, max_size=3), st.integers(1, 3)
)
def test_rules_against_their_definitions(rewards: list[list[float | None]], k: int) -> None:
    table = candidates(rewards)
    flat = [one for group in rewards for one in group]
    groups, first = [], 0
    for group in rewards:
        groups.append([first + i for i, one in enumerate(group) if one is not None])
        first += len(group)
    over = {
        frozenset((a, b))
        for rows in groups
        for a, b in combinations(rows, 2)
        if abs(flat[a] - flat[b]) > 1
    }
    found = pair_rows(table, "margin", margin=1.0)
    assert {frozenset(pair) for pair in found} == over
    assert len(found) == len(over)
    best = pair_rows(table, "best-worst")
    told = [(max(flat[i] for i in rows), min(flat[i] for i in rows)) for rows in groups if rows]
    assert [(flat[a], flat[b]) for a, b in best] == [(a, b) for a, b in told if a > b]
    top = pair_rows(table, "top-k", k=k)
    assert best == pair_rows(table, "top-k", k=1)
    assert len({row for pair in top for row in pair}) == 2 * len(top)
    for rows in groups:
        ranked = sorted((flat[i] for i in rows), reverse=True)
        halves = zip(ranked[:k], ranked[::-1][:k], strict=False)
        expected = [(a, b) for i, (a, b) in enumerate(halves) if a > b and i < len(rows) // 2]
        assert [(flat[a], flat[b]) for a, b in top if a in rows] == expected
    assert all(flat[a] > flat[b] for pairs in (found, best, top) for a, b in pairs)


def test_candidates_left_out_or_alike_are_no_pair() -> None:
    assert pair_rows(candidates([[1.0, 0.0]]), "best-worst") == [(0, 1)]
    assert pair_rows(candidates([[1.0, 0.0]], valid=False), "best-worst") == []
    table = candidates([[1.0, 0.0]])
    place = table.column_names.index("tokens")
    alike = table.set_column(place, "tokens", pa.array([[4], [4]], pa.list_(pa.int32())))
    assert pair_rows(alike, "best-worst") == []
    table = candidates([[1.0, 1.0, 0.0, 0.0]])  # two answers, each of them twice
    twice = table.set_column(place, "tokens", pa.array([[4], [4], [5], [5]], pa.list_(pa.int32())))
    assert pair_rows(table, "margin") == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert pair_rows(twice, "margin") == pair_rows(twice, "top-k", k=2) == [(0, 2)]


@pytest.fixture
def captions(finished_run: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    table = read_table(find_files(finished_run / "rollouts"))
    rows = table.to_pylist()
    pairs = [(rows[a], rows[b]) for a, b in pair_rows(table, "best-worst")]
    return [pair for pair in pairs if pair[0]["direction"] == "understanding"]


@pytest.mark.parametrize("embed", [False, True])
def test_trl_reads_its_form(
    finished_run: Path, tmp_path: Path, captions: Any, embed: bool, capsys: Any
) -> None:
    out = tmp_path / "pairs.parquet"
    options = ["--embed-images"] if embed else []
    place = str(finished_run / "rollouts")
    assert main(["pairs", place, "--output", str(out), "--format", "trl", *options]) == 0
    assert "pairs of drawings" in capsys.readouterr().err
    found = datasets.load_dataset("parquet", data_files=str(out), cache_dir=str(tmp_path / "cache"))
    rows = list(found["train"])
    assert len(rows) == len(captions) > 0
    for row, (best, worst) in zip(rows, captions, strict=True):
        assert is_conversational(row)
        assert row["chosen"] == [{"role": "assistant", "content": best["text"]}]
        assert row["rejected"] == [{"role": "assistant", "content": worst["text"]}]
        shown = np.asarray(row["images"][0])
        assert np.array_equal(shown, np.asarray(Image.open(best["input"])))
        # What DPOTrainer's collator makes of it.
        (asked,) = prepare_multimodal_messages(row["prompt"], images=row["images"])
        assert [part["type"] for part in asked["content"]] == ["image", "text"]
        assert asked["content"][1]["text"] == "Describe the image."


def test_ms_swift_form(finished_run: Path, tmp_path: Path, captions: Any) -> None:
    out = tmp_path / "pairs.jsonl"
    command = ["pairs", str(finished_run / "rollouts"), "--output", str(out)]
    assert main([*command, "--format", "ms-swift", "--question", "What is it?"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == [
        {
            "messages": [
                {"role": "user", "content": "<image>What is it?"},
                {"role": "assistant", "content": best["text"]},
            ],
            "rejected_response": worst["text"],
            "images": [best["input"]],
        }
        for best, worst in captions
    ]


def test_our_own_form_is_rollouts_again_with_drawings_to_look_at(
    finished_run: Path, lively_model_folder: Path, tmp_path: Path
) -> None:
    out, pictures = tmp_path / "pairs.parquet", tmp_path / "pictures"
    command = ["pairs", str(finished_run / "rollouts"), "--output", str(out), "--format", "suder"]
    command += ["--rule", "top-k", "--k", "2"]
    shown = ["--pictures", str(pictures), "--model", str(lively_model_folder)]
    assert main([*command, *shown]) == 0
    table = read_table([out])
    before = read_table(find_files(finished_run / "rollouts"))
    assert pair_rows(table, "best-worst") == [(i, i + 1) for i in range(0, len(table), 2)]
    expected = [row for pair in pair_rows(before, "top-k", k=2) for row in pair]
    assert table["tokens"].to_pylist() == [before["tokens"][row].as_py() for row in expected]
    assert table["original_group"].to_pylist() == [before["group"][row].as_py() for row in expected]
    assert all(row["image"] is None for row in table.to_pylist() if row["digest"])
    drawn = [row for row in table.to_pylist() if row["direction"] == "generation"]
    tokens = torch.tensor([row["tokens"] for row in drawn])
    for row, picture in zip(drawn, load_model(lively_model_folder).decode(tokens), strict=True):
        assert np.array_equal(np.asarray(Image.open(row["image"])), picture.numpy())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "trl", "--k", "2"], "--k is of --rule top-k"),
        (["--format", "trl", "--margin", "2"], "--margin is of --rule margin"),
        (["--format", "ms-swift", "--embed-images"], "--embed-images is of --format trl"),
        (["--format", "trl", "--pictures", "x"], "--pictures is of --format suder"),
        (["--format", "suder", "--pictures", "x"], "go together"),
        (["--format", "suder", "--rule", "margin", "--margin", "1e9"], "no pair of valid"),
    ],
)
def test_what_cannot_be_is_refused(
    finished_run: Path, tmp_path: Path, options: list[str], said: str, capsys: Any
) -> None:
    out = tmp_path / "pairs"
    place = str(finished_run / "rollouts")
    assert main(["pairs", place, "--output", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()

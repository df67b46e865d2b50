"""Pictures with a text of their own, and what a run makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from suder.inputs.data import Inputs, read_inputs
from suder.inputs.files import DataError
from suder.inputs.paired import together
from suder.method.rollouts import load_rollouts
from suder.run.fitting import fitting
from suder.run.plan import plan
from suder.run.trainer import Trainer
from suder.settings.candidates import Sampling
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError
from suder.settings.given import Data
from suder.storage.files import write_jsonl

Make = Callable[..., TrainConfig]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 pictures of two folders; half of the texts beside them, half in a metadata.jsonl."""
    place = tmp_path / "pictures"
    (place / "deep").mkdir(parents=True)
    rows = []
    for number in range(24):
        name = f"deep/{number:02d}.png" if number % 2 else f"{number:02d}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(place / name)
        if number % 2:
            rows.append({"file_name": Path(name).name, "text": f"number {number}", "other": 1})
        else:
            (place / name).with_suffix(".txt").write_text(f" number\n {number}\n", encoding="utf-8")
    write_jsonl(place / "deep" / "metadata.jsonl", rows)
    return place


def data(folder: Path, **changes: Any) -> Data:
    return Data.model_validate({"images": str(folder), "pairing": True, **changes})


def pairs(inputs: Inputs) -> list[tuple[int, str]]:
    """Numbers of the pictures and their texts, both sides."""
    sides = (inputs.images, inputs.prompts), (inputs.watched_images, inputs.watched_prompts)
    return [
        (int(Path(path).stem), text)
        for paths, texts in sides
        for path, text in zip(paths, texts, strict=True)
    ]


def test_each_picture_has_its_own_text_on_either_side(folder: Path) -> None:
    inputs = read_inputs(data(folder, heldout=0.4), seed=3)
    assert len(inputs.watched_images) == 10
    assert sorted(pairs(inputs)) == [(i, f"number {i}") for i in range(24)]
    assert not inputs.dropped


def test_a_file_of_json_lines_alone(folder: Path, tmp_path: Path) -> None:
    rows = [{"file_name": "pictures/02.png", "text": "two"}, {"file_name": "none.png", "text": "x"}]
    write_jsonl(tmp_path / "texts.jsonl", [*rows, {"file_name": "pictures/04.png"}])
    found = read_inputs(data(folder, prompts=str(tmp_path / "texts.jsonl")), seed=0)
    assert pairs(found)[0] == (2, "two")
    assert set(found.prompts) == {"two"}
    why = {one.input: one.why for one in found.dropped}
    assert "no picture that is read" in why[f"{tmp_path / 'texts.jsonl'}:2"]
    assert "takes {" in why[f"{tmp_path / 'texts.jsonl'}:3"]
    assert "no text of its own" in why[str((folder / "04.png").resolve())]


def test_pictures_without_a_text_are_dropped_and_named(folder: Path) -> None:
    (folder / "00.txt").unlink()
    (folder / "02.txt").write_text(" \n")
    (folder / "04.txt").write_bytes(b"\xff\xfe")
    (folder / "deep" / "metadata.jsonl").write_text('no JSON\n{"file_name": "01.png", "text": "a"}')
    inputs = read_inputs(data(folder), seed=0)
    why = {Path(one.input).name: one.why for one in inputs.dropped}
    assert why["00.png"] == "has no text of its own (data.pairing)"
    assert "is empty" in why["02.png"]
    assert "not UTF-8" in why["04.png"]
    assert "not JSON" in why["metadata.jsonl:1"]
    assert len(set(pairs(inputs))) == 10  # nine beside pictures, one of the metadata
    for path in folder.rglob("*.txt"):
        path.unlink()
    (folder / "deep" / "metadata.jsonl").unlink()
    with pytest.raises(DataError, match=r"no picture in .* has a text of its own"):
        read_inputs(data(folder), seed=0)


PAIRS = st.lists(st.tuples(st.sampled_from("ABCDEF"), st.sampled_from("uvwxyz")), max_size=8)


@given(PAIRS)
def test_what_is_linked_stays_together(pairs: list[tuple[str, str]]) -> None:
    found = together(pairs)
    groups = [{i} for i in range(len(pairs))]  # merged until no two of them share anything
    while True:
        merge = next(
            (
                (a, b)
                for a in groups
                for b in groups
                if a is not b
                and any(pairs[i][k] == pairs[j][k] for i in a for j in b for k in (0, 1))
            ),
            None,
        )
        if merge is None:
            break
        groups.remove(merge[1])
        merge[0].update(merge[1])
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            same = any(i in group and j in group for group in groups)
            assert (found[i] == found[j]) == same


def test_a_prompt_that_is_too_long_takes_its_picture_along(folder: Path) -> None:
    class Short:
        longest_text = 100

        def too_long(self, direction: str, text: str) -> str:
            return "too many words" if text in ("number 3", "number 4") else ""

    inputs = read_inputs(data(folder, heldout=0.4), seed=3)
    left = fitting(inputs, Sampling(), Short(), paired=True)  # type: ignore[arg-type]
    assert sorted(pairs(left)) == [(i, f"number {i}") for i in range(24) if i not in (3, 4)]
    few = replace(inputs, watched_images=inputs.images[:1], watched_prompts=("number 3",))
    left = fitting(few, Sampling(), Short(), paired=True)  # type: ignore[arg-type]
    assert left.watched_images == left.images
    assert left.watched_prompts == left.prompts


@pytest.mark.parametrize("directions", ["joint", "alternating"])
def test_a_round_has_both_directions_of_the_same_pictures(
    make_config: Make, inputs_folder: Path, tmp_path: Path, directions: str
) -> None:
    place = tmp_path / "own"
    shutil.copytree(inputs_folder / "pictures", place)
    texts = (inputs_folder / "prompts.txt").read_text().splitlines()
    for number, text in enumerate(texts):
        (place / f"{number:02d}.txt").write_text(text)
    config = make_config(
        "rounds=4", f"data.images={place}", f"data.prompts={place}", "data.pairing=true",
        f"directions={directions}", "guard.enabled=false",
    )  # fmt: skip
    assert plan(config).total > 0
    Trainer(config, quiet=True).run()
    drawn: dict[str, list[list[int]]] = {"understanding": [], "generation": []}
    for index in range(1, 5):
        file = Path(config.output) / "rounds" / f"{index:06d}" / "sample.safetensors"
        for one in load_rollouts(file):
            seen = one.direction == "understanding"
            numbers = [int(Path(n).stem) if seen else texts.index(n) for n in one.inputs]
            drawn[one.direction].append(numbers)
    assert drawn["understanding"] == drawn["generation"]
    assert len({tuple(one) for one in drawn["generation"]}) > 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("data.pairing=true", "directions=generation"), "is of both directions"),
        (("data.pairing=true", "data.rollouts=x"), "with data.rollouts it samples nothing"),
    ],
)
def test_settings_that_do_not_agree(make_config: Make, changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(*changes)


def test_the_runs_inputs_file_keeps_the_pairs(folder: Path, tmp_path: Path) -> None:
    inputs = read_inputs(data(folder, heldout=0.4), seed=3)
    inputs.save(tmp_path / "run")
    again = Inputs.load(tmp_path / "run")
    assert pairs(again) == pairs(inputs)
    assert json.loads((tmp_path / "run" / "data" / "inputs.json").read_text())

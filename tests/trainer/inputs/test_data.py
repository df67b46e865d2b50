"""Inputs: what is read, what is dropped and named, and that held-out means held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suder.inputs.data import Inputs, read_inputs, turn_indices
from suder.inputs.files import DataError
from suder.inputs.pictures import load_picture
from suder.settings.given import Data


def picture(path: Path, value: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (4, 4, {"RGB": 3, "RGBA": 4}[mode])
    Image.fromarray(np.full(size, value, dtype=np.uint8), mode).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(20):
        picture(tmp_path / "pictures" / ("sub" if number % 2 else ".") / f"{number}.png", number)
    prompts = [f"prompt {number}" for number in range(20)]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    return tmp_path


def read(folder: Path, heldout: float = 0.4, seed: int = 0, **most: int) -> Inputs:
    data = Data(
        images=str(folder / "pictures"), prompts=str(folder / "prompts.txt"), heldout=heldout
    )
    return read_inputs(data, seed, **most)


def test_split_is_whole_disjoint_and_seeded(folder: Path) -> None:
    inputs = read(folder)
    assert (len(inputs.images), len(inputs.watched_images)) == (12, 8)
    assert set(inputs.prompts) | set(inputs.watched_prompts) == {f"prompt {i}" for i in range(20)}
    assert not set(inputs.images) & set(inputs.watched_images)
    assert read(folder) == inputs
    assert read(folder, seed=1).watched_prompts != inputs.watched_prompts


def test_no_more_is_held_out_than_a_look_uses(folder: Path) -> None:
    inputs = read(folder, heldout=0.7, most=9)
    assert (len(inputs.images), len(inputs.watched_images)) == (11, 9)
    assert (len(inputs.prompts), len(inputs.watched_prompts)) == (11, 9)
    assert read(folder, heldout=0.7).watched_prompts[:9] == inputs.watched_prompts


def test_equal_inputs_are_never_on_both_sides(folder: Path) -> None:
    """Each prompt three times over, each picture twice under another name."""
    text = (folder / "prompts.txt").read_text(encoding="utf-8")
    (folder / "prompts.txt").write_text("\n".join([text] * 3), encoding="utf-8")
    for number in range(20):
        picture(folder / "pictures" / "copies" / f"x{number}.png", number)
    inputs = read(folder)
    assert (len(inputs.prompts), len(inputs.watched_prompts)) == (36, 8)
    assert not set(inputs.prompts) & set(inputs.watched_prompts)
    sides = [
        {load_picture(path).tobytes() for path in side}
        for side in (inputs.images, inputs.watched_images)
    ]
    assert not sides[0] & sides[1]
    assert (len(inputs.images), len(inputs.watched_images)) == (24, 8)


def test_few_different_inputs_are_all_trained_on_and_all_watched(folder: Path) -> None:
    """Ten prompts, each many times: one of them held out would be a look at one digit."""
    prompts = [f"digit {number % 10}" for number in range(50)]
    (folder / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    inputs = read(folder)
    assert sorted(inputs.watched_prompts) == sorted(set(prompts))
    assert list(inputs.prompts) == prompts
    assert not set(inputs.images) & set(inputs.watched_images)


def test_bad_inputs_are_dropped_and_named(folder: Path) -> None:
    (folder / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n then nothing")
    (folder / "pictures" / "empty.jpg").write_bytes(b"")
    (folder / "pictures" / "notes.txt").write_text("not looked at", encoding="utf-8")
    whole = (folder / "pictures" / "0.png").read_bytes()
    (folder / "pictures" / "cut.png").write_bytes(whole[: len(whole) // 2])
    text = "\ufeffone\n\n  two \t words \n   \nthree"
    (folder / "prompts.txt").write_text(text, encoding="utf-8")
    inputs = read(folder)
    named = {Path(one.input).name: one.why for one in inputs.dropped}
    assert set(named) == {"broken.png", "cut.png", "empty.jpg", "prompts.txt:2", "prompts.txt:4"}
    assert named["prompts.txt:2"] == "blank line"
    assert set(inputs.prompts + inputs.watched_prompts) == {"one", "two words", "three"}


def test_links_out_of_the_folder_are_a_setting(folder: Path) -> None:
    (folder / "pictures").rename(folder / "elsewhere")
    (folder / "pictures").mkdir()
    for path in sorted((folder / "elsewhere").glob("*.png")):
        (folder / "pictures" / path.name).symlink_to(path)
    with pytest.raises(DataError, match=r"10 unreadable, the first: .*/0.png: a link out of"):
        read(folder)
    data = Data(
        images=str(folder / "pictures"), prompts=str(folder / "prompts.txt"), follow_links=True
    )
    inputs = read_inputs(data, seed=0)
    assert len(inputs.images) == 10
    assert not inputs.dropped


def test_every_picture_has_its_digest(folder: Path) -> None:
    inputs = read(folder)
    assert set(inputs.digests) == {*inputs.images, *inputs.watched_images}
    for path, digest in inputs.digests.items():
        assert load_picture(path, digest=digest).shape == (4, 4, 3)
    with pytest.raises(DataError, match="has changed"):
        load_picture(inputs.images[0], digest=inputs.digests[inputs.images[1]])


def test_inputs_survive_the_disk(folder: Path, tmp_path: Path) -> None:
    inputs = read(folder)
    inputs.save(tmp_path / "run")
    assert Inputs.load(tmp_path / "run") == inputs


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "prompts.txt").unlink(), r"data.prompts: no file .*prompts.txt"),
        (lambda f: (f / "prompts.txt").write_text("\n \n"), r"no prompt in .* 2 blank lines"),
        (
            lambda f: (f / "prompts.txt").write_bytes(b"caf\xe9\n"),
            r"prompts.txt, line 1: not UTF-8 text",
        ),
        (lambda f: (f / "pictures").rename(f / "moved"), r"data.images: no folder"),
        (
            lambda f: [p.write_bytes(b"x") for p in f.rglob("*.png")],
            r"no readable picture .*20 unreadable",
        ),
    ],
)
def test_nothing_to_train_on(folder: Path, break_it, message: str) -> None:
    break_it(folder)
    with pytest.raises(DataError, match=message):
        read(folder)


def test_pick_visits_every_input_once_an_epoch() -> None:
    turns = [turn_indices(10, 3, turn, "seed", "generation") for turn in range(10)]
    visited = [index for turn in turns for index in turn]
    for epoch in range(3):
        assert sorted(visited[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    assert visited[:10] != visited[10:20]
    assert turns[4] == turn_indices(10, 3, 4, "seed", "generation")
    assert turns[4] != turn_indices(10, 3, 4, "seed", "understanding")


def test_pick_from_fewer_inputs_than_asked() -> None:
    assert Counter(turn_indices(3, 12, 5, 0)) == {0: 1, 1: 1, 2: 1}

"""Files that are whole or absent, and seeds that are the same everywhere."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import suder.storage.files
from suder.settings.learning import Lora
from suder.storage.arrays import write_arrays
from suder.storage.files import (
    finite,
    json_text,
    read_json,
    read_jsonl,
    read_tensors,
    seed_of,
    write_json,
    write_jsonl,
    write_tensors,
)
from suder.storage.folders import repair_folder, write_folder


def fill(text: str):
    return lambda folder: (folder / "weights").write_text(text, encoding="utf-8")


class Killed(BaseException):
    """Nothing on the way may catch it and tidy up."""


@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("point", range(2))
def test_folder_exchange_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int, error: BaseException
) -> None:
    """Before either rename of the exchange, the old folder is there again, at once or at repair."""
    best = tmp_path / "best"
    write_folder(best, fill("old"))
    rename, left = os.replace, iter(range(point, -1, -1))

    def cut_off(a: Path, b: Path) -> None:
        if next(left, 1) == 0:
            raise error
        rename(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(suder.storage.files.os, "replace", cut_off)
        with pytest.raises(type(error)):
            write_folder(best, fill("new"))
    if isinstance(error, Killed):
        repair_folder(best)
    assert (best / "weights").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    write_folder(best, fill("new"))
    assert (best / "weights").read_text(encoding="utf-8") == "new"


def test_tensors_and_their_note_come_back(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    whole = torch.arange(6).reshape(2, 3)
    write_tensors(path, {"a": whole.T, "b": whole > 2}, {"round": 3, "name": "café"})
    tensors, meta = read_tensors(path)
    assert torch.equal(tensors["a"], whole.T)
    assert torch.equal(tensors["b"], whole > 2)
    assert meta == {"round": 3, "name": "café"}


def test_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 1}\n{"round": 2}\n{"rou', encoding="utf-8")
    assert read_jsonl(path) == [{"round": 1}, {"round": 2}]
    assert read_jsonl(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_json_of_ours_holds_what_is_no_number(tmp_path: Path, value: float) -> None:
    """No writer of JSON takes it; `finite` is how a caller says that none is meant."""
    path = tmp_path / "file"
    tree = {"a": [1.5, value]}
    for write in (
        lambda: json_text(tree),
        lambda: write_json(path, tree),
        lambda: write_jsonl(path, [tree]),
        lambda: write_tensors(path, {}, tree),
    ):
        with pytest.raises(ValueError, match="JSON"):
            write()
    assert list(tmp_path.iterdir()) == []
    write_json(path, finite(tree))
    assert read_json(path) == {"a": [1.5, None]}


def test_seeds_are_fixed_for_ever() -> None:
    """Resuming on another machine or Python must draw the same: sha256, not hash()."""
    assert seed_of(0, 12, "sample", "generation") == 5579661855040744062
    assert seed_of(1, 12) != seed_of(11, 2)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_umask_says_who_may_read_what_is_written(
    tmp_path: Path, umask: int, fresh_model: Any
) -> None:
    """By every way that the project writes; safetensors would make a file for its owner alone."""
    tensors = {"a": torch.zeros(2)}
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", {})
        write_tensors(tmp_path / "a.safetensors", tensors, {})
        write_arrays(tmp_path / "a.npz", {"a": np.zeros(2)})
        write_folder(tmp_path / "folder", lambda to: save_file(tensors, to / "a.safetensors"))
        fresh_model.add_lora(Lora(rank=2), seed=0)
        fresh_model.save(tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == dict.fromkeys(
        (path.name for path in files), oct(0o666 & ~umask)
    )

"""Bits that flip, files cut off, files of somebody else: found, named, and gone round."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from suder.inputs.data import Inputs
from suder.storage.checkpoint import load_state, save_state, state_files
from suder.storage.files import (
    DamagedFile,
    read_json,
    read_jsonl,
    read_jsonl_left,
    read_object,
    read_tensors,
    write_tensors,
)


def test_every_bit_of_a_tensor_file_counts(tmp_path: Path) -> None:
    """Whatever bit is flipped, and wherever the file ends, it is no result."""
    path = tmp_path / "x.safetensors"
    tensors, meta = {"a": torch.arange(5.0), "b": torch.tensor([True])}, {"round": 3}
    write_tensors(path, tensors, meta)
    good = path.read_bytes()
    damaged = [good[:length] for length in range(len(good))]
    for place in range(len(good)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << place % 8
        damaged.append(bytes(flipped))
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DamagedFile, match=r"x\.safetensors"):
            read_tensors(path)


def test_tensors_without_a_checksum_are_not_ours(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(DamagedFile, match="no checksum"):
        read_tensors(tmp_path / "x.safetensors")


def test_the_last_two_states_are_kept_and_the_whole_one_is_used(tmp_path: Path) -> None:
    for index in (1, 2, 3, 12):
        save_state(tmp_path, index, {"w": torch.full((3,), index)}, {"run": "me"})
    assert [path.stem for path in state_files(tmp_path)] == ["000003", "000012"]
    last = state_files(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-1])
    state, faults = load_state(tmp_path, "me")
    assert state is not None
    assert state[1]["round"] == 3
    assert torch.equal(state[0]["w"], torch.full((3,), 3))
    assert len(faults) == 1
    assert f"{last} is damaged" in faults[0]
    state, faults = load_state(tmp_path, "another")
    assert state is None
    assert "is the state of another run" in faults[1]


def test_torn_rows_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"round": 1}\n{"rou\n[1]\n\n\xff\n{"round": 2}\n' + b"[" * 9999 + b'\n{"r')
    rows, faults = read_jsonl_left(path)
    assert rows == [{"round": 1}, {"round": 2}]
    assert [fault.partition(": ")[0] for fault in faults] == [
        f"{path}, line {number}" for number in (2, 3, 5, 7)
    ]
    with pytest.raises(DamagedFile, match=r"metrics\.jsonl, line 2: not JSON"):
        read_jsonl(path)


@pytest.mark.parametrize("text", ["", "{\n\n", "\x00\x00", "[" * 9999])
def test_torn_json_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DamagedFile, match=r"summary\.json.* is not JSON"):
        read_json(tmp_path / "summary.json")


def test_json_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps([1]))
    with pytest.raises(DamagedFile, match=r"no JSON object, but list"):
        read_object(tmp_path / "summary.json")


# ---- what is no file of a run's at all


@pytest.fixture
def in_seconds() -> Iterator[None]:
    """A reader that waits for somebody to write, or for the end of a device, fails."""

    def late(*_: object) -> None:
        raise AssertionError("still reading")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(5)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


NO_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pipe": (os.mkfifo, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "folder": (Path.mkdir, "a folder, not a file"),
    "large": (sparse, r"1099511627776 bytes, and at most \d+ are read"),
}


@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize(
    "read", [read_json, read_object, read_jsonl, read_jsonl_left, read_tensors]
)
def test_only_regular_files_of_a_bounded_size_are_read(
    tmp_path: Path, in_seconds: None, read: Callable[[Path], Any], what: str
) -> None:
    make, said = NO_FILES[what]
    path = tmp_path / "x.json"
    make(path)
    if read is read_tensors and what == "large":
        said = "is damaged"  # by its header; a state may be as large as it is
    with pytest.raises(DamagedFile, match=rf"{path}.*{said}"):
        read(path)


def test_a_note_that_is_no_object(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {}, [1])  # type: ignore[arg-type]
    with pytest.raises(DamagedFile, match=r"x\.safetensors: the note in it is no JSON object"):
        read_tensors(path)


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    path.write_text("1" * 101)
    short = os.stat_result((0o100644, 0, 0, 1, 0, 0, 5, 0, 0, 0))
    monkeypatch.setattr(os, "fstat", lambda _: short)
    with pytest.raises(DamagedFile, match=r"101 bytes, and at most 100 are read"):
        read_json(path, 100)


GOOD = {"images": ["a"], "prompts": ["b"], "watched_images": [], "watched_prompts": []}


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ([], "holds no JSON object, but list"),
        ({}, "`images` is empty or no list of texts"),
        (GOOD | {"prompts": []}, "`prompts` is empty or no list of texts"),
        (GOOD | {"images": "abc"}, "`images` is no list of texts"),
        (GOOD | {"watched_images": [1]}, "`watched_images` is no list of texts"),
        (GOOD | {"watched_prompts": {"a": "b"}}, "`watched_prompts` is no list of texts"),
        (GOOD | {"digests": ["a"]}, "`digests` are no texts by the paths of pictures"),
        (GOOD | {"digests": {"a": 1}}, "`digests` are no texts by the paths of pictures"),
    ],
)
def test_inputs_of_other_types(tmp_path: Path, tree: Any, said: str) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "inputs.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(DamagedFile, match=rf"{path}:? {said}"):
        Inputs.load(tmp_path)
    path.write_text(json.dumps(GOOD | {"of": "a later version"}))
    assert Inputs.load(tmp_path) == Inputs(("a",), ("b",), (), ())

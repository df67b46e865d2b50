"""Bits that flip, files cut off, files of somebody else: found, named, and gone round."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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

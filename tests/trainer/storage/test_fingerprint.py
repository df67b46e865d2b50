"""A hash that no value escapes."""

from __future__ import annotations

import hashlib

import pytest
import torch

from suder.storage import fingerprint
from suder.storage.fingerprint import hash_bytes, hash_tensors


def test_tree_is_sha256_of_the_blocks_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, for whole and part blocks; the number of threads is nobody's business."""
    monkeypatch.setattr(fingerprint, "BLOCK", 10)
    for length in (0, 1, 9, 10, 11, 35, 40):
        data = bytes(range(length))
        blocks = [data[at : at + 10] for at in range(0, length, 10)] or [b""]
        digests = b"".join(hashlib.sha256(block).digest() for block in blocks)
        assert hash_bytes(data) == hashlib.sha256(digests).digest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_every_value_counts(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(fingerprint, "BLOCK", 64)
    value = torch.zeros(300, dtype=dtype)
    hashes = {hash_tensors([("a", value)])}
    for place in range(300):
        other = value.clone()
        other[place] = 1
        hashes.add(hash_tensors([("a", other)]))
    assert len(hashes) == 301


def test_names_shapes_dtypes_and_the_note_count_and_the_order_does_not() -> None:
    a, b = torch.zeros(2, 3), torch.ones(())
    forward = hash_tensors([("a", a), ("b", b)])
    assert hash_tensors([("b", b), ("a", a)]) == forward
    others = [
        hash_tensors([("a", b), ("b", a)]),
        hash_tensors([("a", a.T), ("b", b)]),
        hash_tensors([("a", a.int()), ("b", b)]),
        hash_tensors([("a", a), ("b", b)], "note"),
        hash_tensors([("a", a)]),
    ]
    assert len({forward, *others}) == 6
    assert hash_tensors([("a", a.T)]) == hash_tensors([("a", a.T.contiguous())])

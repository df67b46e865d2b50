"""How far a result may be from its float64 oracle, by (what, device, dtype), each with its reason.

A test takes its limits from here and nowhere else: `assert_close(got, expected, **TOLERANCES[...])`.
"""

from __future__ import annotations

import torch

TOLERANCES: dict[tuple[str, str, torch.dtype], dict[str, float]] = {
    # Sums of ten float32 terms of size 1 to 10 and an exp of each: a few units in the last place.
    ("objective", "cpu", torch.float32): {"rtol": 1e-5, "atol": 1e-6},
    # (r - mean) / (std + 1e-4): the constant, which keeps equal rewards at 0, shifts 1e-4 / std.
    ("advantage", "cpu", torch.float32): {"rtol": 1e-4, "atol": 1e-6},
    # Two float32 passes over the same model that differ in the batch: other sums in the same
    # products, carried through every layer.
    ("gradient", "cpu", torch.float32): {"rtol": 1e-3, "atol": 1e-6},
    # A cached step and a teacher-forced pass over the same tokens: the promise of the sampler.
    ("ratio", "cpu", torch.float32): {"rtol": 0.0, "atol": 1e-4},
}

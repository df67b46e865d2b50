"""The first run on an H200 beside the model, with the constants of that day's kernels.

They agree within 10%, which tests/ops/test_gpu_model.py asserts.
"""

from __future__ import annotations

from benchmarks.model.cards import CARDS
from benchmarks.model.code import FIRST_RUN
from benchmarks.model.predictions import SHAPES, predictions

# The first run on an H200: times a bare product of the same run; milliseconds where "ms" stands.
MEASURED = {
    "fused forward, wgmma": (1.18, 1.10, 1.10, 1.11, 2.53),
    "fused forward, mma.sync": (2.68, 2.91, 2.83, 3.07, 3.91),
    "tiles, forward": (1.84, 2.01, 1.52, 1.59, 3.65),
    "fused, both ways, wgmma": (4.32, 4.38),
    "fused, both ways, mma.sync": (7.43, 7.92),
    "tiles, forward and backward": (7.78, 7.97),
}
# Of the pairs' losses and their mean, which "mean" is now.
MEASURED_PAIRS = {64: 4.33}
MEASURED_MS = {
    ("bare product, bf16 out", "8192x2048x16384"): 0.717,
    ("bare product, bf16 out", "8192x2048x102400"): 4.405,
    ("bare product, bf16 out", "576x2048x16384"): 0.055,
    ("fused forward, wgmma", "8192x2048x16384"): 0.846,
    ("fused forward, wgmma", "576x2048x16384"): 0.140,
    ("fused, both ways, wgmma", "8192x2048x16384"): 3.34,
    ("logprob from logits, forward", "8192x16384"): 0.228,
    ("logprob from logits, forward", "8192x102400"): 1.186,
}


def calibration() -> list[tuple[str, str, float, float]]:
    """Kernel, shape, measured and modelled: ratios to a bare product, then milliseconds."""
    works = {(w.name, w.shape): w.seconds for w in predictions(CARDS["h200"], FIRST_RUN)}
    rows = []
    for name, ratios in MEASURED.items():
        for (n, d, v), measured in zip(SHAPES, ratios, strict=False):
            shape = f"{n}x{d}x{v}"
            bare = works["bare product, bf16 out", shape]
            rows.append((name, shape, measured, works[name, shape] / bare))
    for pairs, measured in MEASURED_PAIRS.items():
        shape = f"{2 * 576 * pairs}x2048x16384"
        name = "pair loss, mean, with gradients"
        modelled = works[name, shape] / works["bare product, bf16 out", shape]
        rows.append((name, shape, measured, modelled))
    for (name, shape), measured in MEASURED_MS.items():
        rows.append((f"{name}, ms", shape, measured, works[name, shape] * 1e3))
    return rows

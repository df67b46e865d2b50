"""Every kernel at the shapes of the benchmarks, as a table."""

from __future__ import annotations

from functools import partial

from benchmarks.model.backward import fused_both, pair_loss
from benchmarks.model.cards import Card
from benchmarks.model.code import NOW, Kernels
from benchmarks.model.drawing import linear_sample_token, sample_token
from benchmarks.model.fused import fused_forward
from benchmarks.model.logits import logits_backward, logits_forward
from benchmarks.model.tiles import tiles_both, tiles_forward
from benchmarks.model.work import Work, bare_product

SHAPES = [(8192, d, v) for d in (2048, 4096) for v in (16384, 102400)] + [(576, 2048, 16384)]


def predictions(card: Card, code: Kernels = NOW) -> list[Work]:
    """All kernels at the shapes of the benchmark."""
    ways = (True, False) if card.tma else (False,)
    forward = [partial(fused_forward, wgmma=wgmma) for wgmma in ways]
    both = [partial(fused_both, wgmma=wgmma) for wgmma in ways]
    works = []
    for shape in SHAPES:
        works.append(bare_product(card, *shape))
        works += [m(card, code, *shape) for m in (*forward, tiles_forward, *both, tiles_both)]
    for v in (16384, 102400):
        works += [logits_forward(card, code, 8192, v), logits_backward(card, code, 8192, v)]
    for pairs in (16, 64):  # of images, 576 tokens each
        shape = 2 * 576 * pairs, 2048, 16384
        works += [bare_product(card, *shape), pair_loss(card, code, *shape)]
    for n, v in ((64, 16384), (256, 16384), (64, 102400)):
        works.append(sample_token(card, code, n, v))
    for shape in ((64, 2048, 16384), (256, 2048, 16384), (64, 4096, 16384), (64, 2048, 102400)):
        works.append(linear_sample_token(card, code, *shape))
    return works


def table(works: list[Work]) -> str:
    """One line a kernel and shape."""
    lines = [f"{'kernel':<32}{'shape':<20}{'ms':>9}{'TFLOP/s':>9}{'DRAM GB':>9}{'GB/s':>8}"]
    lines += [
        f"{w.name:<32}{w.shape:<20}{w.seconds * 1e3:>9.3f}{w.tflops:>9.0f}"
        f"{w.dram / 1e9:>9.3f}{w.dram / w.seconds / 1e9:>8.0f}"
        for w in works
    ]
    return "\n".join(lines)

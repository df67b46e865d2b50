"""What each CUDA kernel has to move and compute, and how long that takes at a card's limits.

The predictions are written down before a GPU run and compared with it after
(`benchmarks/gpu_check.sh` puts both side by side). Run `python benchmarks/model.py --gpu h100`.

Sources of the limits: H100 SXM data sheet (989.5 TFLOP/s dense bf16, 3.35 TB/s); 800 TFLOP/s is
what a good product sustains there (fast.cu, cuBLAS at 8192^3); 3.0 TB/s a copy as measured; what
TMA draws from L2 without clusters is worked out from fast.cu's kernel 6 (192x192 tiles, 777 TFLOP/s
at 8192^3); L2 bandwidth for other kernels and the share of the peak that mma.sync reaches on Hopper
are estimates, marked so.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """Limits of a GPU."""

    product: float  # FLOP/s a large bf16 product sustains
    mma_sync: float  # FLOP/s by mma.sync (estimate)
    copy: float  # bytes/s, read plus written
    l2: float  # bytes/s (estimate)
    multiprocessors: int
    exponentials: float  # per second: 16 a clock and multiprocessor
    launch: float  # seconds between dependent kernels of one stream
    tma: float = 8.1e12  # bytes/s from L2 by TMA: 777e12 / (2 * 192 * 192) * (192 + 192) * 2
    issue: float = 132 * 4 * 32 * 1.755e9  # thread instructions a second


CARDS = {
    "h100": Card(800e12, 560e12, 3.0e12, 5.5e12, 132, 132 * 16 * 1.755e9, 2e-6),
    "h200": Card(800e12, 560e12, 4.3e12, 5.5e12, 132, 132 * 16 * 1.755e9, 2e-6),
}
# Constants of the kernels (suder_ext/_ops/cuda/tiles.py, csrc/cuda/*_mainloop.cuh).
TILE_TOKENS, TILE_VOCAB = 512, 16384
BLOCK_ROWS, BLOCK_COLUMNS, MOST_SPLITS = 128, 256, 64
CLUSTER = 2  # blocks of the wgmma forward that share what they load of the weight
EPILOGUE_INSTRUCTIONS = 8  # an element: seven in the machine code, and what is not unrolled
# Of the fused backward (suder_ext/_ops/cuda/fused_backward.py). An element: 16 in the machine code
# for the gradient; what adds up a column, rounds, exchanges and stores comes to about 6.
CHUNK_TOKENS, SLICE_COLUMNS = 8192, 16384
GRADIENT_INSTRUCTIONS = 22


@dataclass(frozen=True)
class Work:
    """What a call does: floating-point operations of products, and bytes by where they lie."""

    name: str
    shape: str
    flops: float
    dram: float
    l2: float
    seconds: float

    @property
    def tflops(self) -> float:
        """Effective TFLOP/s, of the operations the caller asked for."""
        return self.flops / self.seconds / 1e12


def waves(blocks: int, card: Card, cluster: int = 1) -> float:
    """How much longer whole waves of blocks, or of clusters of them, take than their work."""
    at_once = card.multiprocessors // cluster * cluster
    return math.ceil(blocks / at_once) * at_once / blocks


def bare_product(card: Card, n: int, d: int, v: int) -> Work:
    flops = 2.0 * n * d * v
    blocks = math.ceil(n / BLOCK_ROWS) * math.ceil(v / BLOCK_COLUMNS)
    dram = 2.0 * (n * d + v * d + n * v)
    seconds = max(flops / card.product * waves(blocks, card), dram / card.copy)
    return Work("bare product, bf16 out", f"{n}x{d}x{v}", flops, dram, 0.0, seconds)


def tiles_forward(card: Card, n: int, d: int, v: int) -> Work:
    """Each tile: a product that writes float32 logits, a kernel that reads them, both in L2."""
    width = min(TILE_VOCAB, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    blocks = TILE_TOKENS // BLOCK_ROWS * math.ceil(width / BLOCK_COLUMNS)
    product = 2.0 * TILE_TOKENS * d * width / card.product * waves(blocks, card)
    read = 4.0 * TILE_TOKENS * width / card.l2
    exponentials = TILE_TOKENS * width / card.exponentials
    dram = 2.0 * (n * d + math.ceil(n / TILE_TOKENS) * v * d)
    seconds = tiles * (product + max(read, exponentials) + 2 * card.launch)
    l2 = 8.0 * tiles * TILE_TOKENS * width
    flops = 2.0 * n * d * v
    return Work("tiles, forward", f"{n}x{d}x{v}", flops, dram, l2, max(seconds, dram / card.copy))


def tiles_both(card: Card, n: int, d: int, v: int) -> Work:
    """Forward, then each tile again, its gradient in place, two products: 8 NDV done, 6 told."""
    forward = tiles_forward(card, n, d, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    width = min(TILE_VOCAB, v)
    products = 3 * 2.0 * n * d * v / card.product
    # Float32 gradients in place, their sums for the bias, their rounding for the products.
    gradient = tiles * (18.0 * TILE_TOKENS * width / card.l2 + 6 * card.launch)
    accumulators = 8.0 * (math.ceil(v / TILE_VOCAB) * n + math.ceil(n / TILE_TOKENS) * v) * d
    seconds = forward.seconds + products + gradient + accumulators / card.copy
    dram = 2 * forward.dram + accumulators
    return Work("tiles, forward and backward", f"{n}x{d}x{v}", 6.0 * n * d * v, dram, 0.0, seconds)


def fused_forward(
    card: Card, n: int, d: int, v: int, *, wgmma: bool, instructions: int = EPILOGUE_INSTRUCTIONS
) -> Work:
    """Logits in registers; 16 bytes a token and split.

    By mma.sync, or by wgmma, whose products run at the pace of a bare product's or at that of their
    operands from L2, whichever is slower. What a cluster's blocks share counts once: that L2 and
    the way from it see it once is an assumption. Rows are filled up to whole clusters, which costs
    one image (576 tokens: 5 blocks of rows, 3 clusters, 192 parts for 66 places) no further wave.

    In both, no epilogue overlaps a product: that of wgmma would, between its two warp groups, if
    they drift apart.
    """
    cluster = CLUSTER if wgmma else 1
    tiles = math.ceil(v / BLOCK_COLUMNS)
    each = math.ceil(tiles / MOST_SPLITS)
    splits = math.ceil(tiles / each)
    rows = math.ceil(n / BLOCK_ROWS / cluster) * cluster
    elements = 1.0 * rows * BLOCK_ROWS * tiles * BLOCK_COLUMNS
    depth = math.ceil(d / 64) * 64
    l2 = 2.0 * rows * tiles * (BLOCK_ROWS + BLOCK_COLUMNS / cluster) * depth
    if wgmma:
        product = max(2.0 * elements * depth / card.product, l2 / card.tma)
    else:
        product = 2.0 * elements * d / card.mma_sync
    epilogue = elements * max(1 / card.exponentials, instructions / card.issue)
    seconds = (product + epilogue) * waves(rows * splits, card, cluster) + 2 * card.launch
    dram = 2.0 * (n * d + v * d) + 32.0 * n * splits
    name = f"fused forward, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 2.0 * n * d * v, dram, l2, seconds)


def fused_both(card: Card, n: int, d: int, v: int, *, wgmma: bool) -> Work:
    """Forward; the products again, to 16-bit gradients of logits in DRAM; two products with those.

    The gradients' way to DRAM counts in full, though it may hide behind products; so do the whole
    waves of blocks of both products, the float32 sums that they add to, their rounding, the copy of
    the hidden states without ignored rows, and the sums for a bias, one row for 16 tokens (64 by
    mma.sync).
    """
    forward = fused_forward(card, n, d, v, wgmma=wgmma)
    slices, chunks = math.ceil(v / SLICE_COLUMNS), math.ceil(n / CHUNK_TOKENS)
    seconds, dram = forward.seconds, forward.dram
    for first in range(0, v, SLICE_COLUMNS):
        width = min(SLICE_COLUMNS, v - first)
        for start in range(0, n, CHUNK_TOKENS):
            height = min(CHUNK_TOKENS, n - start)
            again = fused_forward(
                card, height, d, width, wgmma=wgmma, instructions=GRADIENT_INSTRUCTIONS
            )
            written = 2.0 * height * width + 8.0 * height * width / (16 if wgmma else 64)
            seconds += again.seconds + written / card.copy
            dram += 2.0 * (height + width) * d + written
            for rows, columns, depth in ((height, d, width), (width, d, height)):
                blocks = math.ceil(rows / BLOCK_ROWS) * math.ceil(columns / BLOCK_COLUMNS)
                operands = 2.0 * (rows + columns) * depth
                product = 2.0 * rows * columns * depth / card.product * waves(blocks, card)
                seconds += max(product, operands / card.copy) + card.launch
                dram += operands
    # Written, then read and written for each further slice or chunk; read, rounded and written.
    sums = (8.0 * slices - 4 + 6) * n * d + (8.0 * chunks - 4 + 6) * v * d
    rest = sums + 4.0 * n * d
    seconds += rest / card.copy + 3 * card.launch
    name = f"fused, both ways, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 6.0 * n * d * v, dram + rest, 0.0, seconds)


def logits_forward(card: Card, n: int, v: int) -> Work:
    dram = 2.0 * n * v
    seconds = max(dram / card.copy, n * v / card.exponentials) + card.launch
    return Work("logprob from logits, forward", f"{n}x{v}", 0.0, dram, 0.0, seconds)


def logits_backward(card: Card, n: int, v: int) -> Work:
    dram = 4.0 * n * v
    seconds = max(dram / card.copy, n * v / card.exponentials) + card.launch
    return Work("logprob from logits, backward", f"{n}x{v}", 0.0, dram, 0.0, seconds)


def pair_loss(card: Card, n: int, d: int, v: int) -> Work:
    """Reduction "mean": `tiles_both` less a product, but the logits wait in DRAM, not in L2."""
    both, again = tiles_both(card, n, d, v), 2.0 * n * d * v / card.product
    logits = 8.0 * n * v  # written back, read again
    seconds, dram = both.seconds - again + logits / card.copy, both.dram + logits
    return Work("pair loss, mean, with gradients", both.shape, both.flops, dram, 0.0, seconds)


def predictions(card: Card) -> list[Work]:
    """All kernels at the shapes of the benchmark."""
    shapes = [(8192, d, v) for d in (2048, 4096) for v in (16384, 102400)] + [(576, 2048, 16384)]
    fused = (partial(fused_forward, wgmma=True), partial(fused_forward, wgmma=False))
    both = (partial(fused_both, wgmma=True), partial(fused_both, wgmma=False))
    linear = (bare_product, *fused, tiles_forward, *both, tiles_both)
    works = [model(card, *shape) for shape in shapes for model in linear]
    for v in (16384, 102400):
        works += [logits_forward(card, 8192, v), logits_backward(card, 8192, v)]
    works += [pair_loss(card, 8192, 2048, v) for v in (16384, 102400)]
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpu", choices=CARDS, default="h100")
    parser.add_argument("--json", type=Path, help="also write the predictions here")
    arguments = parser.parse_args()
    works = predictions(CARDS[arguments.gpu])
    print(table(works))
    if arguments.json:
        rows = [{**vars(w), "tflops": w.tflops} for w in works]
        temporary = arguments.json.with_suffix(".tmp")
        temporary.write_text(json.dumps({"gpu": arguments.gpu, "predictions": rows}, indent=1))
        temporary.replace(arguments.json)


if __name__ == "__main__":
    main()

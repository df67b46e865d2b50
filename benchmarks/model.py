"""What each CUDA kernel has to move and compute, and how long that takes at a card's limits.

    python benchmarks/model.py --gpu h200     predictions for the kernels as they are
    python benchmarks/model.py --calibrate    the first run on a card beside the model of that day

Written down before a run (`results/gpu_predictions.txt`) and compared with it after
(`benchmarks/gpu_check.sh` puts both side by side). The limits marked "measured" are of the first
run, on an H200 (26 November 2026); with them and the constants of that day's kernels (FIRST_RUN)
the model gives that run's figures within 10%, which tests/ops/test_gpu_model.py asserts. What a
later kernel changes (NOW) is worked out from its instructions and bytes and was not measured.

Other sources: H100 SXM data sheet (989.5 TFLOP/s dense bf16, 3.35 TB/s); 3.0 TB/s a copy as
measured by others; what TMA draws from L2 without clusters is worked out from fast.cu's kernel 6
(192x192 tiles, 777 TFLOP/s at 8192^3).
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """Limits of a GPU."""

    product: float  # FLOP/s a large bf16 product sustains; measured
    product_float32: float  # the same into float32; measured, by tiles
    mma_sync: float  # FLOP/s that mma.sync could reach: the data sheet's; on Hopper 62% of it
    read: float  # bytes/s
    copy: float  # bytes/s, read plus written
    l2: float  # bytes/s (estimate)
    multiprocessors: int
    exponentials: float  # per second: 16 a clock and multiprocessor
    launch: float  # seconds between dependent kernels of one stream
    # Bytes/s from L2 by TMA: 777e12 / (2 * 192 * 192) * (192 + 192) * 2. 0: none, and no wgmma.
    tma: float = 8.1e12
    issue: float = 132 * 4 * 32 * 1.755e9  # thread instructions a second
    row_issue: float = (
        132 * 4 * 32 * 1.96e9
    )  # at the clock of kernels without tensor cores; measured


def data_sheet(
    product: float, reached: float, read: float, l2: float, multiprocessors: int, clock: float
) -> Card:
    """A card without wgmma: its products' peak, and the share of it that cuBLAS reaches (estimate,
    as its L2's bandwidth is). Nothing of ours was run there."""
    bare, exponentials = reached * product, multiprocessors * 16 * clock
    issue = multiprocessors * 4 * 32 * clock
    return Card(
        *(bare, bare, product, read, 0.95 * read, l2, multiprocessors, exponentials, 2.5e-6),
        *(0.0, issue, issue),
    )


# An H100 multiplies as fast; its memory is slower.
CARDS = {
    "h100": Card(780e12, 620e12, 613e12, 3.0e12, 3.0e12, 5.5e12, 132, 132 * 16 * 1.755e9, 2e-6),
    "h200": Card(780e12, 620e12, 613e12, 4.3e12, 4.2e12, 5.5e12, 132, 132 * 16 * 1.755e9, 2e-6),
    "a100": data_sheet(312e12, 0.87, 1.8e12, 4.5e12, 108, 1.41e9),
    "l40": data_sheet(181e12, 0.87, 0.8e12, 4.0e12, 142, 2.49e9),
}


@dataclass(frozen=True)
class Kernels:
    """What differs between two states of the code."""

    host: float  # seconds of an eager call before its first kernel; measured, later an estimate
    merge_latency: float  # of a part in the merge of row states: loads that wait for one another
    merge: float  # bytes/s of the merge
    logit_instructions: float  # of the forward from logits
    row_instructions: float  # of a block that reads one split of a row, all threads together
    logits_issue: float  # the share of issue slots that these get
    mma_share: float  # of what mma.sync could reach, our main loop's
    most_splits: int  # of a vocabulary
    skew: int  # steps of 64 by which halves of a tile of the wgmma forward are apart
    short_parts_last: bool  # and groups of 64 rows without a token multiply nothing
    kept: float = 0.0  # bytes that a forward may keep for its backward


# The first run: commit ea9eaf4. Its row kernel filled 85% of the issue slots (Nsight); what rows of
# two widths took gives 36 instructions a logit and 200,000 a row, a tree of merges.
FIRST_RUN = Kernels(57e-6, 0.15e-6, 0.4e12, 36, 2.0e5, 0.85, 0.473, 64, 0, False)
# The merge: 8 warps share a row's parts, 8 loads under way each. A logit: 9 in the machine code; a
# row: about 150 of each of 256 threads. The host: what benchmarks/gpu/calls.py measures without a
# GPU (it was 57 on the card's machine). mma.sync: the first run's loop took 4.8 instructions a
# product, and waited for the fragments of each; now it takes 2.3, fragments come a slice ahead, and
# what is left is a barrier a stage, some 80 of 1650 cycles, and an estimate for all else.
NOW = Kernels(20e-6, 0.03e-6, 2.5e12, 9, 4.0e4, 0.75, 0.85, 128, 2, True, kept=512 * 2.0**20)

# Constants of the kernels (suder_ext/_ops/cuda/tiles.py, csrc/cuda/*_mainloop.cuh).
TILE_TOKENS, TILE_VOCAB = 512, 16384
BLOCK_ROWS, BLOCK_COLUMNS, GROUP_ROWS = 128, 256, 64
BARE_ROWS = 64  # of cuBLAS's tiles where the last wave is small, by what 576 rows take
SPLIT_COLUMNS = 65536  # of a row of logits that one block reads
CLUSTER = 2  # blocks of the wgmma forward that share what they load of the weight
DRY = 100 / 1.755e9  # seconds until the tensor cores work again; an estimate
EPILOGUE_INSTRUCTIONS = 8  # an element: seven in the machine code, and what is not unrolled
# Of the fused backward (suder_ext/_ops/cuda/logit_gradients.py). An element: 16 in the machine code
# for the gradient; what adds up a column, rounds, exchanges and stores comes to about 6.
CHUNK_TOKENS, SLICE_COLUMNS = 8192, 16384
GRADIENT_INSTRUCTIONS = 22
# What the forward keeps for it (kept_exps.py): 16 bits an element and 4 bytes for 64 of them. An
# element is scaled, rounded, exchanged and stored. Kept tokens are a multiple of KEPT_ROWS.
KEEP_INSTRUCTIONS, KEPT_ROWS, KEPT_SUM_ROWS = 3, 256, 32
SMALL_LAUNCHES = 15  # of the pairs' losses, both ways


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
    blocks = math.ceil(n / BARE_ROWS) * math.ceil(v / BLOCK_COLUMNS)
    dram = 2.0 * (n * d + v * d + n * v)
    seconds = max(flops / card.product * waves(blocks, card), dram / card.copy)
    return Work("bare product, bf16 out", f"{n}x{d}x{v}", flops, dram, 0.0, seconds)


def merge(card: Card, code: Kernels, n: int, splits: int) -> float:
    """Seconds to join the states of a row's parts."""
    return card.launch + splits * code.merge_latency + 16.0 * n * splits / code.merge


def rows_of_logits(card: Card, code: Kernels, n: int, v: int, bandwidth: float) -> float:
    """Seconds of the row kernel: memory, exponentials or instructions, whichever is slowest."""
    blocks, elements = n * math.ceil(v / SPLIT_COLUMNS), 1.0 * n * v
    instructions = elements * code.logit_instructions + blocks * code.row_instructions
    issue = instructions / (card.row_issue * code.logits_issue)
    return max(elements / bandwidth, elements / card.exponentials, issue)


def tiles_forward(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """Each tile: a product that writes float32 logits, a kernel that reads them, both in L2."""
    width = min(TILE_VOCAB, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    elements = 1.0 * TILE_TOKENS * width
    product = 2.0 * elements * d / card.product_float32
    rows = rows_of_logits(card, code, TILE_TOKENS, width, card.l2 / 4)
    dram = 2.0 * (n * d + math.ceil(n / TILE_TOKENS) * v * d)
    seconds = code.host + tiles * (product + rows + 4 * card.launch)
    flops, l2 = 2.0 * n * d * v, 8.0 * tiles * elements
    return Work("tiles, forward", f"{n}x{d}x{v}", flops, dram, l2, max(seconds, dram / card.copy))


def tiles_both(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """Forward, then each tile again, its gradient in place, two products: 8 NDV done, 6 told."""
    forward = tiles_forward(card, code, n, d, v)
    tiles = math.ceil(n / TILE_TOKENS) * math.ceil(v / TILE_VOCAB)
    width = min(TILE_VOCAB, v)
    products = 3 * 2.0 * n * d * v / card.product_float32
    # Float32 gradients in place, their sums for the bias, their rounding for the products.
    gradient = tiles * (18.0 * TILE_TOKENS * width / card.l2 + 6 * card.launch)
    accumulators = 8.0 * (math.ceil(v / TILE_VOCAB) * n + math.ceil(n / TILE_TOKENS) * v) * d
    seconds = forward.seconds + products + gradient + accumulators / card.copy
    dram = 2 * forward.dram + accumulators
    return Work("tiles, forward and backward", f"{n}x{d}x{v}", 6.0 * n * d * v, dram, 0.0, seconds)


def products_in_registers(
    card: Card,
    code: Kernels,
    n: int,
    d: int,
    v: int,
    *,
    wgmma: bool,
    instructions: int,
    skew: int = 0,
) -> tuple[float, int]:
    """Seconds of a fused kernel, forward or gradient, and into how many parts a row is cut.

    By wgmma the products run at the pace of a bare product's or at that of their operands from L2,
    whichever is slower. What a cluster's blocks share counts once: that L2 and the way from it see
    it once is an assumption. Rows are filled up to whole clusters. Halves of a tile that are some
    steps apart hide as many steps' time of the epilogues, and let the pipe run dry twice.
    """
    cluster = CLUSTER if wgmma else 1
    tiles = math.ceil(v / BLOCK_COLUMNS)
    each = math.ceil(tiles / code.most_splits)
    splits = math.ceil(tiles / each)
    elements, depth = 1.0 * BLOCK_ROWS * BLOCK_COLUMNS, math.ceil(d / 64) * 64
    l2 = 2.0 * (BLOCK_ROWS + BLOCK_COLUMNS / cluster) * depth
    rate = card.product if wgmma else card.mma_sync * code.mma_share
    # What L2 was seen to give, by whichever way its answers come.
    product = max(2.0 * elements * depth / rate, l2 / (card.tma or card.l2))
    epilogue = elements * max(1 / card.exponentials, instructions / card.issue)
    if skew:
        epilogue = (
            max(0.0, epilogue - product * skew / (depth / 64)) + 2 * DRY / card.multiprocessors
        )
    tile = (product + epilogue) * card.multiprocessors
    clusters, rest = divmod(n, BLOCK_ROWS * cluster)
    if not code.short_parts_last:
        parts = math.ceil(n / BLOCK_ROWS / cluster) * splits * cluster
        filled = waves(parts, card, cluster) if wgmma else last_wave(parts, card)
        return tile * tiles / splits * parts * filled / card.multiprocessors, splits
    # Blocks take parts in turn.
    weights = [1.0] * (clusters * splits)
    weights += [0.5 if wgmma and rest <= GROUP_ROWS else 1.0] * (splits * (rest > 0))
    at_once = card.multiprocessors // cluster
    longest = max(sum(weights[first::at_once]) for first in range(min(at_once, len(weights))))
    return tile * tiles / splits * longest, splits


def last_wave(blocks: int, card: Card) -> float:
    """The same where blocks do not run in step: a last wave's empty places cost half as much."""
    return (waves(blocks, card) + 1) / 2


def fused_forward(card: Card, code: Kernels, n: int, d: int, v: int, *, wgmma: bool) -> Work:
    """Logits in registers; 16 bytes a token and split."""
    kernel, splits = products_in_registers(
        card, code, n, d, v, wgmma=wgmma, instructions=EPILOGUE_INSTRUCTIONS, skew=code.skew * wgmma
    )
    seconds = code.host + kernel + merge(card, code, n, splits) + card.launch
    dram = 2.0 * (n * d + v * d) + 32.0 * n * splits
    name = f"fused forward, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 2.0 * n * d * v, dram, 0.0, seconds)


def kept_tokens(code: Kernels, n: int, v: int) -> int:
    """How many of n tokens leave their exponentials for the backward."""
    fit = int(code.kept / (2.0 * v + 4.0 * math.ceil(v / 64) + 4))
    return n if n <= fit else fit // KEPT_ROWS * KEPT_ROWS


def fused_both(card: Card, code: Kernels, n: int, d: int, v: int, *, wgmma: bool) -> Work:
    """Forward; 16-bit gradients of logits in DRAM; two products with those.

    They come from what the forward kept, one read and one write of each, or from the products
    again. So do count the float32 sums that both products add to, their rounding, the copy of the
    hidden states without ignored rows, and the sums for a bias, one row for 16 tokens (64 by
    mma.sync, 32 of what was kept). What kernels with products write hides behind those.
    """
    forward = fused_forward(card, code, n, d, v, wgmma=wgmma)
    kept = kept_tokens(code, n, v)
    chunks = [min(CHUNK_TOKENS, kept - start) for start in range(0, kept, CHUNK_TOKENS)]
    again = [min(CHUNK_TOKENS, n - start) for start in range(kept, n, CHUNK_TOKENS)]
    slices = [min(SLICE_COLUMNS, v - first) for first in range(0, v, SLICE_COLUMNS)]
    seconds, dram = forward.seconds + 1.0 * kept * v * KEEP_INSTRUCTIONS / card.issue, forward.dram
    dram += 2.0 * kept * v
    for width in slices:
        for height in chunks:
            moved = 4.0 * height * width + 8.0 * height * width / KEPT_SUM_ROWS
            seconds += moved / card.copy + card.launch
            dram += moved
        for height in again:
            seconds += products_in_registers(
                card, code, height, d, width, wgmma=wgmma, instructions=GRADIENT_INSTRUCTIONS
            )[0]
            written = 2.0 * height * width + 8.0 * height * width / (16 if wgmma else 64)
            dram += 2.0 * (height + width) * d + written
        for height in chunks + again:
            for rows, columns, depth in ((height, d, width), (width, d, height)):
                operands = 2.0 * (rows + columns) * depth
                product = 2.0 * rows * columns * depth / card.product
                seconds += max(product, operands / card.copy) + card.launch
                dram += operands
    # Written, then read and written for each further slice or chunk; read, rounded and written.
    count = len(chunks + again)
    sums = (8.0 * len(slices) - 4 + 6) * n * d + (8.0 * count - 4 + 6) * v * d
    rest = sums + 4.0 * n * d
    seconds += rest / card.copy + 3 * card.launch
    name = f"fused, both ways, {'wgmma' if wgmma else 'mma.sync'}"
    return Work(name, f"{n}x{d}x{v}", 6.0 * n * d * v, dram + rest, 0.0, seconds)


def logits_forward(card: Card, code: Kernels, n: int, v: int) -> Work:
    dram = 2.0 * n * v
    seconds = rows_of_logits(card, code, n, v, card.read / 2) + card.launch
    return Work("logprob from logits, forward", f"{n}x{v}", 0.0, dram, 0.0, seconds)


def logits_backward(card: Card, code: Kernels, n: int, v: int) -> Work:
    dram = 4.0 * n * v
    seconds = max(dram / card.copy, n * v / card.exponentials) + card.launch
    return Work("logprob from logits, backward", f"{n}x{v}", 0.0, dram, 0.0, seconds)


def pair_loss(card: Card, code: Kernels, n: int, d: int, v: int) -> Work:
    """The mean over pairs: `fused_both`, and the small kernels of sums and losses."""
    both = fused_both(card, code, n, d, v, wgmma=True)
    seconds = both.seconds + SMALL_LAUNCHES * card.launch
    return Work("pair loss, mean, with gradients", both.shape, both.flops, both.dram, 0.0, seconds)


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
    return works


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
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--json", type=Path, help="also write the predictions here")
    arguments = parser.parse_args()
    if arguments.calibrate:
        for name, shape, measured, modelled in calibration():
            off = 100 * (modelled / measured - 1)
            print(f"{name:<34}{shape:<18}{measured:>8.3f}{modelled:>8.3f}{off:>+7.1f}%")
        return
    # The L40's blocks have too little shared memory for a kernel that keeps anything.
    code = replace(NOW, kept=0.0) if arguments.gpu == "l40" else NOW
    works = predictions(CARDS[arguments.gpu], code)
    print(table(works))
    if arguments.json:
        rows = [{**vars(w), "tflops": w.tflops} for w in works]
        temporary = arguments.json.with_suffix(".tmp")
        temporary.write_text(json.dumps({"gpu": arguments.gpu, "predictions": rows}, indent=1))
        temporary.replace(arguments.json)


if __name__ == "__main__":
    main()

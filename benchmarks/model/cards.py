"""Limits of GPUs.

Those marked "measured" are of the first run, on an H200 (26 November 2026). Other sources: H100 SXM
data sheet (989.5 TFLOP/s dense bf16, 3.35 TB/s); 3.0 TB/s a copy as measured by others; what TMA
draws from L2 without clusters is worked out from fast.cu's kernel 6 (192x192 tiles, 777 TFLOP/s at
8192^3).
"""

from __future__ import annotations

from dataclasses import dataclass


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
    # FLOP/s of float32 convolutions and products where torch lets them round to TF32, as it does
    # for convolutions: 40% of the data sheet's 495e12 (estimate).
    float32: float = 200e12
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

"""Real pictures: scikit-learn's 1797 scans of handwritten digits, and what they are called.

The scans are 8 x 8 in 17 greys. They are enlarged to the models' 32 x 32, dark ink on white. Each
scan belongs to one split; a prompt ("the digit seven") belongs to all.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from suder.world.splits import SPLITS, Split
from suder.world.things import SIZE

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("the", "digit", *NAMES)
# Few captions, so that the warm start has room; the rest of the training scans come without.
SHARES = (0.15, 0.50, 0.35)


def prompt(digit: int) -> str:
    return f"the digit {NAMES[digit]}"


def scans(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8 `[n, 32, 32, 3]` and digits int64 `[n]` of a split, in a fixed order."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    pictures, digits = _all_scans()
    cuts = np.rint(np.cumsum(SHARES) * len(digits)).astype(int)
    place = SPLITS.index(split)
    rows = _order(len(digits))[(cuts[place - 1] if place else 0) : cuts[place]]
    return pictures[rows], digits[rows]


def pictures(n: int, seed: int) -> np.ndarray:
    """`n` draws from the scans that may be trained on; the test scans stay unseen."""
    known = np.concatenate([scans("supervised")[0], scans("unlabelled")[0]])
    return known[np.random.default_rng([seed, 21]).integers(len(known), size=n)]


def pairs(split: Split, n: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """`n` draws from a split's scans, and what each is called."""
    found, digits = scans(split)
    rows = np.random.default_rng([seed, 22]).integers(len(found), size=n)
    return found[rows], [prompt(int(digits[row])) for row in rows]


@functools.cache
def _order(n: int) -> np.ndarray:
    """The scans shuffled by a hash of their number: the same on every machine."""
    digests = [hashlib.sha256(f"digit {row}".encode()).digest() for row in range(n)]
    return np.array(sorted(range(n), key=digests.__getitem__))


@functools.cache
def _all_scans() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "the digits world is scikit-learn's data: pip install 'suder[digits]'"
        ) from None
    data = load_digits()
    ink = np.stack([enlarge(scan / 16.0) for scan in data.images])
    grey = ((1 - ink) * 255).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), data.target.astype(np.int64)


def enlarge(scan: np.ndarray) -> np.ndarray:
    """Float `[8, 8]` in [0, 1] -> `[32, 32]`, bilinear between pixel centres."""
    side = len(scan)
    at = np.clip((np.arange(SIZE) + 0.5) * side / SIZE - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), side - 2)
    weight = np.zeros((SIZE, side))
    weight[np.arange(SIZE), low] = 1 - (at - low)
    weight[np.arange(SIZE), low + 1] = at - low
    inked: np.ndarray = weight @ scan @ weight.T
    return inked

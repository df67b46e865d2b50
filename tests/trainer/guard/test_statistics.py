"""Statistics of pictures and captions against plain loops, and that they see what people see."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from suder.guard.look import compared, mean_of, spread_of
from suder.guard.statistics import caption_statistics, distinct, picture_statistics


def by_hand(picture: np.ndarray) -> dict[str, float]:
    """Pixel by pixel, in Python's numbers."""
    height, width, _ = picture.shape
    pixels = [[tuple(map(int, picture[y, x])) for x in range(width)] for y in range(height)]
    luma = [[(299 * r + 587 * g + 114 * b) / 1000 for r, g, b in row] for row in pixels]
    flat = [pixel for row in pixels for pixel in row]
    across = [abs(row[x + 1] - row[x]) > 26 for row in luma for x in range(width - 1)]
    down = [abs(b - a) > 26 for y in range(height - 1) for a, b in zip(luma[y], luma[y + 1])]  # noqa: B905
    counts = Counter(tuple(one // 32 for one in pixel) for pixel in flat)
    shares = [count / len(flat) for count in counts.values()]
    return {
        "dark": sum(one < 51 for row in luma for one in row) / len(flat),
        "saturated": sum(max(one) - min(one) > 153 for one in flat) / len(flat),
        "edges": (sum(across) / len(across) + sum(down) / len(down)) / 2,
        "colours": -sum(share * math.log(share) for share in shares),
    }


def test_pictures_against_loops() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (70, 6, 9, 3), dtype=np.uint8)  # more than at once
    pictures[1] //= 4
    found = picture_statistics(torch.from_numpy(pictures))
    for place, picture in enumerate(pictures):
        for name, value in by_hand(picture).items():
            assert float(found[name][place]) == pytest.approx(value, abs=1e-12), (name, place)


def test_what_goes_wrong_is_seen() -> None:
    """Darker, flatter, garish: each statistic moves the way its name says."""
    rng = np.random.default_rng(1)
    plain = rng.integers(60, 196, (4, 16, 16, 3), dtype=np.uint8)
    dark, flat, garish = plain // 4, np.full_like(plain, 128), np.where(plain > 128, 255, 0)
    before = picture_statistics(torch.from_numpy(plain))
    dark_now = picture_statistics(torch.from_numpy(dark))
    assert dark_now["dark"].min() > 0.9 > before["dark"].max()
    flat_now = picture_statistics(torch.from_numpy(flat))
    assert flat_now["edges"].max() == 0 < before["edges"].min()
    assert flat_now["colours"].abs().max() < 1e-12 < before["colours"].min()
    garish_now = picture_statistics(torch.from_numpy(garish.astype(np.uint8)))
    assert garish_now["saturated"].min() > 0.5 > before["saturated"].max()


def test_captions() -> None:
    texts = ["a red circle", "red red red red", ""]
    finished = torch.tensor([True, False, True])
    found = caption_statistics(texts, torch.tensor([4, 4, 1]), finished)
    assert found["length"].tolist() == [4, 4, 1]
    assert found["words"].tolist() == [1, 0.25, 1]
    assert found["cut_off"].tolist() == [0, 1, 0]


def test_distinct_candidates_of_each_input() -> None:
    assert distinct([(1, 2), (1, 2), (3,), (4,), (4,), (4,)], 2).tolist() == [2 / 3, 1 / 3]


def test_change_is_over_inputs_that_have_a_value() -> None:
    first = mean_of(torch.tensor([1.0, 3.0, math.nan, math.nan, 5.0, 7.0, 1.0, 1.0]), 4)
    assert first.tolist()[::2] == [2.0, 6.0]
    later = mean_of(torch.tensor([2.0, 4.0, 9.0, 9.0, 8.0, math.nan, 1.0, 3.0]), 4)
    found = compared(later, first, 0.5)
    changes = np.array([1.0, 2.0, 1.0])
    assert (found.count, found.spread) == (3, 0.5)
    assert found.change == pytest.approx(changes.mean())
    assert found.error == pytest.approx(changes.std(ddof=1) / 3**0.5)


def test_spread_of_what_is_always_the_same() -> None:
    """No caption of 400 was cut off: a few now are no drift yet, a tenth of them is."""
    never = spread_of(torch.zeros(400))
    assert never == pytest.approx(0.05)
    assert spread_of(torch.full((400,), 20.0)) == pytest.approx(1.0)  # tokens
    assert spread_of(torch.tensor([1.0, 3.0, math.nan] * 99)) == pytest.approx(1.0, rel=0.01)

"""Heads split over ranks: the cases of test_vocabulary_parallel.py and of its processes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from tests.ops.backends import BACKENDS, ISAS
from tests.ops.cases import DTYPES, OUTPUTS, Case, linear_case, upstream_for

# On CUDA a part of a head goes tile by tile, whichever way the whole one would go.
SPLIT_BACKENDS = [name for name in BACKENDS if name not in ("emulated-fused", "emulated-hopper")]


@dataclass(frozen=True)
class Split:
    """A case, and how many of the head's rows each rank has."""

    case: Case
    sizes: tuple[int, ...]
    outputs: tuple[str, ...] = OUTPUTS
    logits: float = 1.0
    """The largest final logit, which the accuracy of float32 results is relative to."""
    with_gradients: bool = True
    of_isas: bool = False
    """Whether only CPU kernels are so accurate; the others have logits near 1e4 as float32."""

    def upstream(self) -> dict[str, Tensor]:
        return upstream_for(self.case, outputs=self.outputs)

    def shard(self, rank: int) -> Case:
        """What this rank gives. Not all shards begin on a 16-byte boundary, and none is a copy."""
        first, last = list(pairwise(accumulate(self.sizes, initial=0)))[rank]
        rows = {n: t if n == "hidden" else t[first:last] for n, t in self.case.floats.items()}
        return replace(self.case, floats=rows)


def _changed(case: Case, **change: Callable[[Tensor], None]) -> Case:
    for name, what in change.items():
        what(case.floats.get(name, case.target))
    return case


def _exact_offset(offset: float) -> Case:
    """Logits that are multiples of 2^-8, so exact beside 1e4: log p keeps all its digits."""
    case = linear_case(6, 8, 100, ignored=0.0, bias=False)
    hidden = torch.cat([torch.ones(6, 1), (case.floats["hidden"] * 4).round() / 4], dim=1)
    common = torch.full((100, 1), offset)
    weight = torch.cat([common, (case.floats["weight"] * 16).round() / 16], dim=1)
    return replace(case, floats={"hidden": hidden, "weight": weight})


def _bias_offset(offset: float) -> Case:
    """By the bias, whose largest value, another on each rank, CPU kernels take off first."""
    case = linear_case(6, 8, 100, ignored=0.0)
    bias = (case.floats["bias"] * 16).round() / 16 + offset  # exact
    return replace(case, floats={**case.floats, "bias": bias})


def _random(seed: int) -> Split:
    draw = random.Random(seed)
    vocab = draw.choice([draw.randint(3, 40), draw.randint(41, 700)])
    ranks = draw.choice([2, 3])
    cuts = sorted(draw.sample(range(1, vocab), ranks - 1))
    spread = draw.choice([0.0, 0.1, 1.0, 10.0])
    temperature = draw.choice([1.0, 0.5, 3.0])
    case = linear_case(
        draw.randint(0, 40),
        draw.randint(1, 70),
        vocab,
        draw.choice(DTYPES),
        seed=seed,
        bias=draw.random() < 0.5,
        ignored=draw.choice([0.0, 0.3, 1.0]),
        spread=spread,
        temperature=temperature,
        softcap=draw.choice([None, 2.0, 50.0]),
    )
    outputs = tuple(name for name in OUTPUTS if draw.random() < 0.5) or OUTPUTS
    z = case.floats["hidden"].double() @ case.floats["weight"].double().t()
    largest = max(1.0, float(z.abs().max()) / temperature if z.numel() else 0.0)
    sizes = tuple(b - a for a, b in pairwise([0, *cuts, vocab]))
    return Split(case, sizes, outputs, largest)


def _shaped(case: Case) -> Case:
    hidden = case.floats["hidden"].view(2, 3, 4, -1)
    return replace(
        case, floats={**case.floats, "hidden": hidden}, target=case.target.view(2, 3, 4).int()
    )


def _low(rows: slice, to: float) -> Callable[[Tensor], None]:
    return lambda bias: bias[rows].add_(to)


def _with_rows(value: float, *, ignored: bool) -> Case:
    case = linear_case(20, 16, 33, ignored=0.0)
    case.floats["hidden"][[1, 4, 19]] = value
    if ignored:
        case.target[[1, 4, 19]] = -100
    return case


def _dtypes(case: Case, **dtypes: torch.dtype) -> Case:
    return replace(case, floats={n: t.to(dtypes.get(n, t.dtype)) for n, t in case.floats.items()})


SPLITS = {
    **{f"{dtype}": Split(linear_case(19, 40, 77, dtype), (40, 37)) for dtype in DTYPES},
    **{f"{dtype} unequal": Split(linear_case(20, 31, 77, dtype), (1, 70, 6)) for dtype in DTYPES},
    **{f"{name} alone": Split(linear_case(9, 20, 70), (30, 40), (name,)) for name in OUTPUTS},
    "tiles": Split(linear_case(130, 200, 1025), (512, 513)),
    "one row each": Split(linear_case(5, 3, 3), (1, 1, 1)),
    "temperature": Split(linear_case(23, 48, 150, temperature=0.3), (64, 86), logits=17.0),
    "softcap": Split(linear_case(23, 48, 150, spread=3.0, softcap=2.0, temperature=0.7), (64, 86)),
    "ignore_index in a shard": Split(linear_case(23, 48, 50, ignore_index=3), (2, 20, 28)),
    "no bias": Split(linear_case(7, 9, 50, torch.bfloat16, bias=False), (20, 30)),
    "targets on the last rank": Split(
        _changed(linear_case(17, 12, 130, ignored=0.0), target=lambda t: t.fill_(129)), (64, 65, 1)
    ),
    "one rank far below": Split(
        _changed(linear_case(9, 8, 100, ignored=0.0), bias=_low(slice(0, 40), -200.0)),
        (40, 60),
        logits=200.0,
    ),
    "one rank out of reach": Split(
        _changed(linear_case(9, 8, 100, ignored=0.0), bias=_low(slice(0, 40), -1e30)),
        (40, 60),
    ),
    "all logits negative": Split(
        _changed(linear_case(9, 8, 100, ignored=0.0), bias=_low(slice(None), -200.0)),
        (40, 60),
        logits=200.0,
    ),
    "one rank masked": Split(
        _changed(
            linear_case(9, 8, 100, ignored=0.0),
            bias=lambda bias: bias[:40].fill_(-math.inf),
            target=lambda target: target.clamp_(min=40),
        ),
        (40, 60),
    ),
    **{
        f"offset {offset:g}": Split(
            _changed(linear_case(6, 8, 100, ignored=0.0), bias=_low(slice(None), offset)),
            (50, 50),
            logits=1e4,
        )
        for offset in (1e4, -1e4)
    },
    # A backward gets the log-sum-exp as a float32, which near 1e4 is off by 5e-4, split or not.
    **{
        f"exact offset {offset:g}": Split(_exact_offset(offset), (70, 30), with_gradients=False)
        for offset in (1e4, -1e4)
    },
    **{
        f"exact bias offset {offset:g}": Split(
            _bias_offset(offset), (7, 80, 13), with_gradients=False, of_isas=True
        )
        for offset in (1e4, -1e4)
    },
    "no tokens": Split(linear_case(0, 8, 33), (10, 23)),
    "one token": Split(linear_case(1, 8, 33, ignored=0.0), (10, 20, 3)),
    "all ignored": Split(linear_case(5, 8, 33, ignored=1.1), (10, 23)),
    "garbage in ignored rows": Split(_with_rows(math.nan, ignored=True), (10, 23)),
    "a row of NaN": Split(_with_rows(math.nan, ignored=False), (10, 23)),
    "leading dimensions": Split(_shaped(linear_case(24, 16, 33)), (10, 23)),
    "float64": Split(linear_case(7, 9, 50, torch.float64), (20, 30)),
    "mixed dtypes": Split(_dtypes(linear_case(7, 9, 50), weight=torch.bfloat16), (20, 30)),
    **{f"random {seed}": _random(seed) for seed in range(24)},
}

RUNS = [(b, n) for b in SPLIT_BACKENDS for n, s in SPLITS.items() if b in ISAS or not s.of_isas]

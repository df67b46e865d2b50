"""The mean SimPO loss of pairs of images, forward and backward, beside a bare product.

python -m benchmarks.gpu.pairs --out DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

import suder_ext
from benchmarks.gpu.timing import milliseconds, peak_memory
from suder_ext import _workspace

LENGTH, FEATURES, VOCAB = 576, 2048, 16384
PAIRS = (16, 64)


def table(pairs: int) -> list[str]:
    tokens = 2 * pairs * LENGTH
    hidden = torch.randn(tokens, FEATURES, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(VOCAB, FEATURES, device="cuda", dtype=torch.bfloat16) / FEATURES**0.5
    hidden.requires_grad_()
    weight.requires_grad_()
    target = torch.randint(VOCAB, (tokens,), device="cuda")
    offsets = torch.arange(0, tokens + 1, LENGTH, device="cuda")

    def loss(reduction: str) -> None:
        result = suder_ext.linear_preference_loss(
            hidden,
            weight,
            target,
            offsets,
            loss_type="simpo",
            beta=2.0,
            reduction=reduction,
        )
        torch.autograd.grad(result.loss.mean(), (hidden, weight))

    def mean_with(kept: int) -> None:
        before = _workspace.kept_bytes
        suder_ext.set_workspace(kept)
        try:
            loss("mean")
        finally:
            suder_ext.set_workspace(before)

    candidates: dict[str, Callable[[], object]] = {
        "bare product": lambda: hidden.detach() @ weight.detach().t(),
        'reduction="mean"': lambda: loss("mean"),
        "the same, 0 bytes kept": lambda: mean_with(0),
        "the same, 4 GiB": lambda: mean_with(2**32),
        "per pair, then .mean()": lambda: loss("none"),
    }
    times = milliseconds(candidates, rounds=7)
    base = times["bare product"]
    return [
        f"{pairs:>3} pairs  {name:<24}{time:>9.3f} ms{time / base:>7.2f} times a bare product"
        f"{peak_memory(candidates[name]) / 2**20:>8.0f} MiB"
        for name, time in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    text = "\n".join(line for pairs in PAIRS for line in table(pairs))
    (out / "pairs.txt.tmp").write_text(text + "\n")
    (out / "pairs.txt.tmp").replace(out / "pairs.txt")
    print(text)


if __name__ == "__main__":
    main()

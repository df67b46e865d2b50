"""Our CUDA kernels beside their peers and a bare cuBLAS product, in one run on one card.

    python -m benchmarks.gpu.compare --out OUT

writes results.json, table.txt and ratios.png. Times are medians of interleaved runs with a cold L2;
ratios are to the bare bf16 product of the same size. The model's predictions (benchmarks/model)
stand beside the times of our kernels.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import torch

from benchmarks import model
from benchmarks.gpu import peers
from benchmarks.gpu.timing import milliseconds, peak_memory
from suder_ext._ops.cuda import fused_backward, kept_exps, tensor_cores
from suder_ext._ops.cuda import linear_logprob as ours
from suder_ext._ops.cuda import logprob as ours_logits

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SHAPES = [(8192, d, v) for d in (2048, 4096) for v in (16384, 102400)] + [(576, 2048, 16384)]
OPTIONS = (-100, 1.0, None, False)
PREDICTED = {
    "bare product": "bare product, bf16 out",
    "ours, wgmma": "fused forward, wgmma",
    "ours, mma.sync": "fused forward, mma.sync",
    "ours, tiles": "tiles, forward",
    "ours, logits": "logprob from logits, forward",
}
PREDICTED_BOTH = {
    "ours, wgmma": "fused, both ways, wgmma",
    "ours, mma.sync": "fused, both ways, mma.sync",
    "ours, tiles": "tiles, forward and backward",
}
Row = dict[str, Any]


def ways() -> dict[str, str]:
    """Name -> the way through the linear head, of those that this card has."""
    all_cards = {"ours, mma.sync": "mma", "ours, tiles": "tiles"}
    hopper = torch.cuda.get_device_capability() == (9, 0)
    return {"ours, wgmma": "wgmma", **all_cards} if hopper else all_cards


def by(way: str, run: Callable[[], object]) -> Callable[[], object]:
    """The same by one way."""

    def run_by() -> object:
        tensor_cores.chosen, before = way, tensor_cores.chosen
        try:
            return run()
        finally:
            tensor_cores.chosen = before

    return run_by


def inputs(n: int, d: int, v: int) -> list[torch.Tensor]:
    """bf16, logits of standard deviation 1."""
    hidden = torch.randn(n, d, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(v, d, device="cuda", dtype=torch.bfloat16) / d**0.5
    return [hidden, weight, torch.randn(v, device="cuda", dtype=torch.bfloat16)]


def forward(n: int, d: int, v: int) -> list[Row]:
    hidden, weight, bias = inputs(n, d, v)
    target = torch.randint(v, (n,), device="cuda")
    arguments = (hidden, weight, bias, target, *OPTIONS, 0, False)
    candidates: dict[str, Callable[[], object]] = {
        "bare product": lambda: hidden @ weight.t(),
        **{name: by(way, lambda: ours.linear_logprob(*arguments)) for name, way in ways().items()},
    }
    found, _ = peers.available()
    with torch.no_grad():
        for name, loss in found.items():
            candidates[name] = lambda loss=loss: loss(hidden, weight, bias, target)
        return rows("forward", f"{n}x{d}x{v}", candidates, 2.0 * n * d * v)


def both(n: int, d: int, v: int) -> list[Row]:
    """Forward and backward; ours with an upstream gradient of its own for every token.

    With what the forward keeps by default, and without (set_workspace(0)).
    """
    leaves = [x.requires_grad_() for x in inputs(n, d, v)]
    hidden, weight, bias = leaves
    target = torch.randint(v, (n,), device="cuda")
    upstream = torch.randn(n, device="cuda")
    empty = upstream.new_empty(0)

    def run_ours(*, keep: bool) -> None:
        with torch.no_grad():
            arguments = (hidden, weight, bias, target)
            room = kept_exps.room(hidden, weight, 0) if keep else 0
            _, lse, _, kept, _ = ours.linear_logprob(*arguments, *OPTIONS, room, False)
            saved = lse, empty, kept
            fused_backward.linear_logprob_backward(
                *(upstream, None, None, *arguments, *saved, *OPTIONS[:3], True, True, True)
            )

    def run_peer(loss: peers.Loss) -> None:
        value = loss(hidden, weight, bias, target)
        scale = upstream if value.dim() else None
        torch.autograd.grad(value, leaves, scale, allow_unused=True)

    candidates: dict[str, Callable[[], object]] = {
        "bare product": lambda: hidden.detach() @ weight.detach().t(),
        **{name: by(way, partial(run_ours, keep=True)) for name, way in ways().items()},
    }
    for name, way in ways().items():
        if way != "tiles":
            candidates[f"{name}, 0 bytes kept"] = by(way, partial(run_ours, keep=False))
    for name, loss in peers.available()[0].items():
        candidates[name] = lambda loss=loss: run_peer(loss)
    return rows("forward+backward", f"{n}x{d}x{v}", candidates, 6.0 * n * d * v)


def from_logits(n: int, v: int) -> list[Row]:
    logits = torch.randn(n, v, device="cuda", dtype=torch.bfloat16)
    target = torch.randint(v, (n,), device="cuda")
    copy = torch.empty_like(logits)
    candidates: dict[str, Callable[[], object]] = {
        "copy": lambda: copy.copy_(logits),
        "ours, logits": lambda: ours_logits.logprob(logits, target, *OPTIONS),
        "torch log_softmax": lambda: torch.log_softmax(logits, -1),
    }
    return rows("logits", f"{n}x{v}", candidates, 0.0)


def rows(
    task: str, shape: str, candidates: dict[str, Callable[[], object]], flops: float
) -> list[Row]:
    """Times, memory and ratios of all candidates of one task."""
    times = milliseconds(candidates)
    base = times[next(iter(candidates))]
    result = []
    for name, time in times.items():
        memory = math.nan if math.isnan(time) else peak_memory(candidates[name]) / 2**20
        result.append(
            {
                "task": task,
                "shape": shape,
                "name": name,
                "ms": time,
                "ratio": time / base,
                "tflops": flops / time / 1e9,
                "memory_mib": memory,
            }
        )
    return result


def with_predictions(results: list[Row], card: model.Card) -> None:
    predicted = {(w.name, w.shape): w.seconds * 1e3 for w in model.predictions(card)}
    for row in results:
        names = PREDICTED_BOTH if row["task"] == "forward+backward" else PREDICTED
        row["predicted_ms"] = predicted.get((names.get(row["name"], ""), row["shape"]))


def table(results: list[Row]) -> str:
    lines = [
        f"{'task':<17}{'shape':<19}{'name':<31}{'ms':>8}{'ratio':>7}{'TF/s':>6}{'MiB':>8}{'model':>8}"
    ]
    for row in results:
        guess = f"{row['predicted_ms']:>8.3f}" if row["predicted_ms"] else " " * 8
        lines.append(
            f"{row['task']:<17}{row['shape']:<19}{row['name']:<31}{row['ms']:>8.3f}"
            f"{row['ratio']:>7.2f}{row['tflops']:>6.0f}{row['memory_mib']:>8.0f}{guess}"
        )
    return "\n".join(lines)


def picture(results: list[Row], path: Path) -> None:
    names = list(dict.fromkeys(row["name"] for row in results if row["task"] == "forward"))
    shapes = list(dict.fromkeys(row["shape"] for row in results if row["task"] == "forward"))
    figure, axes = plt.subplots(figsize=(10, 4))
    for i, name in enumerate(names):
        ratios = [
            next(
                (
                    r["ratio"]
                    for r in results
                    if (r["task"], r["name"], r["shape"]) == ("forward", name, s)
                ),
                math.nan,
            )
            for s in shapes
        ]
        axes.bar(
            [x + 0.8 * i / len(names) for x in range(len(shapes))],
            ratios,
            0.8 / len(names),
            label=name,
        )
    axes.set_xticks([x + 0.4 for x in range(len(shapes))], shapes)
    axes.set_ylabel("time / bare bf16 product")
    axes.set_title(f"log p from hidden states, forward, {torch.cuda.get_device_name()}")
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name()
    results: list[Row] = []
    for n, d, v in SHAPES:
        results += forward(n, d, v)
    for v in (16384, 102400):
        results += from_logits(8192, v)
    for n, d, v in SHAPES[:2]:
        results += both(n, d, v)
    with_predictions(results, model.CARDS["h200" if "H200" in card else "h100"])
    left_out = peers.available()[1]
    text = "\n".join([card, table(results), *(f"left out: {line}" for line in left_out)])
    report = {"card": card, "torch": torch.__version__, "left_out": left_out, "results": results}
    for name, content in (
        ("results.json", json.dumps(report, indent=1)),
        ("table.txt", text + "\n"),
    ):
        temporary = out / f"{name}.tmp"
        temporary.write_text(content)
        temporary.replace(out / name)
    picture(results, out / "ratios.png")
    print(text)


if __name__ == "__main__":
    main()

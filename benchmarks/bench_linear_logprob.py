"""Speed of linear_logprob on the CPU, beside what one would use instead.

Every round runs all candidates one after another, so that a disturbance meets them all; a time is
the median of its rounds. The peak is a loop of nothing but multiply-adds (vfmadd for float32,
vdpbf16ps for bfloat16 where there is one), timed in the same rounds on the same threads.

    python benchmarks/bench_linear_logprob.py --shapes 576x2048x16384 128x2048x102400 --threads 2

prints, a shape (tokens x features x vocabulary) and dtype: milliseconds, fraction of the peak, and
the ratio to a bare torch.mm of the same product.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext
from suder_ext import _C

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CODES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # of the compiled module


class Shape(NamedTuple):
    tokens: int
    features: int
    vocab: int

    def __str__(self) -> str:
        return "x".join(map(str, self))

    @property
    def operations(self) -> float:
        """Of one product; forward is one, forward and backward are three (or four, recomputing)."""
        return 2.0 * self.tokens * self.features * self.vocab


class Problem(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    target: Tensor
    upstream: Tensor  # of mixed signs, as in a policy gradient

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype) -> Problem:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(shape.tokens, shape.features, generator=generator)
        weight = torch.randn(shape.vocab, shape.features, generator=generator)
        weight *= 2.0 / shape.features**0.5
        floats = (hidden, weight, torch.randn(shape.vocab, generator=generator))
        leaves = [t.to(dtype).requires_grad_() for t in floats]
        target = torch.randint(shape.vocab, (shape.tokens,), generator=generator)
        return cls(*leaves, target, torch.randn(shape.tokens, generator=generator))


def ours(p: Problem) -> Tensor:
    return suder_ext.linear_logprob(p.hidden, p.weight, p.target, p.bias)


def full_logits(p: Problem) -> Tensor:
    logits = F.linear(p.hidden, p.weight, p.bias)
    return torch.log_softmax(logits, -1).gather(1, p.target[:, None])[:, 0]


def torch_linear_cross_entropy(p: Problem) -> Tensor:
    """torch.nn.functional.linear_cross_entropy with its default chunked options."""
    options = F.LinearCrossEntropyOptions() if hasattr(F, "LinearCrossEntropyOptions") else None
    arguments = {"linear_bias": p.bias, "reduction": "none", "options": options}
    return -F.linear_cross_entropy(p.hidden, p.weight, p.target, **arguments)


def forward(function: Callable[[Problem], Tensor], p: Problem) -> None:
    with torch.no_grad():
        function(p)


def forward_backward(function: Callable[[Problem], Tensor], p: Problem) -> None:
    result = function(p)
    torch.autograd.grad(result, (p.hidden, p.weight, p.bias), p.upstream.to(result.dtype))


def candidates(p: Problem, backward: bool, slow_peers: bool) -> dict[str, Callable[[], object]]:
    """Everything that is timed, by name."""
    peers = {"ours": ours, "full logits": full_logits}
    if slow_peers and hasattr(F, "linear_cross_entropy"):
        peers["F.linear_cross_entropy"] = torch_linear_cross_entropy
    threads = torch.get_num_threads()
    hidden, weight = p.hidden.detach(), p.weight.detach()
    timed: dict[str, Callable[[], object]] = {
        "peak": lambda: _C.fma_loop(dtype=CODES[hidden.dtype], threads=threads),
        "torch.mm": lambda: torch.mm(hidden, weight.t()),
    }
    for name, function in peers.items():
        timed[name] = lambda f=function: forward(f, p)
        if backward:
            timed[f"{name}, fwd+bwd"] = lambda f=function: forward_backward(f, p)
    return timed


def questions(quick: bool) -> Iterator[Question]:
    """Forward, then both ways; see timing.py."""
    small = Shape(64, 128, 1024)
    shapes = [small, Shape(128, 512, 4096) if quick else Shape(576, 2048, 16384)]
    for shape in shapes:
        for name in ("bfloat16", "float32"):
            # F.linear_cross_entropy takes up to 364 times as long: beside the small shape alone.
            timed = candidates(Problem.of(shape, DTYPES[name]), True, shape == small)
            del timed["peak"]
            for way, ending in (("forward", ""), ("forward and backward", ", fwd+bwd")):
                both = {
                    n: run for n, run in timed.items() if n.endswith(", fwd+bwd") == bool(ending)
                }
                some = {n.removesuffix(ending): run for n, run in both.items()}
                yield Question(f"{shape}, {name}, {way}", some, limits=("torch.mm",))


def error_of(function: Callable[[Problem], Tensor], p: Problem) -> float:
    """Largest difference from float64 on the same inputs, over at most 32 tokens."""
    some = p._replace(hidden=p.hidden[:32], target=p.target[:32])
    with torch.no_grad():
        exact = full_logits(
            some._replace(
                hidden=some.hidden.double(), weight=some.weight.double(), bias=some.bias.double()
            )
        )
        return float((function(some).double() - exact).abs().max())


def measure(shape: Shape, dtype: torch.dtype, args: argparse.Namespace) -> Iterator[dict]:
    """One row a candidate."""
    p = Problem.of(shape, dtype)
    timed = candidates(p, not args.forward_only, args.slow_peers)
    medians = interleaved(timed, args.rounds, clock_of(args))
    operations = _C.fma_loop(dtype=CODES[dtype], threads=torch.get_num_threads())
    peak = operations / medians.pop("peak")
    for name, seconds in medians.items():
        products = 3 if name.endswith("fwd+bwd") else 1
        yield {
            "shape": str(shape),
            "dtype": str(dtype).removeprefix("torch."),
            "name": name,
            "ms": seconds * 1e3,
            "of_peak": products * shape.operations / seconds / peak,
            "to_mm": seconds / medians["torch.mm"],
            "to_forward": seconds / medians["ours"],
            "gflops": products * shape.operations / seconds / 1e9,
            "peak_gflops": peak / 1e9,
        }
    for name, function in (("ours", ours), ("full logits", full_logits)):
        yield {"shape": str(shape), "name": f"error of {name}", "error": error_of(function, p)}


def print_rows(rows: list[dict]) -> None:
    for row in rows:
        if "error" in row:
            print(f"    {row['name']:<32} {row['error']:.1e} from float64")
            continue
        if row["name"] == "torch.mm":
            print(f"{row['shape']} {row['dtype']}: peak {row['peak_gflops']:.0f} GFLOP/s")
        print(
            f"    {row['name']:<32} {row['ms']:9.1f} ms  {row['of_peak']:6.1%} of peak"
            f"  {row['to_mm']:6.2f}x torch.mm  {row['to_forward']:6.2f}x our forward"
        )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=lambda text: Shape(*map(int, text.split("x"))),
        default=[Shape(576, 2048, 4096), Shape(128, 2048, 8192), Shape(64, 128, 1024)],
        help="TOKENSxFEATURESxVOCABULARY; Janus-Pro: 576x2048x16384 and 128x2048x102400",
    )
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["bfloat16", "float32"])
    add_arguments(parser)
    parser.add_argument("--forward-only", action="store_true")
    parser.add_argument(
        "--slow-peers", action="store_true", help="F.linear_cross_entropy too: up to 364x slower"
    )
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in args.shapes:
        for name in args.dtypes:
            some = list(measure(shape, DTYPES[name], args))
            print_rows(some)
            rows += some
    write_record(args, rows)


if __name__ == "__main__":
    main()

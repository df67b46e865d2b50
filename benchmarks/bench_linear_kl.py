"""Speed and memory of the divergence from a reference model, from hidden states.

Two ways: `linear_kl`, and plain PyTorch (both logits in the inputs' dtype, log_softmax, and
`torch.nn.functional.kl_div` summed over the vocabulary). Forward alone, and with the gradients of
the policy's hidden states, weight and bias: the reference is frozen. The rest is as in
bench_linear_preference.py.

    python benchmarks/bench_linear_kl.py --threads 1 --cpu-time --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from bench_linear_preference import extra_memory
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext


class Task(NamedTuple):
    tokens: int
    features: int
    vocab: int


# Both heads of a Janus-Pro-1B, and the picture's of the embedded model of shapes.
TASKS = {
    "one image": Task(576, 2048, 16384),
    "two images": Task(1152, 2048, 16384),
    "words": Task(128, 2048, 102400),
    "shapes": Task(1024, 192, 512),
}


class Problem(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    ref_hidden: Tensor
    ref_weight: Tensor
    ref_bias: Tensor

    @classmethod
    def of(cls, task: Task, dtype: torch.dtype) -> Problem:
        """A reference, and a policy a little away from it."""
        generator = torch.Generator().manual_seed(0)
        shapes = (task.tokens, task.features), (task.vocab, task.features), (task.vocab,)
        scales = 1.0, 2.0 / task.features**0.5, 1.0
        ref = [torch.randn(s, generator=generator) * k for s, k in zip(shapes, scales, strict=True)]
        policy = [t + 0.1 * t.std() * torch.randn(t.shape, generator=generator) for t in ref]
        return cls(*(t.to(dtype).requires_grad_() for t in policy), *(t.to(dtype) for t in ref))


def linear_kl(p: Problem) -> Tensor:
    return suder_ext.linear_kl(
        p.hidden, p.weight, p.ref_hidden, p.ref_weight, p.bias, p.ref_bias
    ).mean()


def full_logits(p: Problem) -> Tensor:
    log_p = torch.log_softmax(F.linear(p.hidden, p.weight, p.bias), -1)
    log_q = torch.log_softmax(F.linear(p.ref_hidden, p.ref_weight, p.ref_bias), -1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1).mean()


CANDIDATES: dict[str, Callable[[Problem], Tensor]] = {
    "linear_kl": linear_kl,
    "full logits": full_logits,
}


def forward(function: Callable[[Problem], Tensor], p: Problem) -> None:
    with torch.no_grad():
        function(p)


def forward_backward(function: Callable[[Problem], Tensor], p: Problem) -> None:
    torch.autograd.grad(function(p), (p.hidden, p.weight, p.bias))


PASSES = {"forward": forward, "with gradients": forward_backward}


def questions(quick: bool) -> Iterator[Question]:
    """Forward, then with gradients; see timing.py."""
    for name in ("shapes",) if quick else ("shapes", "one image"):
        task = TASKS[name]
        for dtype in ("bfloat16", "float32"):
            p = Problem.of(task, getattr(torch, dtype))
            for way, run in PASSES.items():
                timed = {key: partial(run, f, p) for key, f in CANDIDATES.items()}
                case = f"{'x'.join(map(str, task))}, {dtype}, {way}"
                yield Question(case, timed, "linear_kl", memory=not quick)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    add_arguments(parser, rounds=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for task in args.tasks:
        for dtype in args.dtypes:
            p = Problem.of(TASKS[task], getattr(torch, dtype))
            exact = float(full_logits(Problem(*(t.detach().float() for t in p))))
            print(f"{task}: {TASKS[task].tokens} tokens of {TASKS[task].vocab}, {dtype}")
            for name, run in PASSES.items():
                timed = {key: partial(run, f, p) for key, f in CANDIDATES.items()}
                medians = interleaved(timed, args.rounds, clock_of(args))
                for key, seconds in medians.items():
                    extra = extra_memory(timed[key]) / 2**20
                    error = abs(float(CANDIDATES[key](p).detach()) / exact - 1)
                    print(
                        f"    {name:<16}{key:<12}{seconds:8.3f} s  {extra:7.0f} MiB  "
                        f"mean within {error:.0e}"
                    )
                    rows.append(
                        {
                            "task": task,
                            "dtype": dtype,
                            "pass": name,
                            "name": key,
                            "seconds": seconds,
                            "extra_mib": extra,
                        }
                    )
    write_record(args, rows)


if __name__ == "__main__":
    main()

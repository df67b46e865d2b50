"""Dual rewards a second, for the two heads of a Janus-Pro-1B: from hidden states to one number.

    python benchmarks/bench_rewards.py --threads 2

An image's reward is the likelihood of its prompt (20 tokens of 102400), a caption's that of its
image (576 tokens of 16384), each `linear_sequence_logprob`; the usual way is full logits,
`log_softmax` and gather. What comes before, the model's own pass, is the same for both and not
timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timing import add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext

FEATURES = 2048
# direction -> tokens of a candidate, vocabulary, candidates scored together
HEADS = {"image tokens of a caption": (576, 16384, 2), "prompt of an image": (20, 102400, 16)}


def usual(hidden: Tensor, weight: Tensor, target: Tensor, cu: Tensor, bias: Tensor) -> Tensor:
    logits = F.linear(hidden, weight, bias)
    logprob = torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]
    return logprob.view(len(cu) - 1, -1).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    add_arguments(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for direction, (length, vocab, candidates) in HEADS.items():
        for dtype in args.dtypes:
            hidden = torch.randn(length * candidates, FEATURES).to(getattr(torch, dtype))
            weight = (torch.randn(vocab, FEATURES) * 2 / FEATURES**0.5).to(hidden.dtype)
            bias = torch.randn(vocab).to(hidden.dtype)
            inputs = (
                hidden,
                weight,
                torch.randint(vocab, (length * candidates,)),
                torch.arange(candidates + 1) * length,
                bias,
            )
            timed: dict[str, Callable[[], object]] = {
                "ours": lambda i=inputs: suder_ext.linear_sequence_logprob(*i),
                "full logits": lambda i=inputs: usual(*i),
            }
            print(f"{direction}, {candidates} x {length} x {vocab}, {dtype}")
            for name, seconds in interleaved(timed, args.rounds, clock_of(args)).items():
                print(f"    {name:<14}{candidates / seconds:8.1f} rewards a second")
                rows.append(
                    {
                        "direction": direction,
                        "dtype": dtype,
                        "name": name,
                        "rewards_per_second": candidates / seconds,
                    }
                )
    write_record(args, rows)


if __name__ == "__main__":
    main()

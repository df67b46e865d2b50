"""Dual rewards a second, for the two heads of a Janus-Pro-1B: from hidden states to one number.

    python benchmarks/bench_rewards.py --threads 2

An image's reward is the likelihood of its prompt (20 tokens of 102400), a caption's that of its
image (576 tokens of 16384), each `linear_sequence_logprob`; the usual way is full logits,
`log_softmax` and gather. What comes before, the model's own pass, is the same for both and not
timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext

FEATURES = 2048
# direction -> tokens of a candidate, vocabulary, candidates scored together
HEADS = {"image tokens of a caption": (576, 16384, 2), "prompt of an image": (20, 102400, 16)}


def usual(hidden: Tensor, weight: Tensor, target: Tensor, cu: Tensor, bias: Tensor) -> Tensor:
    logits = F.linear(hidden, weight, bias)
    logprob = torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]
    return logprob.view(len(cu) - 1, -1).mean(1)


def scored(
    length: int, vocab: int, count: int, dtype: torch.dtype, features: int = FEATURES
) -> dict[str, Callable[[], object]]:
    """Ours and the usual way on the same candidates."""
    hidden = torch.randn(length * count, features).to(dtype)
    weight = (torch.randn(vocab, features) * 2 / features**0.5).to(dtype)
    target = torch.randint(vocab, (length * count,))
    inputs = hidden, weight, target, torch.arange(count + 1) * length, torch.randn(vocab).to(dtype)
    return {
        "ours": lambda: suder_ext.linear_sequence_logprob(*inputs),
        "full logits": lambda: usual(*inputs),
    }


def questions(quick: bool) -> Iterator[Question]:
    """Both rewards; see timing.py."""
    for direction, (length, vocab, count) in HEADS.items():
        for name in ("bfloat16", "float32"):
            sizes = (
                (length // 8 + 4, vocab // 8, 2, 256) if quick else (length, vocab, count, FEATURES)
            )
            timed = scored(*sizes[:3], getattr(torch, name), sizes[3])
            case = (
                f"{direction}: {sizes[2]} of {sizes[0]} tokens, D {sizes[3]}, V {sizes[1]}, {name}"
            )
            yield Question(case, timed)


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
            timed = scored(length, vocab, candidates, getattr(torch, dtype))
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

"""Speed and memory of the mean DPO loss of pairs from hidden states, forward and backward.

Three ways: reduction "mean", which makes gradients in the forward; the mean of the losses of the
pairs, whose backward computes the logits again; and plain PyTorch (full logits, log_softmax and
gather, in the inputs' dtype). Every round runs all three one after another; a time is the median.
Extra memory is the peak of the resident set above what it was, gradients included.

    python benchmarks/bench_linear_preference.py --threads 1 --cpu-time --rounds 3
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from peers import liger_dpo_loss
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext

FEATURES, BETA = 2048, 0.1


class Task(NamedTuple):
    pairs: int
    shortest: int
    longest: int
    vocab: int
    features: int = FEATURES


# The two heads of a Janus-Pro-1B.
TASKS = {
    "one pair of images": Task(1, 576, 576, 16384),
    "images": Task(4, 576, 576, 16384),
    "few prompts": Task(4, 20, 40, 102400),
    "prompts": Task(16, 20, 40, 102400),
    "many prompts": Task(48, 20, 40, 102400),
}


class Problem(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    target: Tensor
    cu_seqlens: Tensor

    @classmethod
    def of(cls, task: Task, dtype: torch.dtype) -> Problem:
        generator = torch.Generator().manual_seed(0)
        sizes = torch.randint(
            task.shortest, task.longest + 1, (2 * task.pairs,), generator=generator
        )
        cu_seqlens = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        tokens = int(cu_seqlens[-1])
        hidden = torch.randn(tokens, task.features, generator=generator)
        weight = torch.randn(task.vocab, task.features, generator=generator)
        weight *= 2.0 / task.features**0.5
        floats = (hidden, weight, torch.randn(task.vocab, generator=generator))
        leaves = [t.to(dtype).requires_grad_() for t in floats]
        target = torch.randint(task.vocab, (tokens,), generator=generator)
        return cls(*leaves, target, cu_seqlens)


def mean(p: Problem) -> Tensor:
    arguments = p.hidden, p.weight, p.target, p.cu_seqlens, p.bias
    return suder_ext.linear_preference_loss(*arguments, beta=BETA, reduction="mean").loss


def of_pairs(p: Problem) -> Tensor:
    arguments = p.hidden, p.weight, p.target, p.cu_seqlens, p.bias
    return suder_ext.linear_preference_loss(*arguments, beta=BETA).loss.mean()


def full_logits(p: Problem) -> Tensor:
    logits = F.linear(p.hidden, p.weight, p.bias)
    logprob = torch.log_softmax(logits, -1).gather(1, p.target[:, None])[:, 0]
    sizes = p.cu_seqlens.diff()
    sequence = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    total = torch.zeros(len(sizes)).index_add(0, sequence, logprob.float())
    return -F.logsigmoid(BETA * (total[0::2] - total[1::2])).mean()


CANDIDATES: dict[str, Callable[[Problem], Tensor]] = {
    "mean": mean,
    "mean of pairs": of_pairs,
    "full logits": full_logits,
}


def forward_backward(function: Callable[[Problem], Tensor], p: Problem) -> None:
    torch.autograd.grad(function(p), (p.hidden, p.weight, p.bias))


def liger(p: Problem) -> Tensor:
    """Liger's chunked DPO loss, of pairs of one length; it wants all chosen before all rejected."""
    length = int(p.cu_seqlens[1])
    hidden, target = p.hidden.view(-1, 2, length, p.hidden.shape[1]), p.target.view(-1, 2, length)
    rows, targets = hidden.transpose(0, 1).flatten(0, 1), target.transpose(0, 1).flatten(0, 1)
    return liger_dpo_loss(BETA)(p.weight, rows, targets, p.bias)[0]


def questions(quick: bool) -> Iterator[Question]:
    """The mean loss with its gradients; see timing.py."""
    tasks = [Task(2, 48, 48, 4096, 256)] if quick else [TASKS["images"], TASKS["prompts"]]
    for task in tasks:
        for name in ("bfloat16", "float32"):
            p = Problem.of(task, getattr(torch, name))
            same_length = task.shortest == task.longest and liger_dpo_loss(BETA) is not None
            functions = CANDIDATES | ({"Liger chunked DPO": liger} if same_length else {})
            timed = {key: partial(forward_backward, f, p) for key, f in functions.items()}
            sizes = f"{len(p.target)} tokens, D {task.features}, V {task.vocab}"
            case = f"{task.pairs} pairs, {sizes}, {name}"
            yield Question(case, timed, "mean", ("mean of pairs",), memory=not quick)


def memory(name: str) -> int:
    """VmRSS or its peak VmHWM, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def extra_memory(run: Callable[[], object]) -> int:
    """Bytes at the peak of a run above those before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    run()
    return memory("VmHWM") - before


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
            timed = {name: partial(forward_backward, f, p) for name, f in CANDIDATES.items()}
            medians = interleaved(timed, args.rounds, clock_of(args))
            tokens = len(p.target)
            print(f"{task}: {tokens} tokens of {TASKS[task].vocab}, {dtype}")
            for name, seconds in medians.items():
                extra = extra_memory(timed[name]) / 2**20
                ratio = seconds / medians["mean"]
                print(f"    {name:<16}{seconds:8.2f} s  {ratio:5.2f}x mean  {extra:7.0f} MiB")
                rows.append(
                    {
                        "task": task,
                        "tokens": tokens,
                        "vocab": TASKS[task].vocab,
                        "dtype": dtype,
                        "name": name,
                        "seconds": seconds,
                        "extra_mib": extra,
                    }
                )
    write_record(args, rows)


if __name__ == "__main__":
    main()

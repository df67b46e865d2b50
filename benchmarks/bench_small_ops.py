"""Cost of small calls on the CPU, where Python and torch's dispatcher are most of it.

    python benchmarks/bench_small_ops.py ops --json small_ops.json
    python benchmarks/bench_small_ops.py problems --seconds 0.1

`ops`: every op but linear_logprob at launch size (8 pairs; 64 tokens in 8 sequences; 64 x 32
logits). `problems`: linear_logprob with D = 128. Each beside what one would write in plain PyTorch;
"forward" is under no_grad, "fwd+bwd" takes the gradients by torch.autograd.grad.

Ours and theirs take turns; a time is the median over the rounds of the thread's processor time, so
that neighbours on the machine cost little. One thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timing import Question, write_record
from torch import Tensor

import suder_ext

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Case(NamedTuple):
    """One task: ours, the same in plain PyTorch, and the tensors that take a gradient."""

    name: str
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    leaves: tuple[Tensor, ...] = ()


def op_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    chosen, rejected = randn(8).requires_grad_(), randn(8).requires_grad_()
    ref_chosen, ref_rejected = randn(8), randn(8)
    logprob, old, ref = -randn(64).abs(), -randn(64).abs(), -randn(64).abs()
    logprob.requires_grad_()
    advantage, cu_seqlens, group = randn(8), torch.arange(0, 65, 8), torch.arange(8)
    logits = randn(64, 32).requires_grad_()
    target = torch.randint(32, (64,), generator=generator)

    def dpo() -> Tensor:
        return -F.logsigmoid(0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected)))

    def per_sequence(values: Tensor) -> Tensor:
        ids = torch.repeat_interleave(group, cu_seqlens.diff(), output_size=values.numel())
        return values.new_zeros(8).index_add(0, ids, values) / cu_seqlens.diff()

    def grpo() -> Tensor:
        ids = torch.repeat_interleave(group, cu_seqlens.diff(), output_size=64)
        ratio, each = torch.exp(logprob - old), advantage[ids]
        per_token = -torch.min(ratio * each, ratio.clamp(0.8, 1.2) * each)
        kl = torch.exp(ref - logprob) - (ref - logprob) - 1
        return per_sequence(per_token + 0.1 * kl).mean()

    def normalized() -> Tensor:
        groups = advantage.view(2, 4)
        groups.argmax(1), groups.argmin(1)
        return (groups - groups.mean(1, True)) / (groups.std(1, keepdim=True) + 1e-4)

    yield Case(
        "preference_loss",
        lambda: suder_ext.preference_loss(chosen, rejected, ref_chosen, ref_rejected).loss,
        dpo,
        (chosen, rejected),
    )
    yield Case(
        "policy_loss",
        lambda: suder_ext.policy_loss(logprob, old, advantage, cu_seqlens, ref, kl_coef=0.1),
        grpo,
        (logprob,),
    )
    yield Case(
        "sequence_reduce",
        lambda: suder_ext.sequence_reduce(logprob, target, cu_seqlens, mean=True)[0],
        lambda: per_sequence(logprob),
        (logprob,),
    )
    yield Case("group_advantage", lambda: suder_ext.group_advantage(advantage, 4)[0], normalized)
    yield Case(
        "logprob",
        lambda: suder_ext.logprob(logits, target),
        lambda: torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0],
        (logits,),
    )


def problem_cases(tokens: list[int], vocabularies: list[int], dtypes: list[str]) -> Iterator[Case]:
    features = 128
    for name in dtypes:
        for vocab in vocabularies:
            for n in tokens:
                generator = torch.Generator().manual_seed(0)
                hidden = torch.randn(n, features, generator=generator)
                weight = torch.randn(vocab, features, generator=generator) * 0.1
                leaves = tuple(t.to(DTYPES[name]).requires_grad_() for t in (hidden, weight))
                target = torch.randint(vocab, (n,), generator=generator)
                yield Case(
                    f"{name} V={vocab} N={n}",
                    lambda leaves=leaves, target=target: suder_ext.linear_logprob(*leaves, target),
                    lambda leaves=leaves, target=target: torch.log_softmax(
                        F.linear(*leaves), -1
                    ).gather(1, target[:, None])[:, 0],
                    leaves,
                )


def forward_backward(
    function: Callable[[], Tensor], leaves: tuple[Tensor, ...]
) -> Callable[[], object]:
    result = function()
    upstream = torch.randn(result.shape).to(result.dtype)  # of mixed signs
    return lambda: torch.autograd.grad(function(), leaves, upstream)


def microseconds(
    candidates: list[Callable[[], object]], rounds: int, seconds: float
) -> list[float]:
    """Median processor time of a call of each, in turns of about `seconds / rounds`."""

    def turn(function: Callable[[], object], calls: int) -> float:
        begin = time.thread_time()
        for _ in range(calls):
            function()
        return (time.thread_time() - begin) / calls * 1e6

    calls = []
    for function in candidates:
        turn(function, 2)  # first calls allocate
        calls.append(max(1, int(seconds / rounds / max(turn(function, 3), 1.0) * 1e6)))
    times = [
        [turn(function, n) for function, n in zip(candidates, calls, strict=True)]
        for _ in range(rounds)
    ]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def measure(case: Case, args: argparse.Namespace) -> Iterator[dict]:
    ways = {"forward": [case.ours, case.theirs]}
    if case.leaves:
        ways["fwd+bwd"] = [forward_backward(f, case.leaves) for f in (case.ours, case.theirs)]
    for way, candidates in ways.items():
        with torch.set_grad_enabled(way != "forward"):
            ours, theirs = microseconds(candidates, args.rounds, args.seconds)
        yield {"case": case.name, "way": way, "ours_us": ours, "torch_us": theirs}


def questions(quick: bool) -> Iterator[Question]:
    """Each op at launch size; see timing.py."""

    def without_grad(function: Callable[[], Tensor]) -> Callable[[], object]:
        return torch.no_grad()(function)

    for case in op_cases():
        ways = {"forward": without_grad}
        if case.leaves:
            ways["forward and backward"] = lambda f, leaves=case.leaves: forward_backward(f, leaves)
        for way, wrap in ways.items():
            timed = {"ours": wrap(case.ours), "plain PyTorch": wrap(case.theirs)}
            yield Question(f"{case.name}, {way}", timed, calls=20 if quick else 500)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["ops", "problems", "all"], nargs="?", default="all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each number of the table")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 64, 512, 8192])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--json", type=Path, help="write the rows and the machine here")
    parser.set_defaults(threads=1, cpu_time=True)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    cases = list(op_cases()) if args.what != "problems" else []
    if args.what != "ops":
        cases += problem_cases(args.tokens, args.vocabularies, args.dtypes)
    print(f"{'microseconds a call':<26} {'':<8} {'ours':>10} {'torch':>10} {'torch/ours':>10}")
    rows = []
    for case in cases:
        for row in measure(case, args):
            rows.append(row)
            ratio = row["torch_us"] / row["ours_us"]
            print(
                f"{row['case']:<26} {row['way']:<8} {row['ours_us']:10.1f} {row['torch_us']:10.1f} "
                f"{ratio:9.2f}x{'' if ratio >= 1 else '  slower'}",
                flush=True,
            )
    write_record(args, rows)


if __name__ == "__main__":
    main()

"""Speed of logprob from given logits on the CPU, in bytes a second beside the memory's own.

    python benchmarks/bench_logits.py --shapes 576x16384 128x102400 --threads 2

A read of the same bytes (`torch.sum` of them as integers) and a copy are the limits: the forward
reads the logits once, the backward reads them and writes as many. The peer is log_softmax and
gather, and its autograd.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from peers import trl_selective_log_softmax
from timing import Question, add_arguments, clock_of, interleaved, write_record
from torch import Tensor

import suder_ext


def usual(logits: Tensor, target: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1).gather(1, target[:, None])[:, 0]


def candidates(logits: Tensor, target: Tensor) -> dict[str, Callable[[], object]]:
    """Name -> a run; the backwards begin from a finished forward."""
    leaf = logits.requires_grad_()
    upstream = torch.randn(target.shape)
    words = logits.detach().view(torch.int32)
    copy = torch.empty_like(words)
    ours, theirs = suder_ext.logprob(leaf, target), usual(leaf, target)

    def forward(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        with torch.no_grad():
            function(logits, target)

    def backward(result: Tensor) -> None:
        torch.autograd.grad(result, leaf, upstream.to(result.dtype), retain_graph=True)

    return {
        "read": lambda: words.max(),
        "copy": lambda: copy.copy_(words),
        "ours": lambda: forward(suder_ext.logprob),
        "log_softmax": lambda: forward(usual),
        "ours, backward": lambda: backward(ours),
        "log_softmax, backward": lambda: backward(theirs),
    }


def questions(quick: bool) -> Iterator[Question]:
    """Forward, then backward; see timing.py."""
    for tokens, vocab in ((64, 8192),) if quick else ((576, 16384), (128, 102400)):
        for dtype in (torch.bfloat16, torch.float32):
            logits, target = torch.randn(tokens, vocab).to(dtype), torch.randint(vocab, (tokens,))
            timed = candidates(logits, target)
            peer = trl_selective_log_softmax()
            if peer is not None:
                plain = logits.detach()
                timed["TRL selective_log_softmax"] = lambda f=peer, x=plain, t=target: f(x, t)
            named = f"{tokens}x{vocab}, {str(dtype).removeprefix('torch.')}"
            back = {
                n.removesuffix(", backward"): run for n, run in timed.items() if "backward" in n
            }
            there = {n: run for n, run in timed.items() if n != "copy" and "backward" not in n}
            yield Question(f"{named}, forward", there, limits=("read",))
            yield Question(f"{named}, backward", back | {"copy": timed["copy"]}, limits=("copy",))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=["576x16384", "128x102400"])
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    add_arguments(parser, rounds=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in args.shapes:
        tokens, vocab = map(int, shape.split("x"))
        for dtype in args.dtypes:
            logits = torch.randn(tokens, vocab).to(getattr(torch, dtype))
            target = torch.randint(vocab, (tokens,))
            gigabytes = logits.numel() * logits.element_size() / 1e9
            print(f"{shape} {dtype}, {gigabytes * 1e3:.0f} MB")
            timed = interleaved(candidates(logits, target), args.rounds, clock_of(args))
            for name, seconds in timed.items():
                twice = "backward" in name or name == "copy"
                limit = timed["copy" if twice else "read"]
                rate = gigabytes * (1 + twice) / seconds
                milliseconds = seconds * 1e3
                print(
                    f"    {name:<24}{milliseconds:9.2f} ms {rate:7.1f} GB/s {seconds / limit:6.2f}x"
                )
                rows.append({"shape": shape, "dtype": dtype, "name": name, "ms": milliseconds})
    write_record(args, rows)


if __name__ == "__main__":
    main()

"""What the host takes for an eager call of linear_logprob, and what a replayed graph takes.

    python -m benchmarks.gpu.calls

Without a GPU the kernels are functions that do nothing and tensors are on the CPU: what is left is
the package's own part and torch's dispatcher, without a launch and without CUDA's allocator.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import torch

import suder_ext
from suder_ext._ops import eager
from suder_ext._ops.cuda import call, ops, tensor_cores

TOKENS, FEATURES, VOCAB = 576, 2048, 16384
ROWS = 64  # of a step of the sampler
CALLS, ROUNDS = 20, 25  # no more calls than a stream takes without waiting


@contextmanager
def kernels_that_do_nothing() -> Iterator[None]:
    """CPU tensors take the way of CUDA's, to functions that return at once."""
    nothing = SimpleNamespace(
        **{name: lambda **_: None for name in call.ENTRY_POINTS},
        fused_forward_workspace=lambda tokens, vocab: tokens * 64 * 4,
        logits_splits=lambda vocab: 1,
    )
    with (
        torch.library._scoped_library("suder", "IMPL") as library,
        mock.patch.object(call, "kernels", nothing),
        mock.patch.object(tensor_cores, "chosen", "wgmma"),
        mock.patch.dict(eager.kernels, ops.OPS, clear=True),
        mock.patch.dict(eager.without_grad, {**ops.OPS, **ops.WITHOUT_GRAD}, clear=True),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that kernels are overridden
            for op, function in ops.OPS.items():
                library.impl(op, function, "CPU", allow_override=True)
        yield


def microseconds_of_host(run: Callable[[], object]) -> float:
    """The median over rounds of what a call takes of this thread's processor time."""
    times = []
    for _ in range(ROUNDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begin = time.thread_time()
        for _ in range(CALLS):
            run()
        times.append((time.thread_time() - begin) / CALLS)
    return sorted(times)[ROUNDS // 2] * 1e6


def microseconds_of_replay(run: Callable[[], object]) -> float:
    """The median time of one replay of a graph of CALLS calls, by events, a call."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CALLS):
            run()
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / CALLS)
    return sorted(times)[ROUNDS // 2] * 1e3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    hidden, weight, bias = (
        torch.randn(*size, device=device, dtype=torch.bfloat16)
        for size in ((TOKENS, FEATURES), (VOCAB, FEATURES), (VOCAB,))
    )
    target = torch.randint(VOCAB, (TOKENS,), device=device)
    logits, uniform = torch.randn(ROWS, VOCAB, device=device), torch.rand(ROWS, device=device)
    with nullcontext() if device == "cuda" else kernels_that_do_nothing(), torch.no_grad():
        runs = {
            "linear_logprob": lambda: suder_ext.linear_logprob(hidden, weight, target, bias),
            "logprob": lambda: suder_ext.logprob(hidden, target.clamp(max=FEATURES - 1)),
            "sample_token": lambda: suder_ext.sample_token(logits, uniform),
        }
        if device == "cuda":  # its product would be the CPU's
            runs["linear_sample_token"] = lambda: suder_ext.linear_sample_token(
                hidden[:ROWS], weight, uniform, bias
            )
        for name, run in runs.items():
            run()
            line = f"{name:<20}{device:<6}host {microseconds_of_host(run):8.1f} us a call"
            if device == "cuda":
                line += f", replayed {microseconds_of_replay(run):8.1f} us"
            print(line)
        if device == "cuda":
            bare = microseconds_of_replay(lambda: hidden @ weight.t())
            print(f"{'bare product':<20}{device:<6}replayed {bare:8.1f} us")


if __name__ == "__main__":
    main()

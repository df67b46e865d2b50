"""Timing of GPU work: candidates in turn, so that clocks and neighbours touch all alike."""

from __future__ import annotations

from collections.abc import Callable

import torch


def milliseconds(
    candidates: dict[str, Callable[[], object]], *, rounds: int = 15, warmup: int = 3
) -> dict[str, float]:
    """Median time of each candidate, run one after another in every round, L2 flushed before each.

    A candidate that fails gives NaN and a line that says why.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    times: dict[str, list[float]] = {}
    for name, run in candidates.items():
        try:
            for _ in range(warmup):
                run()
            torch.cuda.synchronize()
            times[name] = []
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    for _ in range(rounds):
        for name in times:
            flush.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            candidates[name]()
            end.record()
            torch.cuda.synchronize()
            times[name].append(begin.elapsed_time(end))
    medians = {name: sorted(values)[len(values) // 2] for name, values in times.items()}
    return {name: medians.get(name, float("nan")) for name in candidates}


def peak_memory(run: Callable[[], object]) -> int:
    """Bytes that one run needs above what was there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before

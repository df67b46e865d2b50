"""What this machine reaches: a copy's bandwidth, a large product's rate, and peaks of memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from .work import Machine

COPIED = {"cpu": 1 << 28, "cuda": 1 << 31}  # bytes: more than any cache holds
SIDE = {"cpu": 1536, "cuda": 8192}  # of the product's matrices
ROUNDS = 8


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measured(
    device: torch.device, name: str, clock: Callable[[], float] = time.perf_counter
) -> Machine:
    """The best of a few copies and products: limits are limits whatever else runs."""

    def best(run: Callable[[], object]) -> float:
        run()
        times = []
        for _ in range(ROUNDS):
            wait(device)
            begin = clock()
            run()
            wait(device)
            times.append(clock() - begin)
        return min(times)

    return Machine(name, _copied(device, best), _multiplied(device, best))


Best = Callable[[Callable[[], object]], float]


def _copied(device: torch.device, best: Best) -> float:
    source = torch.zeros(COPIED[device.type], dtype=torch.int8, device=device)
    goal = torch.zeros_like(source)
    return 2 * source.nbytes / best(lambda: goal.copy_(source))


def _multiplied(device: torch.device, best: Best) -> dict[torch.dtype, float]:
    side, found = SIDE[device.type], {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        found[dtype] = 2 * side**3 / best(lambda a=left, b=right: a @ b)
    return found


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[int]]:
    """A list that holds, once left, the most bytes that were held inside.

    Of a GPU what torch's allocator gave out; of a processor what the process had resident, or
    nothing where the system does not tell.
    """
    found: list[int] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.append(torch.cuda.max_memory_allocated(device))
        return
    process = Path("/proc/self")
    try:
        (process / "clear_refs").write_text("5")  # the peak begins again
    except OSError:
        yield found
        return
    yield found
    lines = (process / "status").read_text().splitlines()
    found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]

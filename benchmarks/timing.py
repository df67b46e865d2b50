"""What the CPU benchmarks share: candidates in turn, and a record that is written whole or not."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import suder_ext

# After its work, a thread of torch's OpenMP waits for more by spinning, and keeps a core busy that
# the next candidate would use.
PAUSE = 0.05


class Question(NamedTuple):
    """A case of a script's `questions(quick)`, which `python -m benchmarks` asks and shows."""

    case: str
    timed: dict[str, Callable[[], object]]  # name -> one run of the same work
    ours: str = "ours"  # which of them ratios are to
    also_ours: tuple[str, ...] = ()  # other ways of ours, which are no peers
    limits: tuple[str, ...] = ()  # those that do less: a bare product, a read of the same bytes
    calls: int = 1  # a time is of so many runs: for those of microseconds
    memory: bool = False  # what a run holds at its peak is worth a column


def interleaved(
    timed: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each, run one after another in every round; the first round is not counted.

    A disturbance then meets all candidates, and the median of each leaves it out. Where there are
    several threads, each begins after a pause.
    """
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_number in range(rounds + 1):
        for name, run in timed.items():
            if torch.get_num_threads() > 1:
                time.sleep(PAUSE)
            start = clock()
            run()
            if round_number > 0:
                seconds[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def add_arguments(parser: argparse.ArgumentParser, rounds: int = 5) -> None:
    """--threads, --rounds, --cpu-time and --json."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for a machine that is not idle"
    )
    parser.add_argument("--json", type=Path, help="write the rows and the machine here")


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """Processor or wall time, as asked for."""
    return time.process_time if args.cpu_time else time.perf_counter


def processor() -> str:
    """The model's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_record(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The rows, and what they were measured with, if --json names a file."""
    if args.json is None:
        return
    record = {
        "processor": processor(),
        "build": suder_ext.build_info(),
        "torch": torch.__version__,
        "threads": args.threads,
        "clock": "processor" if args.cpu_time else "wall",
        "rows": rows,
    }
    partial = args.json.with_name(args.json.name + ".partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(args.json)

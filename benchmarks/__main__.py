"""Everything that this machine can compare, in one run: ours beside every peer that is installed.

    python -m benchmarks --quick                      under two minutes on a CPU
    python -m benchmarks --only logits small_ops --threads 1 --cpu-time
    python -m benchmarks --output runs/benchmarks     results.json, a PNG a script, benchmarks.html

The page needs no network and no other file. A peer that is not installed is named as such.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import suder_ext
from benchmarks.suite import ask
from benchmarks.suite.chart import chart
from benchmarks.suite.page import page, ratio_of, summary, time_of


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small shapes, three rounds")
    scripts = [*ask.SCRIPTS, *([ask.GPU] if _runs_on_gpu() else [])]
    parser.add_argument("--only", nargs="+", choices=scripts, default=scripts)
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), metavar="DIR")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, help="default: 7, with --quick 3")
    parser.add_argument(
        "--cpu-time", action="store_true", help="processor time: for a machine that is not idle"
    )
    args = parser.parse_args(arguments)
    args.rounds = args.rounds or (3 if args.quick else 7)
    if args.threads < 1 or args.rounds < 1:
        parser.error("--threads and --rounds take integers from 1")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse(arguments)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from peers import present
    from timing import clock_of, processor

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    began = time.perf_counter()
    given = sys.argv[1:] if arguments is None else arguments
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks", *given]),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": args.threads,
        "rounds": args.rounds,
        "quick": args.quick,
        "clock": "processor" if args.cpu_time else "wall",
        "build": suder_ext.build_info(),
        "peers": present(),
        "scripts": {},
        "rows": [],
    }
    for peer in record["peers"]:
        print(f"{peer['peer']:<24}{peer['version']:<14}{peer['state']}")
    args.output.mkdir(parents=True, exist_ok=True)
    charts: dict[str, bytes] = {}
    for script in args.only:
        record["scripts"][script] = ask.title(script)
        print(f"\n{script}: {record['scripts'][script]}", flush=True)
        rows = []
        for row in ask.answers(script, args.quick, args.rounds, clock_of(args)):
            if not rows or row["case"] != rows[-1]["case"]:
                print(f"  {row['case']}")
            rows.append(row)
            print(f"    {row['name']:<32}{_told(row)}", flush=True)
        print(f"  {summary(rows)}")
        record["rows"] += rows
        charts[script] = chart(rows)
        _write(args.output / f"{script}.png", charts[script])
    _write(args.output / "results.json", (json.dumps(record, indent=1) + "\n").encode())
    _write(args.output / "benchmarks.html", page(record, charts).encode())
    print(f"\n{args.output / 'benchmarks.html'} ({time.perf_counter() - began:.0f} s)")
    return 0


def _runs_on_gpu() -> bool:
    return torch.cuda.is_available() and suder_ext.build_info()["cuda_kernel"] == "compiled"


def _told(row: ask.Row) -> str:
    if "failed" in row:
        return row["failed"]
    memory = f"{row['mib']:8.0f} MiB" if row.get("mib") is not None else ""
    return f"{time_of(row['ms']):>11}{ratio_of(row['ratio']):>9}{memory}"


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())

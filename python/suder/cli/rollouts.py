"""`suder rollouts`: what a run sampled and scored, as files that others read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from suder.cli.common import add_command, add_output
from suder.storage.shown import counted

SUMMARY = "Write what a run sampled and scored as Parquet, a row for each candidate."
EXAMPLE = """\
  suder rollouts runs/mine --output rollouts/mine
  python -c 'import datasets; print(datasets.load_dataset("parquet",
             data_files="rollouts/mine/*.parquet")["train"][0])'

  DIR/000012.parquet is round 12. A run keeps its last rounds (checkpoint.keep_rounds, 20): the
  command may be given again while the run goes on, and adds what is new. With
  checkpoint.rollouts=parquet a run writes every round itself, to RUN/rollouts/.
  docs/rollouts.md tells the columns. `suder pairs`, `suder score` and `suder train --rollouts` read
  them. Needs pip install 'suder[parquet]'.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "rollouts", SUMMARY, EXAMPLE)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of a run")
    add_output(parser, required=True, metavar="DIR", help="what is written")
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.run.exported import export

    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--output: {args.out} is a file; it takes a folder")
    found = export(args.run_folder, args.out)
    for why in found.lost:
        print(f"left out: {why}", file=sys.stderr)
    rounds = sorted([*found.written, *found.there])
    if not rounds:
        raise ValueError(f"{args.run_folder} holds no whole round; {args.out} was not written")
    there = f", {len(found.there)} of them there already" * bool(found.there)
    first, last = int(rounds[0].stem), int(rounds[-1].stem)
    print(f"{counted(len(rounds), 'round')} from {first} to {last}{there}: {args.out}")
    return 0

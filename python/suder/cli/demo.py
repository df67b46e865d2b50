"""`suder demo`: the embedded model improves itself, is judged, and a report is written."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from suder.cli.common import add_command, add_output

SUMMARY = "Improve the embedded model on its own pictures and prompts, judge it, and report."
EXAMPLE = """\
  suder demo                            minutes on two cores; then open runs/demo/report.html
  suder demo --quick --output runs/quick   shows that it works, too short to improve much

  Interrupted? The same command goes on where it stopped.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "demo", SUMMARY, EXAMPLE)
    add_output(parser, default=Path("runs/demo"), help="folder of the run")
    parser.add_argument("--rounds", type=int, help="other than the default number of rounds")
    parser.add_argument("--quick", action="store_true", help="few rounds, few inputs judged")
    parser.add_argument("--model", default="shapes", help="the start model; shapes: the embedded")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.cli.evaluate import print_comparison
    from suder.experiment.demo import run_demo
    from suder.report.tables import verdict

    began = time.perf_counter()
    summary = run_demo(
        args.out, model=args.model, rounds=args.rounds, quick=args.quick, seed=args.seed
    )
    told = summary["evaluation"]
    print_comparison(told["greedy"], "unseen combinations, greedy decoding of both models")
    kept = summary["kept_round"]
    which = f"the weights of round {kept}" if kept else "the start model, unchanged"
    print(verdict(told["greedy"]))
    minutes = (time.perf_counter() - began) / 60
    print(f"done in {minutes:.1f} minutes\n")
    print(f"  {args.out}/report.html    open this in a browser")
    print(f"  {args.out}/summary.json   every number, greedy and sampled")
    print(f"  {args.out}/model          {which}, in the Hugging Face format")
    return 0

"""`suder experiment`: the grid of arms, warm starts and seeds, its table and its plot."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from suder.cli.common import add_command, add_output

SUMMARY = "Run the objectives against their controls over seeds and warm starts."
EXAMPLE = """\
  suder experiment --output runs/experiment                         the whole grid of the recipe
  suder experiment --output runs/first --arms grpo expert --seeds 1 --starts shapes
  suder experiment --output runs/choice --split validation --set objective.kl=0.05

  Run it again after an interruption: finished cells are not run again, a cut one goes on.
  Ctrl-c and SIGTERM let every cell write its state and end; a second one does not wait for them.
  It writes results.json, results.md and results.png into the folder, after every run anew.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "experiment", SUMMARY, EXAMPLE)
    add_output(parser, default=Path("runs/experiment"), help="folder")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/experiment.yaml"))
    parser.add_argument("--arms", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument("--starts", nargs="+", default=[], help="only these start models")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="only these")
    parser.add_argument(
        "--split", choices=("test", "validation"), default="test",
        help="validation: choose settings on combinations held back from training, never on test",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="a setting of every arm, such as rounds=120; may be repeated",
    )  # fmt: skip
    parser.add_argument("--n", type=int, help="prompts, and pictures, of the final evaluation")
    parser.add_argument("--jobs", type=int, default=2, help="cells at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--table-only", action="store_true", help="run nothing, only collect")
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.experiment.collect import collect
    from suder.experiment.inputs import write_inputs
    from suder.experiment.plan import CONTROL, read_plan
    from suder.experiment.plot import plot
    from suder.experiment.runner import run_cells
    from suder.experiment.table import markdown
    from suder.storage.files import finite, write_json, write_text
    from suder.storage.folders import FolderError, claim, sole_writer

    plan = read_plan(args.recipe).changed(args.changes, args.n)
    arms = dict.fromkeys([CONTROL, *args.arms]) if args.arms else ()
    cells = plan.narrowed(
        starts=args.starts, seeds=args.seeds, arms=list(arms), split=args.split
    ).cells()
    for cell in cells:
        cell.check()
    if (args.out / "config.yaml").exists():
        raise FolderError(f"--output: {args.out} holds a run; give the experiment another folder")
    claim(args.out)
    with sole_writer(args.out):
        failed = []
        if not args.table_only:
            write_inputs(
                args.out / "inputs",
                pictures=plan.inputs["pictures"],
                prompt_count=plan.inputs["prompts"],
                hold_back=args.split == "validation",
                world=plan.measures.world,
            )
            failed = run_cells(cells, args.out, jobs=args.jobs, threads=args.threads)
        results = collect(cells, args.out)
        write_json(args.out / "results.json", finite(results))
        text = markdown(results)
        write_text(args.out / "results.md", text)
        plot(results, args.out / "results.png")
    print(text)
    print(f"{args.out}/results.md, results.json, results.png", file=sys.stderr)
    return 1 if failed else 0

"""`suder evaluate geneval` and its like: the pictures that another benchmark's scorer reads."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from suder.cli.common import add_command, add_device, add_output, prompts_of
from suder.cli.shards import add_shard, shard_of
from suder.storage.shown import counted

# Suite: what --prompts takes, what its scorer is called and takes beside the folder.
SUITES = {
    "geneval": ("evaluation_metadata.jsonl", "evaluate_images.py", ""),
    "t2i-compbench": ("a category's file, a prompt a line", "its scorers", " (--out_dir)"),
    "dpg": ("the folder of prompts, a .txt file each", "compute_dpg_bench.py", ""),
    "wise": ("a JSON file of WISE or a folder of them", "its judge", ""),
}
SUMMARY = "Draw the pictures that {}'s own scorer reads."
EXAMPLE = """\
  suder evaluate {suite} runs/mine --prompts {prompts} --output drawn/{suite}
                                              a run: drawn/{suite}/base and drawn/{suite}/tuned
  suder evaluate {suite} shapes --prompts {prompts} --seed 1 --guidance 5 --output drawn/other
  suder evaluate {suite} MODEL --prompts {prompts} --output DIR --shard 2/8
  torchrun --nproc-per-node 8 -m suder evaluate {suite} MODEL --device cuda ...

  --prompts: {reads}. The same command again draws what is missing, and a machine gives the
  same bytes after any kill and any division into shards. DIR/manifest.json holds the settings and
  the model's hash; a folder of other settings is refused. docs/benchmarks.md tells the layouts.
"""
PROMPTS = {"geneval": "evaluation_metadata.jsonl", "t2i-compbench": "color_val.txt",
           "dpg": "dpg_bench/prompts", "wise": "wise/data"}  # fmt: skip


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], suite: str
) -> argparse.ArgumentParser:
    reads = SUITES[suite][0]
    example = EXAMPLE.format(suite=suite, reads=reads, prompts=PROMPTS[suite])
    parser = add_command(subparsers, f"evaluate {suite}", SUMMARY.format(suite), example)
    parser.add_argument("model", help="a run's folder, a model's folder, a hub id, or `shapes`")
    parser.add_argument("--base", help="draw by this one, too; of a run, by its start model")
    parser.add_argument("--prompts", type=Path, required=True, metavar="PATH", help=reads)
    add_output(parser, required=True, metavar="DIR", help="what is written")
    parser.add_argument("--n", type=int, help="pictures of a prompt; default: the suite's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--greedy", action="store_true", help="always the most likely token")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=1.0, help="1: none")
    parser.add_argument(
        "--null-prompt", metavar="TEXT", help="what guidance subtracts; default: the model's"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="side of a picture, where a model draws in any"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="pictures drawn at once")
    add_shard(parser)
    add_device(parser)
    parser.set_defaults(suite=suite)
    return parser


def run(args: argparse.Namespace) -> int:
    shard, device = shard_of(args.shard, args.device)
    suite = importlib.import_module(f"suder.evaluation.suites.{args.suite.replace('-', '_')}")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size: takes an integer from 1, got {args.batch_size}")
    n = suite.N if args.n is None else args.n
    items = suite.items(args.prompts, n)
    import torch
    from rich.progress import Progress

    from suder.evaluation.sides import sides_of
    from suder.evaluation.suites.draw import How, draw
    from suder.models import load_model
    from suder.models.unknown import not_known

    sides = sides_of(args.model, args.base)
    given = {name: value for name, value in prompts_of(args).items() if value is not None}
    how = How(n, args.seed, args.temperature, args.guidance, args.greedy, args.batch_size)
    _, scorer, option = SUITES[args.suite]
    part = f", part {shard[0] + 1} of {shard[1]}" if shard[1] > 1 else ""
    for side, name in sides.models.items():
        out = args.out / side if len(sides.models) > 1 else args.out
        model = load_model(
            name, device=device, dtype=getattr(torch, args.dtype), **sides.options | given
        )
        if warning := not_known(model, [item.prompt for item in items]):
            print(f"warning: {warning}", file=sys.stderr)
        done = 0
        with Progress(transient=True, disable=shard[0] > 0) as bar:
            task = bar.add_task("drawing", total=None)
            for done, total in draw(model, args.suite, items, out, how, shard, name):
                bar.update(task, completed=done, total=total)
        print(f"{counted(done, 'picture')}{part}; for {scorer}{option}: {out / suite.FOLDER}")
        del model  # the next may need its room
    return 0

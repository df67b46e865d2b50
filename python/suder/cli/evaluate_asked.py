"""`suder evaluate pope|mmbench|...`: questions about pictures with known answers."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from suder.cli.common import add_command, add_device, add_output
from suder.cli.shards import add_shard, shard_of

SUMMARY = "Ask {}'s questions, and say what is right with intervals."
EXAMPLE = """\
  suder evaluate {suite} FILE runs/mine           a run: its start model against its result
  suder evaluate {suite} FILE MODEL --images pictures
  suder evaluate {suite} FILE MODEL --base BASE --output answers/{suite}
  suder evaluate {suite} FILE MODEL --by generation --shard 2/8 --output DIR
  torchrun --nproc-per-node 8 -m suder evaluate {suite} FILE MODEL --device cuda --output DIR

  FILE: {reads}.
  Pictures are read from it, where they are in it, or from --images. By likelihood, the answer is
  the likeliest of the options (letters, or yes and no); by generation, what the model writes, read
  by VLMEvalKit's rules without a judge. Intervals are 95%, over whole pictures. DIR has scores.md,
  scores.json, and each model's predictions as VLMEvalKit and lmms-eval have them; the same command
  again answers what is missing. docs/benchmarks.md tells all of it.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], suite: str
) -> argparse.ArgumentParser:
    asks = importlib.import_module(f"suder.evaluation.asked.{suite}")
    example = EXAMPLE.format(suite=suite, reads=asks.READS)
    parser = add_command(subparsers, f"evaluate {suite}", SUMMARY.format(asks.TITLE), example)
    parser.add_argument("questions", type=Path, metavar="FILE", help=asks.READS)
    parser.add_argument("model", help="a run's folder, a model's folder, a hub id, or `shapes`")
    parser.add_argument("--base", help="the model to compare with; of a run, its start model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="its pictures")
    parser.add_argument(
        "--by", choices=("likelihood", "generation"), default="likelihood", help="how it answers"
    )
    parser.add_argument(
        "--question", metavar="TEXT", help="around {text}, the question; default: VLMEvalKit's"
    )
    parser.add_argument(
        "--system-prompt", metavar="TEXT", help="before the question; default: the model's"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=64, metavar="N", help="longest written answer"
    )
    add_output(parser, metavar="DIR", help="default: of a run, evaluation/SUITE in it")
    add_shard(parser)
    add_device(parser)
    parser.set_defaults(suite=suite)
    return parser


def run(args: argparse.Namespace) -> int:
    import torch
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress
    from rich.table import Table

    from suder.evaluation.answering.evaluate import Asking, answer_sides
    from suder.evaluation.answering.score import lines
    from suder.evaluation.answering.table import read_table
    from suder.evaluation.answering.written import found_of, in_words, write_found
    from suder.evaluation.sides import sides_of
    from suder.storage.shown import shown

    shard, device = shard_of(args.shard, args.device)
    suite = importlib.import_module(f"suder.evaluation.asked.{args.suite}")
    sides = sides_of(args.model, args.base)
    out = args.out or (sides.run / "evaluation" / args.suite if sides.run else None)
    if out is None and shard[1] > 1:
        raise ValueError("--shard: parts come together in a folder; name it by --output")
    table = read_table(args.questions)
    asked = suite.questions(table)
    if args.images is None and any(one.names for one in asked.questions):
        raise ValueError(f"--images: {args.questions} names its pictures; say where they are")
    asking = Asking(
        args.images, args.by, args.question, args.max_new_tokens, args.system_prompt, device,
        getattr(torch, args.dtype),
    )  # fmt: skip
    console = Console(stderr=True)
    quiet = shard[0] > 0 or not console.is_terminal
    with Progress(transient=True, console=console, disable=quiet) as bar:
        tasks = {side: bar.add_task(side, total=None) for side in sides.models}

        def step(side: str, done: int, total: int) -> None:
            bar.update(tasks[side], completed=done, total=total)

        def warn(text: str) -> None:
            print(shown(f"warning: {text}"), file=sys.stderr)

        answered = answer_sides(args.suite, asked, sides, asking, out, shard, step, warn)
    if answered.missing:
        print(
            f"part {shard[0] + 1} of {shard[1]} is answered; others have {answered.missing} of "
            f"{len(asked.questions)} questions to answer yet"
        )
        return 0
    about = {**sides.models, "file": args.questions.name, "by": args.by, "wrap": args.question}
    found = found_of(suite, asked, answered.sides, about, answered.same)
    made = []
    if out is not None:
        dataset = table.name if args.questions.suffix.lower() == ".tsv" else suite.DATASET
        made = write_found(out, suite, dataset, asked.questions, answered.sides, found)
    head, *rows = lines(found["rows"])
    printed = Table(title=escape(suite.TITLE), title_justify="left")
    for i, one in enumerate(head):
        printed.add_column(one, justify="left" if i < 2 else "right")
    for row in rows:
        printed.add_row(*map(escape, row), style="bold" if row[1] == "all" else None)
    if rows:
        Console().print(printed)
    for line in in_words(found):
        print(shown(line))
    for path in made:
        print(shown(str(path)))
    return 0

"""`suder evaluate`: a model, two models or a run, judged on held-out inputs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from suder.cli.common import (
    add_command,
    add_device,
    add_output,
    add_prompt_options,
    new_file,
    prompts_of,
)

SUMMARY = "Judge a model, or a base and a tuned one side by side, on held-out inputs."
EXAMPLE = """\
  suder evaluate runs/demo                    a run: its start model against its result
  suder evaluate runs/demo/model              one model
  suder evaluate runs/demo/model --base shapes --n 2000 --seed 1
  suder evaluate shapes --temperature 0.7
  suder evaluate runs/mine --images other/photos --prompts other.txt --output mine.html
  suder evaluate geneval MODEL --prompts evaluation_metadata.jsonl --output DIR
                                              pictures for another benchmark's own scorer:
                                              geneval, t2i-compbench, dpg or wise, each --help
  suder evaluate pope coco_pope_random.json runs/demo --images val2014
                                              questions with known answers, base and tuned: pope,
                                              mmbench, mmmu, seedbench, hallusionbench, each --help

  With --images, --prompts or both: your own inputs, base and tuned side by side. Nobody judges
  them: pictures and captions of both with their rewards by the base model, paired differences with
  95% intervals, a page to look at. What a run was trained on is left out; texts of the pictures
  (x.txt beside x.png, or metadata.jsonl) are used where there are some.

  Without them: prompts become pictures and pictures become captions; an exact checker that training
  never sees judges both. Intervals are 95%, paired, over whole combinations of things.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "evaluate", SUMMARY, EXAMPLE)
    parser.add_argument("model", help="a run's folder, a model's folder, a hub id, or `shapes`")
    parser.add_argument("--base", help="the model to compare with")
    parser.add_argument("--images", type=Path, metavar="DIR", help="your own pictures")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="your own, one a line")
    parser.add_argument("--world", default="shapes", help="whose prompts and judge")
    parser.add_argument(
        "--split", default="test", help="test, unlabelled, supervised or validation"
    )
    parser.add_argument("--n", type=int, default=1000, help="prompts, and as many pictures")
    parser.add_argument("--seed", type=int, default=0, help="of inputs and sampling")
    parser.add_argument("--sampled", action="store_true", help="sample instead of greedy decoding")
    parser.add_argument("--temperature", type=float, help="sample at it; default: 1 if --sampled")
    parser.add_argument("--guidance", type=float, default=1.0, help="of drawing; 1: none")
    add_prompt_options(parser)
    add_device(parser)
    add_output(parser, metavar="FILE", help="the items (.npz); of your own inputs, a page (.html)")
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace what is there: the file of --output, or a run's evaluation of other inputs",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    args.sampled |= args.temperature is not None
    args.temperature = 1.0 if args.temperature is None else args.temperature
    if args.images or args.prompts:
        from suder.cli import evaluate_own

        return evaluate_own.run(args)
    from suder.evaluation.compare import accuracies, compare
    from suder.evaluation.side_by_side import judge_run
    from suder.storage.files import read_json

    where = {"world": args.world, "split": args.split, "n": args.n, "seed": args.seed}
    if (Path(args.model) / "config.yaml").is_file():  # a run
        asked = [*prompts_of(args).values(), args.max_new_tokens]
        ours = args.base or args.sampled or args.out or args.guidance != 1.0
        ours = ours or args.dtype != "float32"
        if ours or any(one is not None for one in asked):
            raise ValueError(
                "a run is compared with its start model, greedy and sampled, as it is, its "
                "prompts and longest caption included"
            )
        found = judge_run(Path(args.model), **where, replace=args.overwrite)["evaluation"]
        for decoding in ("greedy", "sampled"):
            print_comparison(found[decoding], f"{args.split}, {decoding}")
        kept = read_json(Path(args.model) / "summary.json")["evaluation"]
        if found != kept:
            print(
                f"the run keeps its evaluation of {kept['n']} ({kept['split']}, seed "
                f"{kept['seed']}); this one is in {args.model}/evaluation, "
                "and --overwrite puts it in the other's place"
            )
        return 0
    if args.out:
        new_file(args.out, "--output", args.overwrite)
    tuned = _judged(args, args.model)
    if args.out:
        tuned.save(args.out)
    if args.base:
        print_comparison(compare(_judged(args, args.base), tuned), args.split)
    else:
        _print_alone(accuracies(tuned), args)
    return 0


def print_comparison(rows: Any, title: str) -> None:
    """The table of base against tuned, on the console."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from suder.evaluation.side_by_side import comparison_lines

    table = Table(title=escape(title), title_justify="left")
    for head in ("", "category"):
        table.add_column(head)
    for head in ("n", "base", "tuned", "points", "95% interval"):
        table.add_column(head, justify="right")
    for line in comparison_lines(rows):
        table.add_row(*map(escape, line), style="bold" if line[1] == "all" else None)
    Console().print(table)


def _judged(args: argparse.Namespace, name: str) -> Any:
    import torch

    from suder.evaluation.evaluate import evaluate
    from suder.evaluation.worlds import task_of
    from suder.models import load_model

    dtype = getattr(torch, args.dtype)
    return evaluate(
        load_model(name, device=args.device, dtype=dtype, **prompts_of(args)),
        task=task_of(args.world, args.split, args.n, args.seed),
        seed=args.seed,
        greedy=not args.sampled,
        temperature=args.temperature,
        guidance=args.guidance,
        max_new_tokens=args.max_new_tokens,
    )


def _print_alone(lines: Any, args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"{args.model} on {args.split}"), title_justify="left")
    for head in ("", "category", "n", "right", "95% interval"):
        table.add_column(head, justify="left" if head in ("", "category") else "right")
    for line in lines:
        low, high = line["interval"]
        table.add_row(
            "pictures" if line["direction"] == "generation" else "captions",
            line["category"].replace("_", " "),
            str(line["n"]),
            f"{100 * line['accuracy']:.1f}%",
            f"{100 * low:.1f} to {100 * high:.1f}%",
        )
    Console().print(table)

"""`suder audit`: whether a model's rewards of some pictures have a signal, before any training."""

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

SUMMARY = "Look before you train: what both rewards make of your pictures and prompts."
EXAMPLE = """\
  suder audit shapes --images runs/demo/inputs/images --prompts runs/demo/inputs/prompts.txt
  suder audit my/model --images pairs/ --captions pairs.txt --output before.html

  How often each reward prefers the matching to a shuffled partner, whether it likes length, how far
  apart the candidates of a group are, whether both directions and the model's own yes agree, and
  what a first round would train on. Captions: line n is of the n-th picture by name; without them
  the model's own stand in. Writes a page and its numbers beside it (.json); nothing is trained.

  Exit code 0: fine, or something odd; 1: a reward is flat; 2: bad input.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "audit", SUMMARY, EXAMPLE)
    parser.add_argument("model", help="a folder, a hub id, or `shapes`")
    parser.add_argument("--images", type=Path, metavar="DIR", required=True, help="pictures")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="theirs, one a line")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="to draw of, one a line")
    parser.add_argument("--inputs", type=int, default=24, help="pictures, and prompts, looked at")
    parser.add_argument("--candidates", type=int, default=8, help="of each group")
    parser.add_argument("--shuffles", type=int, default=8, help="wrong partners of each input")
    parser.add_argument("--temperature", type=float, default=1.0, help="of sampling")
    parser.add_argument("--guidance", type=float, default=1.0, help="of drawing; 1: none")
    add_prompt_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of what is chosen and sampled")
    add_device(parser)
    add_output(parser, metavar="FILE", default=Path("audit.html"), help="default: audit.html")
    parser.add_argument("--overwrite", action="store_true", help="FILE is there: replace it")
    return parser


def run(args: argparse.Namespace) -> int:
    for name, least in (("inputs", 4), ("candidates", 2), ("shuffles", 2)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name}: takes {least} or more, got {getattr(args, name)}")
    if args.out.suffix not in (".html", ".htm"):
        raise ValueError(f"--output: takes a name that ends in .html, got {args.out}")
    numbers = args.out.with_suffix(".json")
    for path in (args.out, numbers):
        new_file(path, "--output", args.overwrite)
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from suder.audit.material import read_material
    from suder.audit.measure import audit
    from suder.models import load_model
    from suder.models.usable import check_device
    from suder.report.audit_page import write_audit
    from suder.storage.files import finite, write_json
    from suder.storage.shown import named

    check_device(args.device)
    chosen = {"count": args.inputs, "seed": args.seed}
    material = read_material(args.images, args.captions, args.prompts, **chosen)
    dtype = getattr(torch, args.dtype)
    model = load_model(args.model, device=args.device, dtype=dtype, **prompts_of(args))
    console = Console(stderr=True)
    with Progress(transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("audit")

        def step(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        found = audit(
            model, material, name=args.model, candidates=args.candidates, shuffles=args.shuffles,
            temperature=args.temperature, guidance=args.guidance,
            max_new_tokens=args.max_new_tokens, seed=args.seed, step=step,
        )  # fmt: skip
    write_json(numbers, finite(found.as_object()))
    write_audit(found, args.out, replace=args.overwrite)
    _tell(found)
    print(f"{named(args.out)}, numbers in {named(numbers)}")
    return 1 if found.verdict == "flat" else 0


def _tell(found: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from suder.report.audit_page import reasons, table
    from suder.storage.shown import shown

    lines = Table()
    for head in ("", "R_U, captions", "R_G, pictures"):
        lines.add_column(head)
    for row in table(found):
        lines.add_row(*map(escape, row))
    Console().print(lines)
    for line in reasons(found):
        print(shown(line))

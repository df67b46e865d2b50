"""`suder evaluate pope`: yes-no questions about pictures, with POPE's own numbers."""

from __future__ import annotations

import argparse
from pathlib import Path

from suder.cli.common import add_command, add_output, new_file
from suder.storage.shown import counted

SUMMARY = "Ask POPE's questions: does the model see what is not there?"
EXAMPLE = """\
  suder evaluate pope coco_pope_random.json runs/mine/model --images val2014
  suder evaluate pope coco_pope_random.json MODEL --images val2014 --output answers.jsonl

  An answer is the likelier of yes and no. Intervals are 95%, over whole pictures. --output has each
  question with its answer and p(yes) / (p(yes) + p(no)), a JSON object a line.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], suite: str
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, f"evaluate {suite}", SUMMARY, EXAMPLE)
    parser.add_argument("questions", type=Path, metavar="FILE", help="of POPE, JSON lines")
    parser.add_argument("model", help="a model's folder, a hub id, or `shapes`")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="its pictures")
    parser.add_argument("--question", metavar="TEXT", help="around {text}; default: VLMEvalKit's")
    add_output(parser, metavar="FILE", help="write the answers here (JSONL)")
    parser.add_argument("--overwrite", action="store_true", help="FILE is there: replace it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.evaluation.suites.pope import QUESTION, answer, questions, scores

    rows = questions(args.questions)
    if args.out:
        new_file(args.out, "--output", args.overwrite)
    import torch

    from suder.models import load_model
    from suder.storage.files import write_jsonl

    model = load_model(args.model, device=args.device, dtype=getattr(torch, args.dtype))
    parts = answer(model, rows, args.images, args.question or QUESTION)
    said = [row for part in parts for row in part]
    if args.out:
        write_jsonl(args.out, said)
    for name, found in scores(said).items():
        print(f"{name}: {found.estimate:.4f} ({found.low:.4f} to {found.high:.4f})")
    pictures = {row["image"] for row in said}
    print(f"{counted(len(said), 'question')} about {counted(len(pictures), 'picture')}")
    return 0

"""`suder pairs`: preference pairs out of rollouts, as other trainers read them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from suder.cli.common import add_command, add_output, new_file
from suder.storage.shown import counted

SUMMARY = "Pair candidates anew and write them as preferences: for TRL, ms-swift or suder itself."
EXAMPLE = """\
  suder pairs runs/mine/rollouts --output pairs.parquet --format trl
  suder pairs runs/mine/rollouts --output pairs.jsonl --format ms-swift --rule margin --margin 0.2
  suder pairs runs/mine/rollouts --output pairs.parquet --format suder --rule top-k --k 2
  suder train --model shapes --rollouts pairs.parquet --output runs/pairs objective.name=dpo

  trl        Parquet of prompt, chosen, rejected (messages) and images:
             DPOTrainer(train_dataset=load_dataset("parquet", data_files=FILE)["train"], ...)
  ms-swift   JSONL of messages, rejected_response and images: swift rlhf --dataset FILE
  suder      Parquet of rollouts, two a group: suder train --rollouts FILE

  An answer is text in the first two, so drawings are left out there, and counted. With --pictures
  DIR the third also writes the drawings as PNG files and names them in a column `image`: for
  people, or to train a model that judges pictures; none of these trainers learns from them.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "pairs", SUMMARY, EXAMPLE)
    parser.add_argument(
        "rollouts", type=Path, metavar="ROLLOUTS", help="a Parquet file, or a folder of them"
    )
    add_output(parser, required=True, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="FILE is there: replace it")
    parser.add_argument("--format", choices=("trl", "ms-swift", "suder"), required=True)
    parser.add_argument(
        "--rule", choices=("best-worst", "margin", "top-k"), default="best-worst",
        help="of a group: best and worst; all over --margin; or --k best with the k worst",
    )  # fmt: skip
    parser.add_argument("--margin", type=float, default=0.0, help="difference of rewards, above it")
    parser.add_argument("--k", type=int, default=1, help="pairs of a group, at most")
    parser.add_argument("--question", metavar="TEXT", help="about a picture; default: the rows'")
    parser.add_argument(
        "--embed-images", action="store_true", help="trl: the pictures' bytes, not their paths"
    )
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="suder: drawings as PNG files")
    parser.add_argument(
        "--model", help="with --pictures: that drew them, or with the same picture tokens"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    _check(args)
    from suder.inputs.files import DataError
    from suder.rollouts.files import find_files, read_table, write_table
    from suder.rollouts.pairs import pair_rows
    from suder.rollouts.preferences import captions_only, own_table, swift_rows, trl_table
    from suder.storage.files import write_jsonl

    table = read_table(find_files(args.rollouts))
    pairs = pair_rows(table, args.rule, args.margin, args.k)
    if args.format != "suder":
        every, pairs = len(pairs), captions_only(table, pairs)
        if left := every - len(pairs):
            print(
                f"left out: {left} pairs of drawings, which {args.format} has no words for; "
                "--format suder keeps them",
                file=sys.stderr,
            )
    if not pairs:
        raise DataError(f"{args.rollouts}: no pair of valid candidates of other rewards is in it")
    if args.format == "ms-swift":
        write_jsonl(args.out, swift_rows(table, pairs, args.question))
    elif args.format == "trl":
        write_table(args.out, trl_table(table, pairs, args.question, args.embed_images))
    else:
        found = own_table(table, pairs)
        if args.pictures:
            from suder.models import load_model
            from suder.rollouts.drawn import with_pictures

            found = with_pictures(found, load_model(args.model), args.pictures)
        write_table(args.out, found)
    print(f"{counted(len(pairs), 'pair')} of {counted(len(table), 'candidate')}: {args.out}")
    return 0


def _check(args: argparse.Namespace) -> None:
    new_file(args.out, "--output", args.overwrite)
    if args.margin < 0:
        raise ValueError(f"--margin: takes a number from 0, got {args.margin:g}")
    if args.k > 1 and args.rule != "top-k":
        raise ValueError("--k is of --rule top-k")
    if args.margin > 0 and args.rule != "margin":
        raise ValueError("--margin is of --rule margin")
    if args.embed_images and args.format != "trl":
        raise ValueError("--embed-images is of --format trl")
    if args.pictures and args.format != "suder":
        raise ValueError("--pictures is of --format suder: the others hold captions")
    if bool(args.pictures) != bool(args.model):
        raise ValueError("--pictures DIR and --model M go together: the model decodes the drawings")

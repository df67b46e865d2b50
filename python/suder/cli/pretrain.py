"""`suder pretrain`: a small warm start from nothing, the way the embedded one was made."""

from __future__ import annotations

import argparse

from suder.cli.common import add_command, add_output

SUMMARY = "Make a small Janus from nothing: a VQ model, then a short supervised warm-up."
EXAMPLE = """\
  suder pretrain --world shapes --seed 3 --output models/shapes-3
      about 20 minutes on one core; the embedded models are seeds 1 and 2
  suder pretrain --world digits --output models/digits
      scanned handwritten digits (needs scikit-learn)
  suder pretrain --world emoji --output models/emoji
      96 things in 16 styles (needs suder[emoji]); the drawings are four packages that `npm pack`
      fetches once into $SUDER_EMOJI, or ~/.cache/suder/emoji, or that lie there already:
        @iconify-json/fluent-emoji-flat  MIT           @iconify-json/noto      Apache-2.0
        @iconify-json/twemoji            CC BY 4.0     @iconify-json/openmoji  CC BY-SA 4.0
  suder pretrain --recipe models/shapes-3/recipe.yaml --output again
      the same weights again: the last line of log.jsonl has their SHA-256

  The model is imperfect on purpose: `suder train` has something to improve. Killed half-way,
  the same command goes on from the last finished stage.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "pretrain", SUMMARY, EXAMPLE)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--world", help="shapes, digits or emoji, by the recipe that comes with suder"
    )
    source.add_argument("--recipe", help="a YAML file such as recipe.yaml in a model's folder")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    add_output(parser, required=True, help="folder to make the model in")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.pretrain.recipe import load_recipe
    from suder.pretrain.stages import pretrain

    changes = {} if args.seed is None else {"seed": args.seed}
    folder = pretrain(load_recipe(args.recipe or args.world, **changes), args.out, args.quiet)
    print(folder)
    return 0

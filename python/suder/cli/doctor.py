"""`suder doctor`: what is fine with a checkpoint, what is odd, and what to do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from suder.cli.common import add_command, add_device

SUMMARY = "Examine a checkpoint before anything is trained: what is fine, what is odd, what to do."
EXAMPLE = """\
  suder doctor shapes
  suder doctor deepseek-community/Janus-Pro-1B --device cuda --dtype bfloat16
  suder doctor my/model --images pairs/ --prompts pairs.txt     line n for the n-th picture by name

  files      they belong together; every weight is finite
  words      the tokens that a question and a prompt become; the processor's own beside them
  pictures   what is left of a picture that was encoded and decoded; the codebook
  parity     greedy tokens beside those of transformers' generate
  rewards    of matching and of shuffled partners: without a difference there is no signal
  memory     what a run would hold, by its settings, beside what the device has
  contract   (asked for by --contract) likelihoods are the same by every way; minutes if large

  Exit code 0: fine, or odd; 1: something is wrong; 2: bad input.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "doctor", SUMMARY, EXAMPLE)
    parser.add_argument("model", help="a folder, a hub id, or `shapes`")
    parser.add_argument("--image", type=Path, metavar="FILE", help="a picture for the VQ model")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures with captions")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="their captions, one a line")
    parser.add_argument("--pairs", type=int, default=24, help="pictures with captions to score")
    add_device(parser)
    parser.add_argument("--checks", metavar="NAME,NAME", help="only these, and files")
    parser.add_argument(
        "--quick", action="store_true", help="no greedy picture, memory of two settings"
    )
    parser.add_argument("--contract", action="store_true", help="suder.testing.check_adapter, too")
    parser.add_argument("--json", action="store_true", help="one JSON object, and nothing else")
    return parser


def run(args: argparse.Namespace) -> int:
    if args.pairs < 4:
        raise ValueError(f"--pairs: takes four or more, got {args.pairs}")
    if (args.images is None) != (args.prompts is None):
        raise ValueError("--images and --prompts: pictures and their captions; give both")
    import torch
    from rich.console import Console

    from suder.doctor.examine import CHECKS, USUAL, examine
    from suder.doctor.findings import Section
    from suder.doctor.patient import Patient, drawn_pairs, read_pairs
    from suder.inputs.as_seen import WHITE
    from suder.inputs.pictures import load_picture
    from suder.models.usable import check_device
    from suder.storage.shown import shown

    checks = args.checks.split(",") if args.checks else list(USUAL)
    if unknown := [name for name in checks if name not in CHECKS]:
        raise ValueError(f"--checks: no {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    if args.contract:
        checks.append("contract")
    check_device(args.device)
    pairs = (
        drawn_pairs(args.pairs)
        if args.images is None
        else read_pairs(args.images, args.prompts, args.pairs)
    )
    picture = None if args.image is None else load_picture(args.image, WHITE)
    patient = Patient(
        args.model, args.device, getattr(torch, args.dtype), pairs, picture, args.quick
    )

    def tell(section: Section) -> None:
        if not args.json:
            print(f"{section.name} ({section.seconds:.1f} s)")
            for one in section.findings:
                print(shown(f"  {one.level:<6} {one.text}"))

    with Console(stderr=True).status("examining") as status:
        found = examine(patient, checks, lambda name: status.update(f"examining: {name}"), tell)
    if args.json:
        print(json.dumps(_finite(found.as_object()), indent=1))
    else:
        print("\nverdict")
        for line in found.in_words():
            print(shown(f"  {line}"))
    return 1 if found.verdict == "wrong" else 0


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value

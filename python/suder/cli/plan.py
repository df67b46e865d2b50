"""`suder plan`: what a run would hold in memory, part by part."""

from __future__ import annotations

import argparse

from suder.cli.common import add_command
from suder.cli.settings_given import add_settings, missing, settings_given

SUMMARY = "What a run would hold in memory, part by part, before any of it is there."
EXAMPLE = """\
  suder plan recipes/shapes.yaml
  suder plan --model shapes --prompts prompts.txt lora.rank=32
  suder plan mine.yaml --set lora.rank=32 --set optimizer.checkpoint_activations=true

  suder plan mine.yaml --set optimizer.shard=true --processes 8    each of eight, weights divided

  A round is run dry: with the model's shapes and no weights. Exit code 2, and the settings that
  would help, where the run does not fit the device; `suder train` refuses it likewise.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "plan", SUMMARY, EXAMPLE)
    add_settings(parser, "settings (YAML)")
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="what each of N processes would hold (accelerate launch); default: 1",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.run.room import room, table
    from suder.settings.config_file import ConfigError, load_config

    if args.processes < 1:
        raise ConfigError(f"--processes: takes an integer from 1, got {args.processes}")
    file, changes = settings_given(args)
    if file is None:
        changes = ["output=runs/plan", "data.images=.", *changes]  # neither is looked at
        if needed := missing(changes):
            raise ConfigError(
                f"which settings? `suder plan CONFIG.yaml`; without a file it also needs "
                f"{', '.join(needed)}"
            )
    config = load_config({} if file is None else file, changes)
    print(table(*room(config, args.processes), config.device))
    return 0

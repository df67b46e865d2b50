"""`suder plan`: what a run would hold in memory, part by part."""

from __future__ import annotations

import argparse

from suder.cli.common import add_command

SUMMARY = "What a run would hold in memory, part by part, before any of it is there."
EXAMPLE = """\
  suder plan recipes/shapes.yaml
  suder plan mine.yaml --set lora.rank=32 --set optimizer.checkpoint_activations=true

  suder plan mine.yaml --set optimizer.shard=true --processes 8    each of eight, weights divided

  A round is run dry: with the model's shapes and no weights. Exit code 2, and the settings that
  would help, where the run does not fit the device; `suder train` refuses it likewise.
"""


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
) -> argparse.ArgumentParser:
    parser = add_command(subparsers, "plan", SUMMARY, EXAMPLE)
    parser.add_argument("config", help="settings (YAML)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the same as --set key=value"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="overrides a setting, such as optimizer.offload=true; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="what each of N processes would hold (accelerate launch); default: 1",
    )  # fmt: skip
    return parser


def run(args: argparse.Namespace) -> int:
    from suder.run.room import room, table
    from suder.settings.config_file import load_config

    if args.processes < 1:
        raise ValueError(f"--processes: takes an integer from 1, got {args.processes}")
    config = load_config(args.config, [*args.changes, *args.overrides])
    print(table(*room(config, args.processes), config.device))
    return 0

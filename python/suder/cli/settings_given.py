"""A run's settings as a command line gives them: a file, options, key=value, or all of these."""

from __future__ import annotations

import argparse
import os

# Options, the settings that they are, and what each takes.
OPTIONS = {
    "--model": ("model", "M", "a folder or hub name in the Hugging Face format, or `shapes`"),
    "--images": ("data.images", "DIR", "a folder of pictures, searched recursively"),
    "--prompts": ("data.prompts", "FILE", "a text file, one prompt a line"),
    "--rollouts": ("data.rollouts", "DIR", "learn from Parquet files of rollouts, sample nothing"),
    "--output": ("output", "DIR", "the folder of the run, which is made"),
}


def add_settings(parser: argparse.ArgumentParser, config: str) -> None:
    """`config` says what the positional argument is."""
    parser.add_argument("config", nargs="?", help=config)
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="the same as --set key=value"
    )
    for option, (key, value, meaning) in OPTIONS.items():
        names = (option, "--out") if option == "--output" else (option,)  # its older name
        parser.add_argument(*names, metavar=value, help=f"{meaning} (the setting {key})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="changes",
        help="overrides a setting, such as optimizer.lr=1e-4; may be repeated",
    )  # fmt: skip


def settings_given(args: argparse.Namespace) -> tuple[str | None, list[str]]:
    """The settings file, or None, and the changes to it; options count as changes, given first.

    The first key=value of a command without a file is none.
    """
    file, overrides = args.config, list(args.overrides)
    if file is not None and "=" in file and not os.path.exists(file):
        file, overrides = None, [file, *overrides]
    asked = [
        f"{key}={value}"
        for option, (key, _, _) in OPTIONS.items()
        if (value := getattr(args, option.removeprefix("--"))) is not None
    ]
    return file, [*asked, *args.changes, *overrides]


def missing(changes: list[str]) -> list[str]:
    """Options that a command without a settings file still needs."""
    given = {change.partition("=")[0].strip() for change in changes} | {"data.rollouts"}
    if any(change.partition("=")[0].strip() == "data.rollouts" for change in changes):
        given |= {"data.images", "data.prompts"}  # theirs
    return [f"{option} {value} ({meaning})" for option, (key, value, meaning) in OPTIONS.items()
            if key not in given]  # fmt: skip

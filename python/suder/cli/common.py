"""What the commands share: their look, and errors a person can act on."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from suder.storage.shown import shown

# Options that are whole numbers from 1, in whichever command has them.
COUNTS = (
    "n", "batch_size", "candidates", "image_size", "inputs", "jobs", "k", "max_new_tokens", "pairs",
    "processes", "rounds", "shuffles", "threads",
)  # fmt: skip
# What the user can mend. Anything else is this program's fault, and says so.
BAD_INPUT = (ValueError, TypeError, OSError, ImportError, IndexError)


def add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    example: str,
) -> argparse.ArgumentParser:
    """A command's parser, whose --help ends with an example printed as it is."""
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog="example:\n" + example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_output(parser: argparse.ArgumentParser, **options: Any) -> None:
    """Where a command writes, by one name in all of them; `--out` is its older name."""
    parser.add_argument("--output", "--out", dest="out", type=Path, **options)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where models are loaded, and in what numbers."""
    parser.add_argument("--device", default="cpu", help="torch's name of it, such as cuda:1")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"),
        help="of the weights; default: float32",
    )  # fmt: skip


def add_prompt_options(parser: argparse.ArgumentParser, drawing: bool = True) -> None:
    """The settings `prompts` and `sampling.max_new_tokens` of a run, by the same names.

    Args:
        drawing: whether anything is sampled; scoring needs no more than the question.
    """
    parser.add_argument("--question", metavar="TEXT", help="about a picture; default: the model's")
    parser.add_argument(
        "--system-prompt", metavar="TEXT", help="before the question; default: the model's"
    )
    parser.add_argument(
        "--image-size", type=int, metavar="N", help="side of a picture, where a model draws in any"
    )
    if drawing:
        parser.add_argument(
            "--null-prompt", metavar="TEXT",
            help="what guidance subtracts; Janus: fixed or padded; default: the model's",
        )  # fmt: skip
        parser.add_argument(
            "--max-new-tokens", type=int, metavar="N", help="longest caption; default: the model's"
        )


def prompts_of(args: argparse.Namespace) -> dict[str, Any]:
    """What `load_model` takes of the options above."""
    names = ("question", "system_prompt", "null_prompt", "image_size")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def as_meant(args: argparse.Namespace) -> None:
    """Options of every command: `~` is the home folder (a shell leaves `--output=~/x` as it is).

    Raises:
        ValueError: a number is not finite, or out of its range.
    """
    for name, value in vars(args).items():
        option, number = f"--{name.replace('_', '-')}", isinstance(value, int | float)
        if isinstance(value, Path):
            setattr(args, name, value.expanduser())
        elif isinstance(value, str):
            setattr(args, name, os.path.expanduser(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{option}: takes a finite number, got {value}")
        if name == "guidance" and value < 1:  # as the setting sampling.guidance
            raise ValueError(f"{option}: takes a number from 1, which is none, got {value:g}")
        if name == "temperature" and number and value <= 0:
            likeliest = "; --greedy draws the most likely" if hasattr(args, "greedy") else ""
            raise ValueError(f"{option}: takes a number above 0, got {value:g}{likeliest}")
        if name in COUNTS and number and value < 1:
            raise ValueError(f"{option}: takes a whole number from 1, got {value}")


def new_file(path: Path, option: str, overwrite: bool = False) -> Path:
    """The path, fit to be written, before any work is done for what goes there.

    Raises:
        ValueError: something is there that nobody asked to replace, or its folder is not.
    """
    if path.is_dir():
        raise ValueError(f"{option}: {path} is a folder; it takes a file's name")
    if not path.parent.is_dir():
        raise ValueError(f"{option}: there is no folder {path.parent}; make it first")
    if os.path.lexists(path) and not overwrite:
        raise ValueError(
            f"{option}: {path} is there already; another name, or --overwrite to replace it"
        )
    return path


def one_line(error: BaseException) -> str:
    """An error for people; --debug shows where it came from.

    It may quote a file of anybody's: nothing in it is obeyed by the terminal, and it is short.
    """
    text = shown(str(error).strip())
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text:
        return f"out of memory: {text or 'no message'}; a smaller batch or picture may fit"
    if isinstance(error, BAD_INPUT) and text:
        return text
    kind = type(error).__name__
    return f"internal error, {kind}: {text or 'no message'} (--debug shows where)"

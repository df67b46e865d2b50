"""`--shard`: the part of a suite that a process has, by hand or by the launcher's rank."""

from __future__ import annotations

import argparse
import os
from typing import Any


def add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shard", metavar="I/N", help="the I-th of N parts, from 1; default: the launcher's rank"
    )


def shard_of(given: str | None, device: str) -> tuple[tuple[int, int], Any]:
    """The shard (from 0) and the device of this process."""
    if given is None:
        count = int(os.environ.get("WORLD_SIZE", "1"))
        rank = int(os.environ.get("RANK", "0"))
        if device == "cuda" and count > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', rank)}"
        return (rank, count), device
    one, slash, of = given.partition("/")
    if not (slash and one.isdecimal() and of.isdecimal() and 1 <= int(one) <= int(of)):
        raise ValueError(f"--shard: takes I/N with I from 1 to N, such as 2/8, got {given!r}")
    return (int(one) - 1, int(of)), device

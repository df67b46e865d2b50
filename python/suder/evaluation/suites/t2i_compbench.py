"""T2I-CompBench (arXiv 2307.06350): samples/<prompt>_<number>.png, of one category a folder.

Its scorers take for the prompt what stands before the name's first "_", sort by the number after
the last one, and count every file of the folder.
"""

from __future__ import annotations

from pathlib import Path

from suder.evaluation.suites.layout import Item, check_n, check_names
from suder.inputs.files import DataError
from suder.inputs.texts import read_prompts
from suder.storage.shown import named

N = 10
FOLDER = "."


def items(path: Path, n: int = N) -> list[Item]:
    """Of a category's file, a prompt a line. Numbers go on from prompt to prompt, so that the
    scorers' order is ours.

    Raises:
        DataError: a prompt that no file's name holds, or whose scorer would read another.
    """
    check_n("T2I-CompBench", n)
    found: list[Item] = []
    for prompt in read_prompts(path).prompts:
        if "/" in prompt or "_" in prompt:
            raise DataError(
                f"{named(path)}: the prompt {named(prompt)} has a / or _ in it; T2I-CompBench "
                "reads the prompt off the picture's name, up to its first _: take other words"
            )
        first = len(found) * n
        found.append(Item(prompt, tuple(f"samples/{prompt}_{first + i:06d}.png" for i in range(n))))
    return check_names(found, named(path))

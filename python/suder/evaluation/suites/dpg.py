"""DPG-Bench (arXiv 2403.05135): a picture a prompt, named like its file, with four in a grid.

Its `compute_dpg_bench.py` cuts the grid row by row into --pic-num parts of --resolution pixels,
which is 1 if it is not told.
"""

from __future__ import annotations

from pathlib import Path

from suder.evaluation.suites.layout import Item, check_n, check_names
from suder.inputs.files import DataError
from suder.inputs.texts import read_lines
from suder.storage.shown import named

N = 4
FOLDER = "images"


def items(path: Path, n: int = N) -> list[Item]:
    """Of the folder of prompts, a .txt file each.

    Raises:
        DataError: it is no such folder, a file is empty, or has a name that the scorer would cut.
    """
    check_n("DPG-Bench", n, most=4)
    files = sorted(path.glob("*.txt")) if path.is_dir() else []
    if not files:
        raise DataError(f"{named(path)}: takes DPG-Bench's folder of prompts, a .txt file each")
    found = []
    for file in files:
        prompt = " ".join(" ".join(read_lines(file)).split())
        if not prompt or "." in file.stem:
            why = "a second dot in its name, where the scorer ends it" if prompt else "no prompt"
            raise DataError(f"{named(file)}: {why}")
        found.append(Item(prompt, (f"{FOLDER}/{file.stem}.png",)))
    return check_names(found, named(path))

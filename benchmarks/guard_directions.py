"""What the guard kept, by the trained direction whose own rewards had gained least.

    python benchmarks/guard_directions.py runs/experiment runs/emoji runs/digits

Reads what `suder experiment` wrote: its results, and the runs themselves, which packed verdicts do
not hold. A row a cell that kept tuned weights, the least gain first: gain in standard errors and KL
at the round that was kept, and what the labels then said, in points over the start, greedy.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from suder.settings.config_file import load_config
from suder.storage.files import read_jsonl

BOTH = ("generation", "understanding")


def row(cell: dict[str, Any], run: Path) -> tuple[float, str]:
    """The weaker direction's gain, and its line of the table."""
    kept = cell["guard"]["kept_round"]
    look = next(one for one in read_jsonl(run / "metrics.jsonl") if one["round"] == kept)
    asked = load_config(run / "config.yaml").directions
    gains = {
        one: look[f"guard/gain/{one}"] / look[f"guard/error/{one}"]
        for one in ([asked] if asked in BOTH else BOTH)
    }
    weaker = min(gains, key=gains.__getitem__)
    judged = {one: 100 * cell["greedy"][one]["difference"] for one in BOTH}
    name = f"{cell['start']}, {cell['arm']}, seed {cell['seed']}"
    return gains[weaker], (
        f"| {name} | {weaker} | {gains[weaker]:+.1f} | {look[f'guard/kl/{weaker}']:.3f} "
        f"| {judged[weaker]:+.1f} | {sum(judged.values()) / 2:+.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", type=Path, nargs="+", help="folders of `suder experiment`")
    rows = []
    for folder in parser.parse_args().experiments:
        for cell in json.loads((folder / "results.json").read_text())["cells"]:
            if cell["guard"]["kept_round"]:
                start = Path(cell["start"]).name
                name = f"{cell['arm']}.{start}.seed{cell['seed']}"
                rows.append(row(cell, folder / "cells" / name / "run"))
    print("| cell | weaker direction | its gain | its KL | judged | mean of both |")
    print("| --- | --- | --- | --- | --- | --- |")
    print("\n".join(line for _, line in sorted(rows)))


if __name__ == "__main__":
    main()

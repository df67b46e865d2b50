"""The picture of the README: the first TEST prompts, drawn greedily before and after training.

    python benchmarks/plot_before_after.py runs/experiment --arm grpo --start shapes --seed 1

reads what `suder experiment` left in that folder. Nothing is picked: the prompts are the first of
the evaluation, and a frame is green where the checker found the picture right.
"""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

COLUMNS = 12
RIGHT, WRONG = "#2a9d4a", "#d1342f"


def draw(axis: plt.Axes, items: dict[str, np.ndarray], item: int) -> None:
    axis.imshow(items["generation/pictures"][item], interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    right = bool(items["generation/judged/correct"][item])
    axis.spines[:].set(color=RIGHT if right else WRONG, linewidth=2.2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="folder of `suder experiment`")
    parser.add_argument("--arm", default="grpo")
    parser.add_argument("--start", default="shapes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/before_after.png"))
    args = parser.parse_args()
    cells = args.experiment / "cells"
    before = np.load(cells / f"start.{args.start}" / "greedy.npz")
    after = np.load(cells / f"{args.arm}.{args.start}.seed{args.seed}" / "greedy.npz")

    figure = plt.figure(figsize=(COLUMNS * 1.15, 5.9), dpi=100)
    blocks = figure.add_gridspec(2, 1, hspace=0.22)
    for block in range(2):
        axes = blocks[block].subgridspec(2, COLUMNS, wspace=0.06, hspace=0.06).subplots()
        for row, (items, name) in enumerate(((before, "start"), (after, "tuned"))):
            axes[row, 0].set_ylabel(name)
            for column in range(COLUMNS):
                item = block * COLUMNS + column
                draw(axes[row, column], items, item)
                if row == 0:
                    prompt = textwrap.fill(str(items["generation/inputs"][item]), 15)
                    axes[row, column].set_title(prompt, fontsize=7)
    figure.savefig(args.out, bbox_inches="tight", pad_inches=0.08)


if __name__ == "__main__":
    main()

"""Scanned digits: greedy pictures beside sharpened draws, over a run's checkpoints.

    suder pretrain --world digits --output runs/digits/start
    suder train --model runs/digits/start --images DIR --prompts FILE --output runs/digits/gen \
        rounds=80 directions=generation checkpoint.every=20 checkpoint.keep=50
    python benchmarks/near_greedy.py runs/digits/start runs/digits/gen

There are ten prompts and so ten greedy pictures. A line a checkpoint: which of them are right (#),
then the share right, in percent, of 480 draws at each temperature.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import suder
from suder.evaluation.digit_judge import read_digits
from suder.world.digits import NAMES, prompt

TEMPERATURES = (0.1, 0.2, 0.4, 0.7, 1.0)
DRAWS = 48  # a prompt


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", help="the digits' start model")
    parser.add_argument("run", type=Path, help="a run of it, with checkpoints")
    args = parser.parse_args()
    prompts = [prompt(digit) for digit in range(len(NAMES))]
    asked = np.arange(len(NAMES))
    print(f"{'model':12} {'greedy':10} " + " ".join(f"T={one:<4}" for one in TEMPERATURES))
    checkpoints = sorted((args.run / "checkpoints").glob("0*"))
    for folder in [args.start, *checkpoints, args.run / "model"]:
        model = suder.load_model(folder)

        def right(n: int, model: suder.UnifiedModel = model, **how: float) -> np.ndarray:
            drawn = suder.sample(model, "generation", prompts, n=n, seed=5, **how)
            read = read_digits(np.asarray(model.decode(drawn.tokens)))
            return read.reshape(len(prompts), n) == asked[:, None]

        greedy = "".join("#" if one else "." for one in right(1, greedy=True)[:, 0])
        shares = [100 * right(DRAWS, temperature=one).mean() for one in TEMPERATURES]
        print(f"{Path(folder).name:12} {greedy:10} " + " ".join(f"{one:6.1f}" for one in shares))


if __name__ == "__main__":
    main()

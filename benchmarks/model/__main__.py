"""Predictions of a card's times.

    python -m benchmarks.model --gpu h200     the kernels as they are
    python -m benchmarks.model --rounds       the sampler's steps and whole rounds, in five minutes
    python -m benchmarks.model --calibrate    the first run on a card beside the model of that day

The constants of the first run's kernels give its figures within 10%.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from benchmarks.model import CARDS, calibration, predictions
from benchmarks.model.code import NOW
from benchmarks.model.predictions import table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpu", choices=CARDS, default="h100")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--rounds", action="store_true", help="on an H100 and an H200")
    parser.add_argument("--json", type=Path, help="also write the predictions here")
    arguments = parser.parse_args()
    if arguments.rounds:
        from benchmarks.model import round_table  # the rest needs neither torch nor a model

        for line in round_table.lines():
            print(line, flush=True)
        return
    if arguments.calibrate:
        for name, shape, measured, modelled in calibration():
            off = 100 * (modelled / measured - 1)
            print(f"{name:<34}{shape:<18}{measured:>8.3f}{modelled:>8.3f}{off:>+7.1f}%")
        return
    # The L40's blocks have too little shared memory for a kernel that keeps anything.
    code = replace(NOW, kept=0.0) if arguments.gpu == "l40" else NOW
    works = predictions(CARDS[arguments.gpu], code)
    print(table(works))
    if arguments.json:
        rows = [{**vars(w), "tflops": w.tflops} for w in works]
        temporary = arguments.json.with_suffix(".tmp")
        temporary.write_text(json.dumps({"gpu": arguments.gpu, "predictions": rows}, indent=1))
        temporary.replace(arguments.json)


if __name__ == "__main__":
    main()

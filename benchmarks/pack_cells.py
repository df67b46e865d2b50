"""What an experiment's tables are made of, in one file: every item's verdict, of every cell.

    python benchmarks/pack_cells.py runs/experiment benchmarks/results/shapes_cells.tar.xz

To have its tables again, or to go on with cells that are not there yet (weights are not kept):

    mkdir -p runs/experiment && tar xf benchmarks/results/shapes_cells.tar.xz -C runs/experiment
    suder experiment --output runs/experiment --table-only
"""

from __future__ import annotations

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np

JUDGED = ("greedy.npz", "sampled.npz", "t[0-9]*.npz")
TOLD = ("cell.json", "fingerprint.json", "result.json", ".suder")


def without_pictures(path: Path) -> bytes:
    with np.load(path) as arrays:
        kept = {name: arrays[name] for name in arrays}
    kept |= {name: value[:0] for name, value in kept.items() if name.endswith("/pictures")}
    packed = io.BytesIO()
    np.savez(packed, **kept)  # not compressed: xz finds what the cells have in common
    return packed.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="folder of `suder experiment`")
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    finished = sorted(path.parent for path in args.experiment.glob("cells/*/result.json"))
    files = [args.experiment / ".suder"]
    for cell in finished:
        files += [cell / name for name in TOLD]
        files += sorted(path for kind in JUDGED for path in cell.glob(kind))
    with tarfile.open(args.out, "w:xz") as packed:
        for path in files:
            content = without_pictures(path) if path.suffix == ".npz" else path.read_bytes()
            entry = tarfile.TarInfo(str(path.relative_to(args.experiment)))
            entry.size, entry.mode = len(content), 0o644
            packed.addfile(entry, io.BytesIO(content))
    print(f"{len(finished)} cells, {args.out.stat().st_size / 2**20:.2f} MiB: {args.out}")


if __name__ == "__main__":
    main()

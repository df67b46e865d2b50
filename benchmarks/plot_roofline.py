"""A roofline of linear_logprob, from the record that bench_linear_logprob.py --json writes.

    python benchmarks/bench_linear_logprob.py --json linear.json
    python benchmarks/plot_roofline.py linear.json --out benchmarks/results/roofline.png

The roof is the multiply-add loop of the same run and, to its left, `--bandwidth` times the
operations a byte (hidden, weight and gradients counted once each).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MARKS = {"ours": "o", "ours, fwd+bwd": "s", "torch.mm": "x", "full logits, fwd+bwd": "+"}


def intensity(row: dict) -> float:
    """Operations a byte that must move at least once."""
    tokens, features, vocab = map(int, row["shape"].split("x"))
    matrices = BYTES[row["dtype"]] * features * (tokens + vocab)
    backward = row["name"].endswith("fwd+bwd")
    return 2 * tokens * features * vocab * (3 if backward else 1) / (matrices * (2 + backward - 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bandwidth", type=float, default=20.0, help="GB/s, by bench_logits.py")
    args = parser.parse_args()
    record = json.loads(args.record.read_text())
    rows = [row for row in record["rows"] if row.get("name") in MARKS]
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
    left, right = 2.0, 2.0 * max(map(intensity, rows))
    for color, dtype in zip(("tab:blue", "tab:orange"), ("bfloat16", "float32"), strict=True):
        some = [row for row in rows if row["dtype"] == dtype]
        if not some:
            continue
        peak = some[0]["peak_gflops"]
        corner = peak / args.bandwidth
        axes.plot(
            [left, corner, right],
            [left * args.bandwidth, peak, peak],
            color=color,
            label=f"{dtype}: multiply-adds alone, {peak:.0f} GFLOP/s",
        )
        for name, mark in MARKS.items():
            points = [(intensity(r), r["gflops"]) for r in some if r["name"] == name]
            if points:
                axes.scatter(*zip(*points, strict=True), color=color, marker=mark, s=36)
    for name, mark in MARKS.items():
        axes.scatter([], [], color="gray", marker=mark, label=name)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="GFLOP/s")
    axes.set_title(f"linear_logprob, {record['processor']}, {record['threads']} thread(s)")
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(args.out, dpi=130)


if __name__ == "__main__":
    main()

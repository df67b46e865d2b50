"""One diagram a script: times as multiples of ours, a line a case."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.suite.ask import Row

OURS, LIMIT = "#0b6e8a", "#8a949c"
PEERS = ("#b8412f", "#d08a1d", "#6a4c93", "#2d7d46", "#7a4a2b")
MARKS = "osD^v"


def chart(rows: list[Row]) -> bytes:
    """A PNG of the rows of one script; narrow, so that a phone shows it legibly."""
    timed = [row for row in rows if "ratio" in row]
    cases = list(dict.fromkeys(row["case"] for row in timed))
    figure = Figure(figsize=(5.2, 1.3 + 0.5 * len(cases)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axvline(1.0, color=OURS, linewidth=2, label="ours")
    names = list(dict.fromkeys(row["name"] for row in timed if row["role"] != "ours"))
    peers = [
        name for name in names if any(r["name"] == name and r["role"] == "peer" for r in timed)
    ]
    for name in names:
        here = [row for row in timed if row["name"] == name and row["role"] != "ours"]
        at = [cases.index(row["case"]) for row in here]
        if name in peers:
            i = peers.index(name)
            look = {"color": PEERS[i % len(PEERS)], "marker": MARKS[i % len(MARKS)]}
        else:
            look = {"color": LIMIT, "marker": "|"}
        axes.scatter([row["ratio"] for row in here], at, label=name, s=34, zorder=3, **look)
    # Above its line, not beside the axes: a phone has no room there.
    for i, case in enumerate(cases):
        axes.text(
            0.0, i - 0.3, case, fontsize=9, zorder=4, transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )  # fmt: skip
    axes.set_yticks([])
    axes.set_ylim(len(cases) - 0.6, -0.75)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=6))
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5), max(high, 2.0))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}x")
    axes.set_xlabel("time as a multiple of ours; right of 1x ours is faster", fontsize=9)
    axes.grid(axis="x", color="#e7ebee")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()

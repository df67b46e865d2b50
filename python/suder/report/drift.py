"""What no reward contains, round by round, with the band that the start's own spread allows."""

from __future__ import annotations

import matplotlib

from suder.report.curves import DIRECTIONS, NAMES
from suder.report.figures import STYLE, legend, new_figure, png, rounds_axis
from suder.report.run_data import RunData

# In the order of the page: metric and title.
PANELS = (
    ("dark/generation", "dark pixels"),
    ("saturated/generation", "saturated pixels"),
    ("edges/generation", "edges"),
    ("colours/generation", "entropy of colours, nats"),
    ("distinct/generation", "distinct pictures of a prompt"),
    ("denied/generation", "pictures the start model denies"),
    ("length/understanding", "length of captions, tokens"),
    ("words/understanding", "distinct words of a caption"),
    ("cut_off/understanding", "captions cut off"),
    ("distinct/understanding", "distinct captions of a picture"),
    ("denied/understanding", "captions the start model denies"),
)
_COLUMNS = 3


def statistic_curves(run: RunData) -> str:
    """A panel for each statistic that the guard logged; "" where there is none."""
    there = [(name, title) for name, title in PANELS if run.series(f"guard/{name}")[0]]
    if not there:
        return ""
    kept = run.summary.kept_round if run.summary else None
    rows = -(-len(there) // _COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 0.4 + 1.9 * rows)
        for place, (name, title) in enumerate(there):
            axis = figure.add_subplot(rows, _COLUMNS, place + 1)
            statistic, direction = name.split("/")
            at, values = run.series(f"guard/{name}")
            color = DIRECTIONS[direction]
            axis.plot(at, values, "o-", color=color, markersize=3, label=NAMES[direction])
            _, band = run.series(f"guard/{statistic}_band/{direction}")
            if band and at[0] == 0:
                low, high = values[0] - band[0], values[0] + band[0]
                axis.axhspan(low, high, color="#8a949c", alpha=0.18, linewidth=0, label="allowed")
            if kept is not None:
                axis.axvline(kept, color="#444c52", linewidth=1, linestyle=":", label="kept")
            axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
            rounds_axis(axis, labelled=place >= len(there) - _COLUMNS)
        legend(figure)
        return png(figure)

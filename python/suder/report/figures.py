"""How every diagram of a page looks, and a figure as the text of the page."""

from __future__ import annotations

import base64
import io
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

STYLE: Any = {
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a949c",
    "axes.labelcolor": "#444c52",
    "xtick.color": "#444c52",
    "ytick.color": "#444c52",
    "axes.grid": True,
    "grid.color": "#e7ebee",
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
}


def new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rounds_axis(axis: Any, labelled: bool = True) -> None:
    """The x axis counts rounds: there is none between two."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if labelled:
        axis.set_xlabel("round")


def legend(figure: Figure) -> None:
    """Of all the figure's axes, each label once."""
    found = [axis.get_legend_handles_labels() for axis in figure.axes]
    named = {
        label: handle
        for handles, labels in found
        for handle, label in zip(handles, labels, strict=True)
    }
    labels = list(named)
    if labels:
        figure.legend(
            [named[one] for one in labels],
            labels,
            loc="outside lower center",
            ncols=len(labels),
            frameon=False,
        )


def png(figure: Figure) -> str:
    """A figure as the text of a data URL."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

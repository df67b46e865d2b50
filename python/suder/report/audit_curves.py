"""The audit's diagrams: partners, lengths, spread inside groups."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np

from suder.audit.measure import Audit
from suder.report.curves import BASE, DIRECTIONS
from suder.report.figures import STYLE, new_figure, png

TITLES = {"understanding": "R_U, captions of a picture", "generation": "R_G, pictures of a prompt"}


def partner_diagram(found: Audit) -> str:
    """Rewards of matching and of shuffled partners, as histograms."""
    return _pair(found, _partners, "reward, nats a token", 2.6)


def length_diagram(found: Audit) -> str:
    """Wrong captions' rewards by their length, each less the mean of its picture's."""
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, 2.6)
        axis = figure.add_subplot(1, 2, 1)
        partners = found.partners["understanding"]
        wrong = partners.reward[1:]
        known = np.isfinite(wrong)
        count = np.maximum(known.sum(0), 1)
        axis.plot(
            partners.length[1:][known],
            (wrong - np.where(known, wrong, 0).sum(0) / count)[known],
            "o", color=DIRECTIONS["understanding"], alpha=0.3, markersize=3,
        )  # fmt: skip
        axis.set_title("wrong captions of a picture", loc="left", fontweight="bold")
        axis.set_xlabel("caption, tokens")
        axis.set_ylabel("R_U less its mean")
        axis = figure.add_subplot(1, 2, 2)
        groups = found.groups["understanding"]
        reward = groups.reward
        known = np.isfinite(reward)
        count = np.maximum(known.sum(1, keepdims=True), 1)
        axis.plot(
            groups.length[known],
            (reward - np.where(known, reward, 0).sum(1, keepdims=True) / count)[known],
            "o", color=DIRECTIONS["understanding"], alpha=0.3, markersize=3,
        )  # fmt: skip
        axis.set_title("the model's captions, inside groups", loc="left", fontweight="bold")
        axis.set_xlabel("caption, tokens")
        return png(figure)


def spread_diagram(found: Audit) -> str:
    """Each group's rewards, sorted by the best."""
    return _pair(found, _groups, "group, by its best", 2.6)


def _pair(found: Audit, draw: Any, label: str, height: float) -> str:
    with matplotlib.rc_context(STYLE):
        figure = new_figure(10, height)
        for place, (direction, title) in enumerate(TITLES.items()):
            axis = figure.add_subplot(1, 2, place + 1)
            draw(axis, found, direction)
            axis.set_title(title, loc="left", fontweight="bold")
            axis.set_xlabel(label)
        return png(figure)


def _partners(axis: Any, found: Audit, direction: str) -> None:
    reward = found.partners[direction].reward  # type: ignore[index]
    known = reward[np.isfinite(reward)]
    bins = np.linspace(known.min(), known.max() + 1e-9, 25) if known.size else 10
    shown = [
        ("shuffled", reward[1:][np.isfinite(reward[1:])], BASE),
        ("matching", reward[0][np.isfinite(reward[0])], DIRECTIONS[direction]),
    ]
    for name, values, color in shown:
        if len(values):
            weights = np.full(len(values), 100 / len(values))
            axis.hist(values, bins, weights=weights, color=color, alpha=0.75, label=name)
    axis.set_ylabel("% of each")
    if known.size:
        axis.legend(frameon=False, loc="upper left")


def _groups(axis: Any, found: Audit, direction: str) -> None:
    reward = found.groups[direction].reward  # type: ignore[index]
    best = np.where(np.isfinite(reward), reward, -np.inf).max(1)
    for place, row in enumerate(np.argsort(-best)):
        values = reward[row][np.isfinite(reward[row])]
        axis.plot(np.full(len(values), place), values, "_", color=DIRECTIONS[direction])
    axis.set_ylabel("reward, nats a token")

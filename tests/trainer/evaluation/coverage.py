"""How often each kind of interval holds the truth: simulated evaluations whose truth is known.

    python -m tests.trainer.evaluation.coverage [trials]      a table, about three minutes for 1000

A nominal 95% should hold it 95 times in 100. Beside ours stands the percentile interval of the
bootstrap over clusters, start by start, which this project used before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from suder.evaluation.pooling import pooled_interval
from suder.evaluation.statistics import (
    Interval,
    mean_interval,
    paired_interval,
    reward_accuracy,
)

RESAMPLES = 400  # of the old interval
# Rare changes, all one way, gathered in a few of ten prompts: what was not seen cannot be told.
HARDEST = "digits, 0% better, 5% worse, correlation 0.4"
Sums = tuple[np.ndarray, np.ndarray, np.ndarray]  # numerators, denominators, clusters
Draw = Callable[[np.random.Generator], tuple[Interval, Sums]]


class Scenario(NamedTuple):
    """`draw` simulates one evaluation: our interval of it, and what the old one is made of."""

    kind: str
    name: str
    truth: float
    draw: Draw


def digits(rng: np.random.Generator) -> np.ndarray:
    return np.repeat(np.arange(10), 60)


def scans(rng: np.random.Generator) -> np.ndarray:
    return np.arange(600)


def shapes(rng: np.random.Generator) -> np.ndarray:
    """As many items of a combination as chance gives: few have one, some have a dozen."""
    return np.repeat(np.arange(105), rng.integers(2, 18, size=105))


def counting(rng: np.random.Generator) -> np.ndarray:
    return np.repeat(np.arange(8), rng.integers(8, 28, size=8))


def scenarios() -> Iterator[Scenario]:
    for items, mean, alike in (
        (digits, 0.5, 0.1),
        (digits, 0.8, 0.4),
        (digits, 0.9, 1.0),  # greedy pictures: all of a prompt are the same
        (counting, 0.8, 0.1),
        (shapes, 0.7, 0.2),
        (shapes, 0.95, 0.2),
        (scans, 0.85, 0.0),
    ):
        name = f"{items.__name__}, {mean:.0%} right, correlation {alike:g}"
        yield Scenario("fraction", name, mean, _fraction(items, mean, alike))
    for items, up, down, alike in (
        (digits, 0.20, 0.05, 0.1),
        (digits, 0.10, 0.10, 1.0),
        (digits, 0.00, 0.05, 0.4),  # `HARDEST`
        (counting, 0.20, 0.05, 0.1),
        (shapes, 0.20, 0.05, 0.2),
        (shapes, 0.02, 0.02, 0.2),
        (scans, 0.03, 0.05, 0.0),
    ):
        name = f"{items.__name__}, {up:.0%} better, {down:.0%} worse, correlation {alike:g}"
        yield Scenario("difference", name, up - down, _difference(items, up, down, alike))
    for items, starts, seeds, spread in (
        (shapes, 2, 3, 0.0),
        (shapes, 2, 3, 0.01),
        (shapes, 2, 3, 0.027),
        (scans, 2, 3, 0.027),
        (scans, 1, 3, 0.027),
        (digits, 1, 3, 0.027),
        (shapes, 2, 2, 0.027),
    ):
        name = f"{items.__name__}, {starts} starts x {seeds} seeds, {100 * spread:g} points a seed"
        yield Scenario("pooled", name, 0.10, _pooled(items, starts, seeds, spread))
    for prompts, groups, edge in ((100, 10, 3.0), (10, 20, 1.0), (10, 20, 3.0)):
        name = f"{prompts} prompts x {groups} groups of 8, right {edge:g} above wrong"
        truth = _ratio(*_groups(np.random.default_rng(0), 40_000, 1, edge)[:2])
        yield Scenario("reward accuracy", name, truth, _reward(prompts, groups, edge))


def chances(rng: np.random.Generator, mean: float, alike: float, count: int) -> np.ndarray:
    """One a cluster, such that its items are correlated by `alike`."""
    if alike in (0.0, 1.0) or mean in (0.0, 1.0):
        return (rng.random(count) < mean) * 1.0 if alike == 1.0 else np.full(count, mean)
    total = (1 - alike) / alike
    return rng.beta(mean * total, (1 - mean) * total, size=count)


def percentile(top: np.ndarray, bottom: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """The old interval: clusters drawn with replacement, the middle 95% of what they give."""
    tops, bottoms = np.bincount(clusters, weights=top), np.bincount(clusters, weights=bottom)
    drawn = np.random.default_rng(0).multinomial(
        len(tops), np.full(len(tops), 1 / len(tops)), size=RESAMPLES
    )
    below = drawn @ bottoms
    low, high = np.quantile((drawn @ tops)[below > 0] / below[below > 0], [0.025, 0.975])
    return float(low), float(high)


def _fraction(items: Any, mean: float, alike: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Interval, Sums]:
        clusters = items(rng)
        right = rng.random(len(clusters)) < chances(rng, mean, alike, clusters[-1] + 1)[clusters]
        return mean_interval(right, clusters), (right * 1.0, np.ones(len(clusters)), clusters)

    return draw


def _difference(items: Any, up: float, down: float, alike: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Interval, Sums]:
        clusters = items(rng)
        count = clusters[-1] + 1
        changed = rng.random(len(clusters)) < chances(rng, up + down, alike, count)[clusters]
        lot = rng.random(count)[clusters] if alike == 1.0 else rng.random(len(clusters))
        better = lot < up / (up + down)
        base = np.where(changed, ~better, rng.random(len(clusters)) < 0.5)
        tuned = np.where(changed, better, base)
        sums = tuned * 1.0 - base, np.ones(len(clusters)), clusters
        return paired_interval(base, tuned, clusters), sums

    return draw


def _pooled(items: Any, starts: int, seeds: int, spread: float) -> Draw:
    """Each start has its base; each run its own luck, items their own gain, the same for all."""

    def draw(rng: np.random.Generator) -> tuple[Interval, Sums]:
        clusters = items(rng)
        count, runs = clusters[-1] + 1, np.repeat(np.arange(starts), seeds)
        gain = rng.normal(0.1, 0.08, count)
        found = []
        for start in range(starts):
            chance = np.clip(0.55 + 0.05 * start + rng.normal(0, 0.1, count), 0.1, 0.8)
            base = rng.random(len(clusters)) < chance[clusters]
            for _ in range(seeds):
                own = gain + rng.normal(0, spread) + rng.normal(0, 0.04, count)
                tuned = rng.random(len(clusters)) < (chance + own)[clusters]
                found.append(tuned * 1.0 - base)
        differences = np.stack(found)
        apart = np.concatenate([clusters + count * run for run in runs])
        sums = differences.ravel(), np.ones(differences.size), apart
        return pooled_interval(differences, runs.tolist(), clusters), sums

    return draw


def _groups(
    rng: np.random.Generator, prompts: int, groups: int, edge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards and truth `[prompts * groups, 8]`: some prompts are hard, and some hard to tell."""
    clusters = np.repeat(np.arange(prompts), groups)
    correct = rng.random((len(clusters), 8)) < rng.beta(2, 1, prompts)[clusters, None]
    told = edge * rng.uniform(0.5, 1.5, prompts)[clusters, None]
    return rng.normal(size=correct.shape) + told * correct, correct, clusters


def _ratio(reward: np.ndarray, correct: np.ndarray) -> float:
    pair = correct[:, :, None] & ~correct[:, None, :]
    return float((pair & (reward[:, :, None] > reward[:, None, :])).sum() / pair.sum())


def _reward(prompts: int, groups: int, edge: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[Interval, Sums]:
        reward, correct, clusters = _groups(rng, prompts, groups, edge)
        pair = correct[:, :, None] & ~correct[:, None, :]
        won = (pair & (reward[:, :, None] > reward[:, None, :])).sum((1, 2)) * 1.0
        sums = won, pair.sum((1, 2)) * 1.0, clusters
        return reward_accuracy(reward, correct, clusters.tolist()), sums

    return draw


def coverage(scenario: Scenario, trials: int, old: bool = True) -> tuple[list[float], list[float]]:
    """Share of trials whose interval holds the truth, ours and the old; their mean widths."""
    rng = np.random.default_rng(0)
    ends = np.full((trials, 2, 2), np.nan)
    for trial in range(trials):
        ours, sums = scenario.draw(rng)
        ends[trial, 0] = ours.low, ours.high
        if old:
            ends[trial, 1] = percentile(*sums)
    low, high = ends[..., 0], ends[..., 1]
    held = (low - 1e-9 <= scenario.truth) & (scenario.truth <= high + 1e-9)
    return held.mean(0).tolist(), (high - low).mean(0).tolist()


def main(trials: int) -> None:
    print("| kind | simulated | covers | width, points | bootstrap covers | width |")
    print("| --- | --- | --- | --- | --- | --- |")
    for scenario in scenarios():
        (ours, old), (width, before) = coverage(scenario, trials)
        cells = f"{ours:.1%} | {100 * width:.1f} | {old:.1%} | {100 * before:.1f}"
        print(f"| {scenario.kind} | {scenario.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)

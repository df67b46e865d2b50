"""How often the guard is wrong by chance, and what it sees: simulated runs through its own rule.

    python benchmarks/guard_chances.py [--runs 4000]

A run is `looks` looks at 51 inputs of each direction. Each input's change to the start is normal
with a correlation between neighbouring looks (first-order autoregressive: the weights wander on),
or a common part of all looks (the inputs are the same). `gain` is the true gain of both directions
at the last look, in standard errors of one look, growing evenly from nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from suder.guard.look import Change, Look
from suder.guard.rule import Guard
from suder.models.base import DIRECTIONS
from suder.settings.keeping import Guard as Settings

INPUTS, EVERY = 51, 20
STATISTICS = [f"generation/{one}" for one in ("dark", "saturated", "edges", "colours", "distinct")]
STATISTICS += [f"understanding/{one}" for one in ("length", "words", "cut_off", "distinct")]
ERROR = INPUTS**-0.5  # of one look's mean change


def changes(
    rng: np.random.Generator, looks: int, correlation: float, shared: bool, gain: float = 0.0
) -> Iterator[tuple[float, float]]:
    """Each look's mean change and its standard error."""
    noise = rng.standard_normal((looks, INPUTS))
    if shared:
        noise = (1 - correlation) ** 0.5 * noise + correlation**0.5 * rng.standard_normal(INPUTS)
    else:
        for look in range(1, looks):
            kept = correlation * noise[look - 1]
            noise[look] = kept + (1 - correlation**2) ** 0.5 * noise[look]
    noise += gain * ERROR * np.arange(1, looks + 1)[:, None] / looks
    mean, error = noise.mean(1), noise.std(1, ddof=1) * ERROR
    yield from zip(mean.tolist(), error.tolist(), strict=True)


def simulate(
    rng: np.random.Generator,
    looks: int,
    correlation: float,
    *,
    shared: bool = False,
    gain: float = 0.0,
    patience: int = 2,
    watched: bool = True,
) -> tuple[Guard, bool, bool]:
    """A run: its guard, whether it was stopped, and whether one look's 1.64 had kept weights.

    Args:
        watched: no spread is allowed for, so that chance alone decides what is a decline; False:
            any spread is, so that it alone decides what is kept.
    """
    spread = 0.0 if watched else np.inf
    guard = Guard(Settings(patience=patience, every=EVERY), DIRECTIONS, rounds=looks * EVERY)
    how = looks, correlation, shared
    rewards = [list(changes(rng, *how, gain)) for _ in DIRECTIONS]
    others = [list(changes(rng, *how)) for _ in STATISTICS] if watched else []
    nothing = dict.fromkeys(DIRECTIONS, 0.0)
    kl, entropy = nothing, dict.fromkeys(DIRECTIONS, 1.0)
    start = {one: Change(0.0, 0.0, 0.0, INPUTS, spread) for one in DIRECTIONS}
    guard.judge(Look(0, kl, entropy, start))
    naive = stopped = False
    for look in range(looks):
        seen = [Change(0.0, *one[look], INPUTS, spread) for one in rewards + others]
        reward = dict(zip(DIRECTIONS, seen, strict=False))
        statistics = dict(zip(STATISTICS, seen[len(DIRECTIONS) :], strict=False))
        both = sum(one.change / one.error for one in reward.values()) / 2**0.5
        naive |= both > 1.64
        stopped = guard.judge(Look((look + 1) * EVERY, kl, entropy, reward, statistics)) == "stop"
        if stopped:
            break
    return guard, stopped, naive


def rates(seed: int, runs: int, looks: int, correlation: float, shared: bool) -> tuple[float, ...]:
    """Of runs without any gain: kept by chance, by one look's 1.64, and stopped by chance."""
    rng = np.random.default_rng(seed)
    how = {"shared": shared}
    alone = [simulate(rng, looks, correlation, watched=False, **how) for _ in range(runs)]
    kept = sum(guard.best > 0 for guard, _, _ in alone) / runs
    naive = sum(one for _, _, one in alone) / runs
    watched = [simulate(rng, looks, correlation, patience=1, **how) for _ in range(runs)]
    return kept, naive, sum(stopped for _, stopped, _ in watched) / runs


def power(seed: int, runs: int, looks: int, correlation: float, gain: float) -> float:
    """How often a run with a true gain ends with tuned weights."""
    rng = np.random.default_rng(seed)
    found = (simulate(rng, looks, correlation, gain=gain, watched=False) for _ in range(runs))
    return sum(guard.best > 0 for guard, _, _ in found) / runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4000)
    runs = parser.parse_args().runs
    print(f"no true gain, {runs} runs each: kept by chance, by one look's 1.64, stopped by chance")
    for looks in (12, 36):
        for shared in (False, True):
            for correlation in (0.0, 0.5, 0.8, 0.95):
                kept, naive, stopped = rates(1, runs, looks, correlation, shared)
                kind = "shared" if shared else "neighbours"
                print(
                    f"{looks} looks, {kind:<10} {correlation:<4}: "
                    f"{kept:6.1%} {naive:6.1%} {stopped:6.1%}"
                )
    print("tuned weights kept, by the true gain of each direction at the end in standard errors")
    for looks in (12, 36):
        row = [power(2, runs // 4, looks, 0.8, gain) for gain in (1.0, 2.0, 3.0, 4.0)]
        print(f"{looks} looks, 1 2 3 4: " + " ".join(f"{one:6.1%}" for one in row))


if __name__ == "__main__":
    main()

"""The guard's rule: what it keeps, and when it acts."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from suder.guard.chance import keep_bound
from suder.guard.look import Change, Look
from suder.guard.rule import Guard
from suder.models.base import DIRECTIONS
from suder.settings.keeping import Guard as Settings

ROUNDS = 240
# Of the start: means and spreads.
STATISTICS = {
    "generation/dark": (0.2, 0.1),
    "generation/distinct": (0.8, 0.2),
    "understanding/cut_off": (0.01, 0.05),
}


def look(
    round_index: int,
    kl: float = 0.1,
    gain: float = 0.2,
    caption_gain: float = 0.0,
    entropy: float = 2.0,
    error: float = 0.02,
    **moved: float,
) -> Look:
    """`moved`: changes of statistics, by the names after the slash."""

    def change(start: float, by: float, spread: float = 1.0) -> Change:
        return Change(start + by, by, error, 1000, spread)

    return Look(
        round=round_index,
        kl={"understanding": 0.05, "generation": kl},
        entropy={"understanding": 1.0, "generation": entropy},
        reward={"understanding": change(-3.0, caption_gain), "generation": change(-2.0, gain)},
        statistics={
            name: change(start, moved.get(name.split("/")[1], 0.0), spread)
            for name, (start, spread) in STATISTICS.items()
        },
    )


def judged(settings: Settings, *looks: Look) -> tuple[Guard, list[str]]:
    guard = Guard(settings, DIRECTIONS, ROUNDS)
    return guard, [guard.judge(one) for one in (look(0, kl=0.0, gain=0.0), *looks)]


def test_latest_good_weights_are_kept() -> None:
    guard, verdicts = judged(Settings(), look(10), look(20, gain=0.15), look(30, gain=-0.01))
    assert verdicts == ["keep", "keep", "keep", "hold"]
    assert guard.best == 20


@pytest.mark.parametrize(
    ("drawing", "captions", "verdict"),
    [
        (4.8, 0.0, "keep"),  # 4.8 / sqrt(2) = 3.4; the first of 12 looks takes 3.2
        (4.2, 0.0, "hold"),  # 3.0
        (2.4, 2.4, "keep"),  # two hints are evidence together
        (9.0, -1.9, "keep"),
        (9.0, -2.1, "hold"),  # better pictures do not pay for worse captions
    ],
)
def test_kept_on_evidence_only(drawing: float, captions: float, verdict: str) -> None:
    gains = {"gain": 0.02 * drawing, "caption_gain": 0.02 * captions}
    _, verdicts = judged(Settings(), look(20, **gains))
    assert verdicts[1] == verdict


def test_later_looks_take_less_evidence() -> None:
    """A level's share grows with the look, for gains do; all shares together are the level."""
    hint = {"gain": 0.02 * 3.6, "caption_gain": 0.0}  # 2.5 standard errors
    _, verdicts = judged(Settings(), look(20, **hint), look(240, **hint))
    assert verdicts[1:] == ["hold", "keep"]
    assert keep_bound(0.05, 1, 12) > 3.2
    assert keep_bound(0.05, 12, 12) < 2.5


def test_what_is_not_trained_is_no_evidence() -> None:
    """A direction that only drifts may please the start model more and draw worse."""
    guard = Guard(Settings(), ("understanding",), ROUNDS)
    far = {"kl": 0.005, "gain": 0.3}
    drift = [look(0, kl=0.0, gain=0.0), look(20, **far), look(40, **far, caption_gain=0.08)]
    assert [guard.judge(one) for one in drift] == ["keep", "hold", "keep"]
    worse = Guard(Settings(), ("understanding",), ROUNDS)
    drift = [look(0, kl=0.0, gain=0.0), look(20, kl=0.005, gain=-0.05, caption_gain=0.3)]
    assert [worse.judge(one) for one in drift] == ["keep", "hold"]
    assert worse.note == "held: generation reward under the start model may be down by 0.050"


def test_what_is_not_trained_stays_near_the_start() -> None:
    """Its KL has far less noise than a reward: it sees a drift before anything else does."""
    better = {"gain": 0.0, "caption_gain": 0.3}
    for kl, verdict in ((0.009, "keep"), (0.011, "hold")):
        guard = Guard(Settings(), ("understanding",), ROUNDS)
        assert [guard.judge(look(0)), guard.judge(look(20, kl=kl, **better))][1] == verdict
    assert guard.note == "held: generation is not trained, and 0.011 nats a token from the start"
    joint = Guard(Settings(), DIRECTIONS, ROUNDS)
    assert [joint.judge(look(0)), joint.judge(look(20, kl=0.2, **better))][1] == "keep"


def test_noise_below_the_start_is_no_decline() -> None:
    """A run that has not improved yet is not stopped for it."""
    noise = [look(20 * i, gain=-0.03) for i in range(1, 6)]
    guard, verdicts = judged(Settings(patience=1), *noise)
    assert guard.note == (
        "held: rewards better than the start's by only -1.1 standard errors, and 2.7 are beyond "
        "chance"
    )
    assert verdicts[1:] == ["hold"] * 5
    assert (guard.best, guard.declines) == (0, 0)


@pytest.mark.parametrize(
    ("moved", "verdict", "note"),
    [
        ({"dark": 0.04}, "keep", "kept"),  # less than half the start's spread
        ({"dark": 0.06}, "hold", "held: generation: dark 0.260, start's 0.200"),  # 3 errors
        ({"dark": 0.10}, "stop", "generation: dark 0.300, start's 0.200"),  # 5 errors
        ({"dark": -0.10}, "stop", "generation: dark 0.100, start's 0.200"),
        ({"cut_off": 0.10}, "stop", "understanding: cut_off 0.110, start's 0.010"),
        ({"cut_off": -0.10}, "keep", "kept"),  # that is no worse
        ({"distinct": -0.35}, "keep", "kept"),  # sharper, as training is to make it
        ({"distinct": -0.45}, "stop", "generation: distinct 0.350, start's 0.800"),
        ({"distinct": 0.45}, "keep", "kept"),
    ],
)
def test_statistics_that_no_reward_contains(
    moved: dict[str, float], verdict: str, note: str
) -> None:
    """Rewards are up all the time, which is what makes such a run worth looking at."""
    guard, verdicts = judged(Settings(patience=1), look(20, **moved))
    assert (verdicts[1], guard.note) == (verdict, note)


def test_what_is_no_chance_depends_on_how_much_is_watched_how_often() -> None:
    """The same change: beyond chance in one look of few statistics, not in 36 looks of many."""
    moved = look(20, dark=0.07)  # 3.5 standard errors, 0.7 of its spread
    few = Guard(Settings(patience=1), DIRECTIONS, rounds=20)
    many = Guard(Settings(patience=1), DIRECTIONS, rounds=720)
    assert [few.judge(look(0)), few.judge(moved)] == ["keep", "stop"]
    assert [many.judge(look(0)), many.judge(moved)] == ["keep", "hold"]


def test_captions_that_were_always_cut_off_are_no_collapse() -> None:
    """They have no reward (`reward.cut_captions`), and had none at the start."""
    nothing = Change(math.nan, 0.0, math.inf, 0, math.inf)
    start, later = (
        replace(one, reward={**one.reward, "understanding": nothing}) for one in (look(0), look(20))
    )
    guard = Guard(Settings(), DIRECTIONS, ROUNDS)
    assert [guard.judge(start), guard.judge(later)] == ["keep", "keep"]
    guard = Guard(Settings(), DIRECTIONS, ROUNDS)
    assert [guard.judge(look(0)), guard.judge(later)] == ["keep", "stop"]


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ({"kl": 0.31}, "image KL 0.310 over 0.3"),
        ({"gain": -0.1}, "generation reward under the start model down by 0.100"),
        ({"caption_gain": -0.1}, "understanding reward under the start model down by 0.100"),
    ],
)
def test_decline_stops_after_patience(bad: dict[str, float], note: str) -> None:
    guard, verdicts = judged(
        Settings(patience=2), look(10), look(20, **bad), look(30), look(40, **bad), look(50, **bad)
    )
    assert verdicts[1:] == ["keep", "hold", "keep", "hold", "stop"]
    assert guard.best == 30
    assert guard.note == note


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ({"entropy": 0.3}, "collapsed: generation entropy 0.300, floor 0.400"),
        ({"kl": math.nan}, "collapsed: a measurement is not finite"),
    ],
)
def test_collapse_stops_at_once(bad: dict[str, float], note: str) -> None:
    guard, verdicts = judged(Settings(), look(10), look(20, **bad))
    assert verdicts[-1] == "stop"
    assert (guard.best, guard.note) == (10, note)


def test_rollback_then_stop() -> None:
    settings = Settings(action="rollback", max_rollbacks=1, patience=1)
    guard, verdicts = judged(settings, look(10), look(20, kl=1.0), look(30), look(40, kl=1.0))
    assert verdicts[1:] == ["keep", "rollback", "keep", "stop"]
    assert guard.best == 30


def test_watching_only() -> None:
    guard, verdicts = judged(Settings(action="watch"), look(10), *[look(20, kl=9.0)] * 9)
    assert set(verdicts[2:]) == {"hold"}
    assert guard.best == 10


def test_state_goes_on_alike() -> None:
    looks = [look(10), look(20, kl=1.0), look(30), look(40, kl=1.0), look(50, kl=1.0)]
    guard, verdicts = judged(Settings(), *looks)
    first, _ = judged(Settings(), *looks[:2])
    twin = Guard(Settings(), DIRECTIONS, ROUNDS)
    twin.load_state(first.state())
    assert [twin.judge(one) for one in looks[2:]] == verdicts[3:]
    assert twin.state() == guard.state()


def test_state_of_a_look_that_is_not_finite_is_json() -> None:
    """All captions of the start may be cut off, and have no reward."""
    nothing = Change(math.nan, 0.0, math.inf, 0, math.inf)
    start = look(0)
    start = replace(start, reward={**start.reward, "understanding": nothing})
    guard = Guard(Settings(), DIRECTIONS, ROUNDS)
    guard.judge(start)
    twin = Guard(Settings(), DIRECTIONS, ROUNDS)
    twin.load_state(json.loads(json.dumps(guard.state(), allow_nan=False)))
    assert twin.state() == guard.state()
    assert twin.start is not None
    assert twin.start.statistics == start.statistics
    again = twin.start.reward["understanding"]
    assert math.isnan(again.mean)
    assert (again.error, again.spread) == (math.inf, math.inf)
    fresh = Guard(Settings(), DIRECTIONS, ROUNDS)
    fresh.load_state(json.loads(json.dumps(fresh.state())))
    assert fresh.judge(look(0)) == "keep"  # begun, and not looked at yet

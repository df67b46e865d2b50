"""One reward of several, beside numpy in float64; and rewards of a user's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suder.method.combine import combine
from suder.method.external import ExternalError, external_reward, load_external
from suder.settings.candidates import Reward
from tests.tolerances import TOLERANCES
from tests.trainer.method import toy_reward

ADVANTAGE = TOLERANCES["advantage", "cpu", torch.float32]
TOY = "tests.trainer.method.toy_reward"
GROUP = 4
number = st.one_of(st.floats(-30, 0, width=32), st.just(math.nan))
probability = st.one_of(st.floats(0, 1, width=32), st.just(math.nan), st.just(0.5))
rows = st.integers(1, 3).flatmap(
    lambda n: st.tuples(
        *(st.lists(one, min_size=n * GROUP, max_size=n * GROUP) for one in
          (number, probability, number))
    )
)  # fmt: skip


def z(values):
    """Of a group, those that are NaN left out."""
    there = values[~np.isnan(values)]
    if not len(there):
        return values
    spread = there.std(ddof=1) if len(there) > 1 else 0.0
    return (values - there.mean()) / (spread + 1e-4)


def oracle(parts, settings):
    base, judge, other = (np.array(one, np.float64).reshape(-1, GROUP) for one in parts)
    base = base.copy()
    if settings.external and settings.external_weight is None:
        base = other.copy()
    elif settings.judge == "alone":
        base = judge.copy()
    if settings.judge == "gate":
        base[~(judge >= 0.5)] = np.nan
    more = []
    if settings.judge == "sum":
        more.append((settings.judge_weight, judge))
    if settings.external and settings.external_weight is not None:
        more.append((settings.external_weight, other))
    if not more:
        return base.ravel()
    lost = np.isnan(base)
    for _, one in more:
        lost = lost | np.isnan(one)
    total = 0.0
    for weight, one in [(1.0, base), *more]:
        part = np.where(lost, np.nan, one)
        total = total + weight * np.stack([z(row) for row in part])
    return total.ravel()


@pytest.mark.parametrize(
    "how",
    [
        {"judge": "alone"},
        {"judge": "gate"},
        {"judge": "sum", "judge_weight": 0.5},
        {"external": "a:b"},
        {"external": "a:b", "external_weight": 2.0},
        {"external": "a:b", "external_weight": 0.3, "judge": "sum"},
        {"external": "a:b", "judge": "gate"},
        {"external": "a:b", "external_weight": -1.0, "judge": "alone"},
    ],
    ids=str,
)
@given(parts=rows)
def test_the_sum_is_that_of_numpy(how, parts):
    settings = Reward(**how)
    dual, judge, external = (torch.tensor(one) for one in parts)
    ours = combine({"dual": dual, "judge": judge, "external": external}, settings, GROUP)
    expected = torch.from_numpy(oracle(parts, settings))
    assert ours.dtype == torch.float32
    assert torch.equal(ours.isnan(), expected.isnan())
    torch.testing.assert_close(ours.double(), expected, **ADVANTAGE, equal_nan=True)


def test_an_external_reward_is_loaded_and_checked():
    function = load_external(f"{TOY}:brightness")
    assert function is toy_reward.brightness
    given = (["a.png"], [], ["red", ""], 2)

    def call(function, name="m:f"):
        return external_reward(function, name, "understanding", *given)

    for values in ([0.5, math.nan], np.array([0.5, math.nan]), torch.tensor([0.5, math.nan])):
        got = call(lambda values=values, **_: values)
        assert got.dtype == torch.float32
        assert got[0] == 0.5
        assert got[1].isnan()
    assert call(lambda **_: [1, True]).tolist() == [1.0, 1.0]
    for name, says in {
        "few": r"\(understanding\): gave 1 rewards for 2 candidates",
        "words": r"gave 'good', which is no number",
        "infinite": r"gave inf for candidate 0; give NaN",
        "one": r"takes a sequence of numbers, got 1.0",
        "fails": r"KeyError: 'no such detector",
    }.items():
        with pytest.raises(ExternalError, match=f"reward.external m:{name}.*{says}"):
            call(getattr(toy_reward, name), f"m:{name}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module_of_ours:f", "ModuleNotFoundError: No module named"),
        (f"{TOY}:nothing", "AttributeError: .* has no attribute 'nothing'"),
        (f"{TOY}:constant", "is int, no function"),
        ("plain", "takes module:function, got 'plain'"),
    ],
)
def test_what_is_no_reward_is_named_before_any_work(name, says):
    with pytest.raises(ExternalError, match=f"reward.external.*{says}"):
        load_external(name)


def test_memory_that_is_short_is_left_to_who_can_help():
    def short(**_):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        external_reward(short, "m:f", "generation", ["a"], [], ["a"], 1)

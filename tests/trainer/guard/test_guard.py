"""The guard: what it keeps, when it acts, and that its measurements are what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from suder.guard.rule import Guard
from suder.guard.watch import DIRECTIONS, Look, Watch
from suder.method.rollouts import Rollouts, reward_of, sample_rollouts
from suder.models import load_model
from suder.models.base import Direction, NotFinite
from suder.models.decoder.adapter import DecoderModel
from suder.settings.config import Guard as Settings
from tests.tolerances import TOLERANCES

BATCH = TOLERANCES["batch", "cpu", torch.float32]


def look(
    round_index: int,
    kl: float = 0.1,
    gain: float = 0.1,
    caption_gain: float = 0.0,
    entropy: float = 2.0,
    error: float = 0.02,
) -> Look:
    return Look(
        round=round_index,
        kl={"understanding": 0.05, "generation": kl},
        entropy={"understanding": 1.0, "generation": entropy},
        reward={"understanding": -3.0 + caption_gain, "generation": -2.0 + gain},
        gain={"understanding": caption_gain, "generation": gain},
        error={"understanding": error, "generation": error},
    )


def judged(settings: Settings, *looks: Look) -> tuple[Guard, list[str]]:
    guard = Guard(settings, DIRECTIONS)
    return guard, [guard.judge(one) for one in (look(0, kl=0.0, gain=0.0), *looks)]


def test_latest_good_weights_are_kept() -> None:
    guard, verdicts = judged(Settings(), look(10), look(20, gain=0.05), look(30, gain=-0.01))
    assert verdicts == ["keep", "keep", "keep", "hold"]
    assert guard.best == 20


@pytest.mark.parametrize(
    ("drawing", "captions", "verdict"),
    [
        (2.5, 0.0, "keep"),  # 2.5 / sqrt(2) = 1.77
        (2.2, 0.0, "hold"),  # 1.56
        (1.2, 1.2, "keep"),  # 1.70: two hints are evidence together
        (9.0, -1.9, "keep"),
        (9.0, -2.1, "hold"),  # better pictures do not pay for worse captions
    ],
)
def test_kept_on_evidence_only(drawing: float, captions: float, verdict: str) -> None:
    gains = {"gain": 0.02 * drawing, "caption_gain": 0.02 * captions}
    _, verdicts = judged(Settings(), look(20, **gains))
    assert verdicts[1] == verdict


def test_what_is_not_trained_is_no_evidence() -> None:
    """A direction that only drifts may please the start model more and sample_rollouts worse."""
    guard = Guard(Settings(), ("understanding",))
    drift = [look(0, kl=0.0, gain=0.0), look(20, gain=0.3), look(40, gain=0.3, caption_gain=0.05)]
    assert [guard.judge(one) for one in drift] == ["keep", "hold", "keep"]
    worse = Guard(Settings(), ("understanding",))
    drift = [look(0, kl=0.0, gain=0.0), look(20, gain=-0.05, caption_gain=0.3)]
    assert [worse.judge(one) for one in drift] == ["keep", "hold"]


def test_noise_below_the_start_is_no_decline() -> None:
    """A run that has not improved yet is not stopped for it."""
    guard, verdicts = judged(Settings(patience=1), *[look(i, gain=-0.03) for i in range(1, 6)])
    assert guard.note == "held: rewards better than the start's by only -1.1 standard errors"
    assert verdicts[1:] == ["hold"] * 5
    assert (guard.best, guard.declines) == (0, 0)


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ({"kl": 0.31}, "image KL 0.310 over 0.3"),
        ({"gain": -0.05}, "generation reward under the start model down by 0.050"),
        ({"caption_gain": -0.05}, "understanding reward under the start model down by 0.050"),
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
    twin = Guard(Settings(), DIRECTIONS)
    twin.load_state(first.state())
    assert [twin.judge(one) for one in looks[2:]] == verdicts[3:]
    assert twin.state() == guard.state()


def test_state_of_a_look_that_is_not_finite_is_json() -> None:
    guard, _ = judged(Settings(action="watch"), look(10, kl=math.nan, error=math.inf))
    twin = Guard(Settings(), DIRECTIONS)
    twin.load_state(json.loads(json.dumps(guard.state(), allow_nan=False)))
    assert twin.state() == guard.state()
    assert math.isnan(twin.looks[1].kl["generation"])


@pytest.fixture
def watch(model_folder: Path, inputs_folder: Path) -> Watch:
    pictures = tuple(str(path) for path in sorted((inputs_folder / "pictures").glob("*.png")))
    prompts = ("a red circle", "two blue square", "a green circle")
    start = load_model(model_folder)
    return Watch(
        start, pictures, prompts, Settings(inputs=10, samples=40), max_new_tokens=6, seed=1
    )


def moved(model: DecoderModel, by: float) -> DecoderModel:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def test_start_model_is_at_distance_nothing(watch: Watch) -> None:
    first = watch.look(watch.start, 0)
    assert max(first.kl.values()) < 1e-6
    assert first.gain == {"understanding": 0.0, "generation": 0.0}
    assert watch.look(watch.start, 5).reward == first.reward  # the same seeds every time


def test_gain_and_error_are_over_inputs(watch: Watch, model_folder: Path) -> None:
    """Candidates of one input are averaged first: they are no independent inputs."""
    watch.look(watch.start, 0)
    first = {name: each.clone() for name, each in watch.first.items()}
    model = moved(load_model(model_folder), 0.05)
    seen = watch.look(model, 1)
    for direction in DIRECTIONS:
        rollouts = sample_rollouts(
            model, direction, watch.inputs[direction], watch.group[direction], watch.sampling,
            watch.seed, condition=watch.conditions[direction],
        )  # fmt: skip
        reward = reward_of(rollouts, watch.scorer, watch.start, watch.conditions[direction])
        each = reward.view(len(watch.inputs[direction]), -1)
        gain = np.array([row[row.isfinite()].mean() for row in each]) - first[direction].numpy()
        gain = gain[np.isfinite(gain)].astype(np.float64)
        assert seen.gain[direction] == pytest.approx(gain.mean(), abs=1e-6)
        assert seen.error[direction] == pytest.approx(gain.std(ddof=1) / len(gain) ** 0.5, rel=1e-4)


def test_a_reward_that_is_not_finite_says_nothing(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    for bad in (math.nan, math.inf, -math.inf):

        def some(rollouts: Rollouts, *_: object, bad: float = bad) -> torch.Tensor:
            reward = torch.arange(len(rollouts)).float()
            reward[:3] = bad
            return reward

        monkeypatch.setattr("suder.guard.watch.reward_of", some)
        looks.append(watch.look(watch.start, 0))
    assert looks[0] == looks[1] == looks[2]
    assert all(map(math.isfinite, looks[0].reward.values()))


@pytest.mark.parametrize("bad", DIRECTIONS)
def test_weights_that_are_not_finite_are_measured_as_such(
    watch: Watch, model_folder: Path, bad: Direction
) -> None:
    model = load_model(model_folder)
    with torch.no_grad():
        model.parts.last_layer(bad)[0].view(-1)[5] = math.nan
    start = watch.look(watch.start, 0)
    seen = watch.look(model, 1)
    for direction in DIRECTIONS:
        assert math.isfinite(seen.entropy[direction]) is (direction != bad)
    guard = Guard(Settings(), DIRECTIONS)
    assert [guard.judge(start), guard.judge(seen)] == ["keep", "stop"]
    with pytest.raises(NotFinite, match=r"not finite|none of \d+ is finite"):  # no start of a run
        Watch(model, watch.inputs["understanding"], ("red",), Settings(), 6, seed=1).look(model, 0)


def test_the_start_models_log_probabilities_do_not_depend_on_the_parts(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole inputs where one fits, else parts of one."""
    sizes: list[int] = []
    honest = DecoderModel.forward

    def counted(
        self: DecoderModel, direction: str, condition: object, targets: object, *a: int
    ) -> object:
        sizes.append(len(targets))
        return honest(self, direction, condition, targets, *a)

    monkeypatch.setattr(DecoderModel, "forward", counted)
    for direction in DIRECTIONS:
        rollouts = sample_rollouts(
            watch.start, direction, watch.inputs[direction], watch.group[direction],
            watch.sampling, watch.seed, condition=watch.conditions[direction],
        )  # fmt: skip
        with torch.no_grad():
            expected = watch._start_logprob(rollouts)
            for at_once in (1, 3, rollouts.group, 2 * rollouts.group + 1):
                watch.at_once = at_once
                sizes.clear()
                again = watch._start_logprob(rollouts)
                torch.testing.assert_close(again, expected, **BATCH)
                assert max(sizes) <= at_once
        monkeypatch.setattr("suder.guard.watch.AT_ONCE", 256)


def test_further_weights_are_further_away(watch: Watch, model_folder: Path) -> None:
    watch.look(watch.start, 0)
    near = watch.look(moved(load_model(model_folder), 0.01), 1)
    far = watch.look(moved(load_model(model_folder), 0.1), 2)
    for direction in ("understanding", "generation"):
        assert 0 < near.kl[direction] < far.kl[direction]


def test_kl_against_the_exact_one(watch: Watch, model_folder: Path) -> None:
    """Exact: the KL between both whole distributions at the first image token, all prompts."""
    watch.look(watch.start, 0)
    model = moved(load_model(model_folder), 0.2)  # far: KL and its reverse differ
    prompts = [f"a {word} circle" for word in ("red", "blue", "green", "two")] * 100
    watch.inputs["generation"] = tuple(prompts)
    watch.group["generation"] = 1
    watch.conditions["generation"] = prompts
    del watch.first["generation"]
    estimate = watch.look(model, 1).kl["generation"]
    exact = exact_kl(model, watch.start, prompts[:4])
    assert estimate == pytest.approx(exact, rel=0.1)


@torch.no_grad()
def exact_kl(
    model: DecoderModel, start: DecoderModel, prompts: list[str], samples: int = 100
) -> float:
    """Mean over the model's own prefixes of sum_v p(v) (log p(v) - log q(v)), in float64."""
    from suder.engine.sampling import sample

    tokens = sample(model, "generation", prompts, samples, seed=77).tokens
    logs = []
    for one in (model, start):
        hidden = one("generation", prompts, tokens, samples)
        logits = hidden.hidden.double() @ hidden.weight.double().T
        logits += 0.0 if hidden.bias is None else hidden.bias.double()
        logs.append(logits.log_softmax(-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean())

"""The guard's measurements are what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suder.guard.rule import Guard
from suder.guard.statistics import picture_statistics
from suder.guard.watch import Watch
from suder.method.judge import SelfJudge
from suder.method.rollouts import Rollouts
from suder.method.sampling import sample_rollouts
from suder.method.scoring import reward_of
from suder.models import load_model
from suder.models.base import DIRECTIONS, Direction, NotFinite
from suder.models.decoder.adapter import DecoderModel
from suder.settings.config_file import load_config
from suder.settings.keeping import Guard as Settings
from tests.tolerances import TOLERANCES

BATCH = TOLERANCES["batch", "cpu", torch.float32]
Make = Callable[..., Watch]


def watch_of(start: Any, inputs_folder: Path, *changes: str) -> Watch:
    """Of 10 pictures and 3 prompts, 40 candidates."""
    pictures = tuple(str(path) for path in sorted((inputs_folder / "pictures").glob("*.png")))
    prompts = ("a red circle", "two blue square", "a green circle")
    tree: dict[str, Any] = {
        "output": "nowhere",
        "data": {"images": "none", "prompts": "none"},
        "sampling": {"max_new_tokens": 6},
        "reward": {"cut_captions": "keep"},  # an untrained model ends few
        "guard": {"inputs": 10, "samples": 40},
    }
    return Watch(start, pictures, prompts, load_config(tree, changes), seed=1)


@pytest.fixture
def make_watch(model_folder: Path, inputs_folder: Path) -> Make:
    """`make_watch("sampling.temperature=0.5")`: of each family."""

    def make(*changes: str, start: Any = None) -> Watch:
        return watch_of(start or load_model(model_folder), inputs_folder, *changes)

    return make


@pytest.fixture
def watch(make_watch: Make) -> Watch:
    return make_watch()


def moved(model: DecoderModel, by: float) -> DecoderModel:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def test_start_model_is_at_distance_nothing(watch: Watch) -> None:
    first = watch.look(watch.start, 0)
    assert max(first.kl.values()) < 1e-6
    every = {**first.reward, **first.statistics}
    assert {one.change for one in every.values()} == {0.0}
    assert all(0 < one.spread < math.inf for one in every.values())
    again = watch.look(watch.start, 5)  # the same seeds every time
    assert (again.reward, again.statistics) == (first.reward, first.statistics)


@pytest.mark.parametrize("policy", ["cond", "cfg"])
def test_it_draws_as_the_run_draws(make_watch: Make, policy: str, model_folder: Path) -> None:
    """Guidance, temperature, top-k and top-p; the start stays at distance nothing from itself,
    whichever policy is trained, and other weights do not.
    """
    how = ("guidance=3", "temperature=0.7", "top_k=9", "top_p=0.8", f"policy={policy}")
    watch = make_watch(*(f"sampling.{one}" for one in how))
    first = watch.look(watch.start, 0)
    assert max(first.kl.values()) < 1e-6
    seen = watch.look(moved(load_model(model_folder), 0.1), 1)
    assert min(seen.kl.values()) > 1e-4
    rollouts = watch._sample(watch.start, "generation")
    expected = sample_rollouts(
        watch.start, "generation", watch.inputs["generation"], watch.group["generation"],
        watch.sampling, watch.seed,
    )  # fmt: skip
    assert torch.equal(rollouts.tokens, expected.tokens)
    assert watch.sampling.guidance == 3


def test_distance_of_the_guided_policy_against_full_logits(
    make_watch: Make, model_folder: Path
) -> None:
    """log p of the mixture uncond + s (cond - uncond) over the temperature, in float64."""
    watch = make_watch("sampling.guidance=3", "sampling.temperature=0.7")
    rollouts = watch._sample(watch.start, "generation")
    prompts = [one for one in rollouts.inputs for _ in range(rollouts.group)]
    with torch.no_grad():
        hidden = watch.start("generation", prompts, rollouts.pictures(), 1, 3.0)
        logits = hidden.hidden.double() @ hidden.weight.double().T
        logits += 0.0 if hidden.bias is None else hidden.bias.double()
        expected = (logits / 0.7).log_softmax(-1).gather(1, hidden.target[:, None])[:, 0].cpu()
        found = watch.logprob(watch.start, rollouts)
    torch.testing.assert_close(found.double(), expected, **BATCH)
    torch.testing.assert_close(rollouts.logprob.double(), expected, **BATCH)


@pytest.mark.parametrize("rule", ["keep", "drop"])
def test_captions_that_were_cut_off_count_as_they_do_in_training(
    make_watch: Make, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """With "drop", a caption without its end has no reward here either."""
    watch = make_watch(f"reward.cut_captions={rule}")
    rollouts = watch._sample(watch.start, "understanding")
    finished = torch.arange(len(rollouts)) % 3 > 0
    values = torch.arange(len(rollouts)).double()
    monkeypatch.setattr("suder.guard.watch.reward_of", lambda *_: values.float())
    object.__setattr__(rollouts, "finished", finished)
    found, _ = watch._reward(rollouts)
    kept = values.masked_fill(~finished, math.nan) if rule == "drop" else values
    assert found.mean == pytest.approx(float(kept.view(-1, rollouts.group).nanmean(1).mean()))
    if rule == "drop":
        object.__setattr__(rollouts, "finished", torch.zeros(len(rollouts), dtype=torch.bool))
        assert math.isnan(watch._reward(rollouts)[0].mean)  # nothing is said, which is no loss
        assert watch._reward(rollouts)[0].change == 0


def test_statistics_are_of_the_decoded_pictures_and_the_captions(watch: Watch) -> None:
    seen = watch.look(watch.start, 0)
    drawn = watch._sample(watch.start, "generation")
    for name, values in picture_statistics(watch.start.decode(drawn.pictures())).items():
        one = seen.statistics[f"generation/{name}"]
        assert one.mean == pytest.approx(float(values.mean()))
        assert one.count == 3
    written = watch._sample(watch.start, "understanding")
    lengths = written.cu_seqlens.diff().double()
    assert seen.statistics["understanding/length"].mean == pytest.approx(float(lengths.mean()))
    assert seen.statistics["understanding/length"].spread == pytest.approx(
        max(float(lengths.std()), 0.05 * float(lengths.mean()), 40**-0.5)
    )
    assert len(watch.strip.captions) == 8
    pictures = watch.start.decode(drawn.pictures()[:: drawn.group]).cpu().numpy()
    assert np.array_equal(watch.strip.pictures, pictures)


@torch.no_grad()
def test_the_start_model_is_asked_where_it_can_be(judging_model: Any, inputs_folder: Path) -> None:
    watch = watch_of(judging_model, inputs_folder)
    assert watch.unasked == ""
    seen = watch.look(judging_model, 0)
    ask = SelfJudge(judging_model)
    drawn = watch._sample(judging_model, "generation")
    written = watch._sample(judging_model, "understanding")
    captions = judging_model.detokenize(written.sequences())
    answers = {
        "generation": ask(drawn.pictures(), list(drawn.inputs), drawn.group),
        "understanding": ask(watch.conditions["understanding"], captions, written.group),
    }
    for direction, answer in answers.items():
        denied = (answer < 0.5).double().masked_fill(answer.isnan(), math.nan)
        each = denied.view(len(watch.inputs[direction]), -1).nanmean(1)  # type: ignore[index]
        found = seen.statistics[f"{direction}/denied"].mean
        assert found == pytest.approx(float(each.nanmean()))


def test_what_the_start_model_denies(make_watch: Make) -> None:
    """Of pictures and of captions: the share asked about that gets a no, NaN left out."""
    watch = make_watch()
    assert watch.judge is None
    assert watch.unasked == "", "it was not made to be asked, and nobody asked for it"
    asked: list[tuple[int, int, int]] = []

    def judge(pictures: Any, texts: Any, group: int) -> torch.Tensor:
        asked.append((len(pictures), len(texts), group))
        answer = torch.tensor([0.9, 0.2, 0.4, math.nan]).repeat(group * 10)
        return answer[: max(len(pictures), len(texts))]

    watch.judge = judge  # type: ignore[assignment]
    seen = watch.look(watch.start, 0)
    assert asked == [(10, 40, 4), (39, 3, 13)]
    assert seen.statistics["understanding/denied"].mean == pytest.approx(2 / 3)
    assert seen.statistics["generation/denied"].mean == pytest.approx(2 / 3, abs=0.05)


def test_gain_and_error_are_over_inputs(watch: Watch, model_folder: Path) -> None:
    """Candidates of one input are averaged first: they are no independent inputs."""
    watch.look(watch.start, 0)
    first = {one: watch.first[one].clone() for one in DIRECTIONS}
    model = moved(load_model(model_folder), 0.05)
    seen = watch.look(model, 1)
    for direction in DIRECTIONS:
        rollouts = sample_rollouts(
            model, direction, watch.inputs[direction], watch.group[direction], watch.sampling,
            watch.seed, condition=watch.conditions[direction],
        )  # fmt: skip
        reward = reward_of(rollouts, watch.scorer, watch.start, watch.conditions[direction])
        each = reward.view(len(watch.inputs[direction]), -1)
        gain = (
            np.array([row[row.isfinite()].double().mean() for row in each])
            - first[direction].numpy()
        )
        gain = gain[np.isfinite(gain)].astype(np.float64)
        one = seen.reward[direction]
        assert one.change == pytest.approx(gain.mean(), abs=1e-6)
        assert one.error == pytest.approx(gain.std(ddof=1) / len(gain) ** 0.5, rel=1e-4)
        assert one.count == len(gain)


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
    assert all(math.isfinite(one.mean) for one in looks[0].reward.values())


@pytest.mark.parametrize("bad", DIRECTIONS)
def test_weights_that_are_not_finite_are_measured_as_such(
    make_watch: Make, model_folder: Path, bad: Direction
) -> None:
    watch, model = make_watch(), load_model(model_folder)
    with torch.no_grad():
        model.parts.last_layer(bad)[0].view(-1)[5] = math.nan
    start = watch.look(watch.start, 0)
    seen = watch.look(model, 1)
    for direction in DIRECTIONS:
        assert math.isfinite(seen.entropy[direction]) is (direction != bad)
    guard = Guard(Settings(), DIRECTIONS, rounds=2)
    assert [guard.judge(start), guard.judge(seen)] == ["keep", "stop"]
    with pytest.raises(NotFinite, match=r"not finite|none of \d+ is finite"):  # no start of a run
        make_watch(start=model).look(model, 0)


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
            expected = watch.logprob(watch.start, rollouts)
            for at_once in (1, 3, rollouts.group, 2 * rollouts.group + 1):
                watch.at_once = at_once
                sizes.clear()
                again = watch.logprob(watch.start, rollouts)
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
    watch.first.clear()
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

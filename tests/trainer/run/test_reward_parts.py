"""`reward.judge` and `reward.external` in runs: what is ranked by, refused, written and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import suder.run.candidates
import suder.run.rounds
from suder.method.conditions import read_conditions
from suder.method.judge import SelfJudge
from suder.method.rollouts import load_rollouts
from suder.method.scoring import judged_of
from suder.models import Janus, load_model
from suder.pretrain.architecture import build_janus
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError, load_config
from suder.storage.files import read_jsonl, read_tensors
from tests.tolerances import TOLERANCES
from tests.trainer.conftest import SIZES, WORDS
from tests.trainer.families import JUDGING
from tests.trainer.method import toy_reward

Make = Callable[..., TrainConfig]
BATCH = TOLERANCES["batch", "cpu", torch.float32]
TOY = "reward.external=tests.trainer.method.toy_reward:brightness"


@pytest.fixture(scope="module")
def judging_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `lively_model_folder`, with the judge's words."""
    folder = tmp_path_factory.mktemp("judging")
    model = Janus(*build_janus((*WORDS, *JUDGING), seed=3, sizes=SIZES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save(folder)
    return folder


def scores(config: TrainConfig, index: int = 1) -> dict[str, torch.Tensor]:
    path = Path(config.output) / "rounds" / f"{index:06d}" / "score.safetensors"
    return read_tensors(path)[0]


def selected(config: TrainConfig) -> dict[str, torch.Tensor]:
    return read_tensors(Path(config.output) / "rounds" / "000001" / "select.safetensors")[0]


@pytest.mark.parametrize("how", ["alone", "gate", "sum"])
def test_the_model_judges_its_samples(make_config: Make, judging_folder: Path, how: str) -> None:
    """By the start's weights in the first round, from the samples that are on disk."""
    config = make_config(
        f"model={judging_folder}", f"reward.judge={how}", "rounds=1", "guard.enabled=false"
    )
    Trainer(config, quiet=True).run()
    found, model = scores(config), load_model(judging_folder)
    all_valid = []
    judge = SelfJudge(model)
    for one in load_rollouts(Path(config.output) / "rounds" / "000001" / "sample.safetensors"):
        given = read_conditions(model, one.direction, one.inputs).values
        said = judged_of(one, judge, given)
        J = found[f"{one.direction}/judge"]
        torch.testing.assert_close(J, said, **BATCH, equal_nan=True)
        assert J[J.isfinite()].std() > 0.001
        reward, dual = found[one.direction], found.get(f"{one.direction}/dual")
        assert (dual is None) == (how == "alone")
        valid = selected(config)[f"{one.direction}/valid"]
        all_valid.append(valid)
        assert torch.equal(valid, reward.isfinite())
        if how == "alone":
            assert torch.equal(reward.nan_to_num(9.0), J.nan_to_num(9.0))
        elif how == "gate":
            assert dual is not None
            assert torch.equal(valid, (J >= 0.5) & dual.isfinite())
            assert torch.equal(reward[valid], dual[valid])
    row = read_jsonl(Path(config.output) / "metrics.jsonl")[-1]
    assert 0.0 < row["reward_judge/generation"] < 1.0
    why = [row["why"] for row in read_jsonl(Path(config.output) / "data" / "dropped.jsonl")]
    denied = sum("the model itself denies" in one for one in why)
    assert denied == (int((~torch.cat(all_valid)).sum()) if how == "gate" else 0)
    assert 0 < denied < 24 or how != "gate"


def test_a_round_that_the_model_denies_whole_is_said_and_the_run_goes_on(
    make_config: Make,
    judging_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        suder.run.rounds, "judged_of", lambda rollouts, *_: torch.zeros(len(rollouts))
    )
    config = make_config(
        f"model={judging_folder}", "reward.judge=gate", "rounds=2", "guard.enabled=false"
    )
    summary = Trainer(config).run()
    assert summary["candidates_dropped"] == 48
    said = capsys.readouterr()
    assert (
        "the model itself denies that any of 12 candidates (generation) fits" in said.out + said.err
    )


def test_a_model_that_cannot_answer_is_refused_before_anything_is_written(
    make_config: Make,
) -> None:
    config = make_config("model=shapes", "reward.judge=gate")
    with pytest.raises(ValueError, match=r"reward\.judge gate: .*its vocabulary lacks 'Does'"):
        Trainer(config, quiet=True)
    assert not Path(config.output).exists()
    config = make_config("reward.external=no_such_module_of_ours:f")
    with pytest.raises(ValueError, match=r"reward\.external no_such_module_of_ours:f: ModuleNot"):
        Trainer(config, quiet=True)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("weight", ["null", "0.5"])
def test_a_reward_of_the_users_own_and_a_run_that_goes_on(
    make_config: Make, lively_model_folder: Path, monkeypatch: pytest.MonkeyPatch, weight: str
) -> None:
    """It is asked once for each direction of a round; what is on disk is not asked for again."""
    changes = (
        f"model={lively_model_folder}", TOY, f"reward.external_weight={weight}", "rounds=2",
        "guard.enabled=false",
    )  # fmt: skip
    whole, cut = make_config(*changes, output="whole"), make_config(*changes, output="cut")
    toy_reward.calls.clear()
    Trainer(whole, quiet=True).run()
    assert toy_reward.calls == [("understanding", 3, 12, 4), ("generation", 3, 12, 4)] * 2
    found = scores(whole)
    for direction in ("understanding", "generation"):
        assert (f"{direction}/dual" in found) == (weight != "null")
        if weight == "null":
            assert torch.equal(
                found[direction].nan_to_num(9.0), found[f"{direction}/external"].nan_to_num(9.0)
            )

    def stops(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(suder.run.candidates, "select_phase", stops)
        with pytest.raises(KeyboardInterrupt):
            Trainer(cut, quiet=True).run()
    toy_reward.calls.clear()
    Trainer.resume(cut.output, quiet=True).run()
    assert len(toy_reward.calls) == 2  # of the second round alone
    finals = [(Path(one.output) / "model" / "model.safetensors").read_bytes()
              for one in (whole, cut)]  # fmt: skip
    assert finals[0] == finals[1]


def test_the_entropys_anchor_is_part_of_the_reward(
    make_config: Make, lively_model_folder: Path
) -> None:
    """In the first round policy and start are one, and all are as near as can be."""
    config = make_config(
        f"model={lively_model_folder}", "objective.entropy_anchor=50.0", "rounds=2",
        "guard.enabled=false", "optimizer.lr=0.02",
    )  # fmt: skip
    Trainer(config, quiet=True).run()
    first, second = scores(config), scores(config, 2)
    for direction in ("understanding", "generation"):
        near = first[f"{direction}/entropy"]
        torch.testing.assert_close(near, torch.ones_like(near))
        dual, near = (second[f"{direction}/{name}"].double() for name in ("dual", "entropy"))
        assert near.min() < 1.0 - 1e-4
        there = dual.view(-1, 4).isfinite()
        mean = (near.view(-1, 4) * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)
        expected = dual.view(-1, 4) + 50.0 * (near.view(-1, 4) - mean)
        torch.testing.assert_close(
            second[direction].double(), expected.flatten(), **BATCH, equal_nan=True
        )


def test_one_that_fails_says_where_and_leaves_a_run_that_goes_on(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(TOY, "rounds=1", "guard.enabled=false")
    with monkeypatch.context() as patch:
        patch.setattr(toy_reward, "brightness", toy_reward.fails)
        with pytest.raises(ValueError, match=r"toy_reward:brightness \(understanding\): KeyError"):
            Trainer(config, quiet=True).run()
    Trainer.resume(config.output, quiet=True).run()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["judge=alone", "external=a:b"], "cannot both be the reward"),
        (["external_weight=1.0"], "external_weight is of reward.external"),
        (["judge_weight=2.0"], "judge_weight is 2.0, .* only where reward.judge is sum"),
        (["judge=gate", "judge_weight=2.0"], "only where reward.judge is sum"),
        (["judge=alone", "reduction=sum"], "reduction is sum, .* the dual reward is"),
        (["external=a:b", "include_eos=false"], "include_eos is False"),
        (["scorer=random", "include_eos=false"], "include_eos is False"),
        (["judge=alone", "scorer=random"], "scorer is random"),
        (["external=nothing"], "external"),
        (["judge=hard"], "'off', 'alone', 'gate' or 'sum'"),
    ],
)
def test_settings_that_say_nothing_together_are_refused(
    make_config: Make, changes: list[str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        make_config(*(f"reward.{change}" for change in changes))


def test_off_in_yaml_is_off(make_config: Make) -> None:
    config = make_config("reward.judge=off")
    assert config.reward.judge == "off"
    tree = config.model_dump()
    tree["reward"]["judge"] = False
    assert load_config(tree).reward.judge == "off"
    tree["reward"]["judge"] = True
    with pytest.raises(ConfigError, match="judge"):
        load_config(tree)


@pytest.mark.parametrize("change", ["reduction=sum", "include_eos=false"])
def test_the_dual_reward_is_the_one_asked_for(
    make_config: Make, lively_model_folder: Path, change: str
) -> None:
    config = make_config(
        f"model={lively_model_folder}", f"reward.{change}", "rounds=1", "guard.enabled=false"
    )
    Trainer(config, quiet=True).run()
    usual = make_config(
        f"model={lively_model_folder}", "rounds=1", "guard.enabled=false", output="usual"
    )
    Trainer(usual, quiet=True).run()
    ours, other = scores(config), scores(usual)
    assert set(ours) == set(other) == {"understanding", "generation"}  # of one part alone
    tokens = load_model(lively_model_folder).num_image_tokens
    factor = tokens if change == "reduction=sum" else 1
    torch.testing.assert_close(
        ours["understanding"], factor * other["understanding"], **BATCH, equal_nan=True
    )
    assert (ours["generation"] - other["generation"]).abs().max() > 0.1

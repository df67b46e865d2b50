"""Runs that learn from files: what online rounds would have learnt, resumable, refused in time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

import suder.engine.sampling
import suder.run.candidates
import suder.run.rounds
from suder.cli import main
from suder.inputs.files import DataError
from suder.rollouts.files import read_table, write_table
from suder.run.folder import RunError
from suder.run.states import States
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import ConfigError, load_config
from suder.storage.files import read_jsonl, read_tensors
from tests.tolerances import TOLERANCES

Offline = Callable[..., TrainConfig]
FILES = ("000001.parquet", "000002.parquet")


def weights(run: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "model" / "model.safetensors")


def changed(path: Path, to: Path, **columns: Any) -> Path:
    """A copy of a file of rollouts with other values in some columns."""
    table = read_table([path])
    for name, value in columns.items():
        values = value(table) if callable(value) else [value] * len(table)
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    write_table(to, table)
    return to


@pytest.fixture
def first(finished_run: Path) -> Path:
    return finished_run / "rollouts" / FILES[0]


@pytest.mark.parametrize("objective", ["grpo", "simpo", "dpo", "expert"])
def test_a_pass_over_a_rounds_own_candidates_learns_what_the_round_did(
    finished_run: Path, first: Path, offline: Offline, tmp_path: Path, objective: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = load_config(finished_run / "config.yaml")
    online = load_config(
        settings.model_dump(mode="json"),
        ["rounds=1", f"output={tmp_path / 'online'}", f"objective.name={objective}"],
    )
    Trainer(online, quiet=True).run()
    config = offline(f"objective.name={objective}", rollouts=first)

    def drawing(*_: Any, **__: Any) -> None:
        raise AssertionError("sampled")

    monkeypatch.setattr(suder.engine.sampling, "write", drawing)
    monkeypatch.setattr(suder.run.rounds, "reward_of", drawing)
    Trainer(config, quiet=True).run()
    before = load_file(Path(config.model) / "model.safetensors")
    one, other = weights(online.output), weights(config.output)
    moved, apart = (
        sum(float((two[name] - one[name]).square().sum()) for name in one) ** 0.5
        for two in (before, other)
    )
    assert moved > 0.1
    assert apart < 0.01 * moved  # sums in another order, and log p of a step beside those of a pass


def test_grpos_ratio_is_to_the_policy_that_drew(first: Path, offline: Offline) -> None:
    """The first round's weights are those that drew: what the file says otherwise is the ratio."""
    shift = np.random.default_rng(0)
    rows = read_table([first]).to_pylist()
    old = [[one - shift.normal(0, 0.3) for one in row["logprob"]] for row in rows]
    file = changed(first, first.parent.parent / "shifted.parquet", logprob=lambda _: old)
    config = offline("objective.kl=0.0", "optimizer.steps=2", rollouts=file)
    Trainer(config, quiet=True).run()
    logged = read_jsonl(Path(config.output) / "metrics.jsonl")[-1]
    for direction in ("understanding", "generation"):
        losses = []
        for row, drawn in zip(rows, old, strict=True):
            if row["direction"] == direction and row["valid"]:
                now = np.array(row["logprob"], np.float64)
                ratio = np.exp(now - np.array(drawn, np.float32))
                clipped = np.clip(ratio, 0.8, 1.2)
                losses.append(
                    -np.minimum(ratio * row["advantage"], clipped * row["advantage"]).mean()
                )
        assert logged[f"loss/{direction}"] == pytest.approx(np.mean(losses), abs=1e-4)
        assert logged[f"sampler_gap/{direction}"] > 0.1
    file.unlink()


class Crash(BaseException):
    pass


@pytest.mark.parametrize("phase", ["sample", "score", "state"])
def test_a_run_that_is_interrupted_ends_with_the_same_bits(
    offline: Offline, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    changes = ("rounds=4", "data.heldout=0.3", "guard.enabled=true", "inputs_per_round=2")
    whole = offline(*changes, output="whole")
    Trainer(whole, quiet=True).run()
    assert "guard/kl/understanding" in read_jsonl(Path(whole.output) / "metrics.jsonl")[-1]
    part = offline(*changes, output="part")
    trainer = Trainer(part, quiet=True)
    with monkeypatch.context() as patch:

        def dying(*arguments: Any, **options: Any) -> Any:
            if phase == "state" and arguments[1] < 2:
                return write(*arguments, **options)
            raise Crash

        write = States.save
        if phase == "state":
            patch.setattr(States, "save", dying)
        else:
            after = {"sample": "score_phase", "score": "select_phase"}[phase]
            patch.setattr(suder.run.candidates, after, dying)
        with pytest.raises(Crash):
            trainer.run()
    Trainer.resume(part.output, quiet=True).run()
    found = [
        (Path(run) / "model" / "model.safetensors").read_bytes()
        for run in (whole.output, part.output)
    ]
    assert found[0] == found[1]


def test_files_that_changed_are_not_gone_on_with(run: Path, offline: Offline) -> None:
    config = offline(rollouts=run / "rollouts")
    Trainer(config, quiet=True).run()
    origin = json.loads((Path(config.output) / "versions.json").read_text())
    assert sorted(origin["rollouts"]) == list(FILES)
    (run / "rollouts" / FILES[1]).unlink()
    with pytest.raises(RunError, match=rf"not those that .*{FILES[1]}"):
        Trainer.resume(config.output, quiet=True)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tokens": lambda t: [[9999, *ids[1:]] for ids in t["tokens"].to_pylist()]}, "token 9999"),
        ({"tokens": lambda t: [[-1, *ids[1:]] for ids in t["tokens"].to_pylist()]}, "token -1"),
        ({"text": "something else"}, "another tokenizer's"),
        ({"tokens": lambda t: [[] for _ in range(len(t))]}, "0 tokens"),
        ({"logprob": lambda t: [[0.0]] * len(t)}, "1 log-probabilities"),
        ({"direction": "sideways"}, "`direction` takes"),
        ({"temperature": 0.5}, "says temperature 0.5, and grpo"),
        ({"top_k": 5}, "says top_k 5, and grpo"),
        ({"guidance": 3.0}, "says guidance 3.0, and grpo"),
        ({"logprob": None}, "says no logprob, and grpo"),
        ({"reward": None}, "holds nothing of understanding to learn from"),
        ({"valid": False}, "holds nothing of understanding to learn from"),
        ({"group": lambda t: list(range(len(t)))}, "every input has one candidate"),
        ({"digest": "0"}, "has changed"),
    ],
)  # fmt: skip
def test_rollouts_of_no_use_are_refused_before_any_work(
    first: Path, offline: Offline, tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    config = offline(rollouts=changed(first, tmp_path / "other.parquet", **columns))
    with pytest.raises(DataError, match=said):
        Trainer(config, quiet=True)
    assert not Path(config.output).exists()


def test_drawings_of_another_codebook_are_refused(
    first: Path, offline: Offline, tmp_path: Path
) -> None:
    def beyond(table: Any) -> list[list[int]]:
        names = table["direction"].to_pylist()
        return [
            [32, *ids[1:]] if name == "generation" else ids
            for name, ids in zip(names, table["tokens"].to_pylist(), strict=True)
        ]

    config = offline(rollouts=changed(first, tmp_path / "other.parquet", tokens=beyond))
    with pytest.raises(DataError, match="token 32, and this model's codebook has 32"):
        Trainer(config, quiet=True)


def test_other_objectives_do_not_ask_how_it_was_drawn(
    first: Path, offline: Offline, tmp_path: Path
) -> None:
    file = changed(first, tmp_path / "other.parquet", temperature=0.5, logprob=None)
    config = offline("objective.name=simpo", rollouts=file)
    assert Trainer(config, quiet=True).run()["rounds"] == 1


def test_rewards_of_the_file_or_anew(first: Path, offline: Offline, tmp_path: Path) -> None:
    """The first round is by the model that drew: scored anew, its rewards are what they were."""
    file = changed(
        first, tmp_path / "other.parquet", reward=lambda t: list(map(float, range(len(t))))
    )
    said = {}
    for name, changes in {"told": (), "anew": ("reward.rescore=true",)}.items():
        config = offline(*changes, rollouts=file, output=name)
        Trainer(config, quiet=True).run()
        folder = Path(config.output) / "rounds" / "000001"
        said[name] = read_tensors(folder / "score.safetensors")[0]
    rows = read_table([first]).to_pylist()
    for direction in ("understanding", "generation"):
        here = [i for i, row in enumerate(rows) if row["direction"] == direction]
        told = [float(i) for i in here if rows[i]["valid"]]
        found = said["told"][direction]
        assert sorted(found[found.isfinite()].tolist()) == told
        true = torch.tensor(
            sorted(rows[i]["reward"] for i in here if rows[i]["reward"] is not None)
        )
        anew = said["anew"][direction]
        anew = anew[anew.isfinite()].sort().values
        assert torch.allclose(anew, true, **TOLERANCES["reward", "cpu", torch.float32])


def test_groups_of_any_size(first: Path, offline: Offline, tmp_path: Path) -> None:
    """Rows that somebody took out are no candidates, and the rest of the group is."""
    table = read_table([first])
    keep = [i for i in range(len(table)) if i not in (0, 1, 6, 13)]
    write_table(tmp_path / "fewer.parquet", table.take(keep))
    config = offline(rollouts=tmp_path / "fewer.parquet")
    Trainer(config, quiet=True).run()
    folder = Path(config.output) / "rounds" / "000001"
    for direction in ("understanding", "generation"):
        reward = read_tensors(folder / "score.safetensors")[0][direction]
        told = [row for row in table.take(keep).to_pylist() if row["direction"] == direction]
        assert len(reward) == 12
        expected = sorted(row["reward"] for row in told if row["valid"])
        assert sorted(reward[reward.isfinite()].tolist()) == expected
    assert load_config(Path(config.output) / "config.yaml").candidates == 4


def test_what_the_guard_watches_is_not_trained_on(finished_run: Path, offline: Offline) -> None:
    """From pictures and prompts given besides, as many runs before had them."""
    before = load_config(finished_run / "config.yaml")
    changes = ("data.heldout=0.7", "guard.enabled=true", f"data.images={before.data.images}")
    config = offline(*changes, f"data.prompts={before.data.prompts}")
    trainer = Trainer(config, quiet=True)
    inputs = trainer.inputs
    assert inputs.images
    assert not set(inputs.images) & set(inputs.watched_images)
    assert not set(inputs.prompts) & set(inputs.watched_prompts)
    trained = trainer.source.inputs("understanding").keys()
    assert trained == set(inputs.images)


def test_captions_alone(first: Path, offline: Offline, tmp_path: Path, inputs_folder: Path) -> None:
    table = read_table([first])
    write_table(tmp_path / "captions.parquet", table.slice(0, len(table) // 2))
    with pytest.raises(DataError, match="nothing of generation to learn from"):
        Trainer(offline(rollouts=tmp_path / "captions.parquet"), quiet=True)
    one = ("directions=understanding",)
    with pytest.raises(DataError, match=r"holds no prompts .* name some by data\.prompts"):
        Trainer(offline(*one, rollouts=tmp_path / "captions.parquet"), quiet=True)
    prompts = f"data.prompts={inputs_folder / 'prompts.txt'}"
    config = offline(*one, prompts, rollouts=tmp_path / "captions.parquet")
    assert Trainer(config, quiet=True).run()["rounds"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("reward.scorer=random", "has nothing to score"),
        ("reward.judge=gate", "reward.judge gate has nothing to score"),
        ("objective.entropy_anchor=1.0", "entropy_anchor 1.0 has nothing to score"),
        ("data.rollouts=null", r"`data\.images` is missing"),
    ],
)
def test_settings_that_do_not_agree(offline: Offline, change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        offline(change)


def test_the_command(first: Path, lively_model_folder: Path, tmp_path: Path, capfd: Any) -> None:
    options = ["--model", str(lively_model_folder), "--rollouts", str(first)]
    options += ["--output", str(tmp_path / "run"), "--rescore", "rounds=1", "data.heldout=0"]
    assert main(["train", *options, "guard.enabled=false", "objective.name=dpo"]) == 0
    said = capfd.readouterr().err
    assert "groups to learn from: 3 of understanding, 3 of generation" in " ".join(said.split())
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_who_only_fills_a_group_up_is_no_part_of_its_rewards(
    first: Path, offline: Offline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rewards of several parts are sums of standings inside the group, of its own candidates."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "for_fill.py").write_text(
        "def score(*, direction, inputs, images, texts, group):\n"
        "    return [float(i * i % 7) for i in range(len(texts))]\n"
    )
    table = read_table([first])
    keep = [i for i in range(len(table)) if i not in (0, 1, 6, 13)]
    write_table(tmp_path / "fewer.parquet", table.take(keep))
    changes = ("reward.rescore=true", "reward.external=for_fill:score", "reward.external_weight=2")
    config = offline(*changes, rollouts=tmp_path / "fewer.parquet")
    Trainer(config, quiet=True).run()
    folder = Path(config.output) / "rounds" / "000001"
    scores = read_tensors(folder / "score.safetensors")[0]
    for direction, missing in (("understanding", 3), ("generation", 1)):
        dual, other = (scores[f"{direction}/{part}"] for part in ("dual", "external"))
        assert int(other.isnan().sum()) == missing
        for here in torch.arange(12).split(4):
            mine = here[(dual[here] + other[here]).isfinite()]
            if len(mine) < 2:  # an empty caption beside one alone: no deviation
                continue
            parts = (scores[f"{direction}/{part}"][mine].double() for part in ("dual", "external"))
            standing = [(one - one.mean()) / (one.std() + 1e-4) for one in parts]
            expected = (standing[0] + 2 * standing[1]).float()
            limits = TOLERANCES["advantage", "cpu", torch.float32]
            torch.testing.assert_close(scores[direction][mine], expected, **limits)

"""Recipes: their arms, the grid that they make, its inputs, and what is refused before any cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import filterfalse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from suder.cli import main
from suder.evaluation.task import asked_kinds, in_validation
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import CONTROL, PlanError, merge, read_change, read_plan
from suder.run.trainer import Trainer
from suder.settings.config_file import dump_config, load_config
from suder.world import emoji
from suder.world.splits import split_of
from tests.trainer.experiment.conftest import RECIPE


def test_every_arm_of_the_recipe_is_a_valid_training_run():
    plan = read_plan(RECIPE)
    asked = {CONTROL, "grpo", "simpo", "dpo", "expert", "grpo-generation", "grpo-understanding"}
    asked |= {"grpo-random", "grpo-long", "grpo-no-kl", "grpo-high-lr"}
    assert asked <= set(plan.arms)
    assert (len(plan.starts), len(plan.seeds)) == (2, 3)
    assert plan.measures.n >= 1000
    given = {"output": "x", "data": {"images": "a", "prompts": "b"}}
    configs = {
        cell.arm: load_config(merge(cell.settings, given))
        for cell in plan.cells()
        if cell.arm != CONTROL
    }
    assert configs["grpo-long"].rounds == 3 * configs["grpo"].rounds
    assert configs["grpo-random"].reward.scorer == "random"
    assert configs["grpo-no-kl"].objective.kl == 0.0
    assert {configs[name].objective.name for name in ("simpo", "dpo", "expert")} == {
        "simpo",
        "dpo",
        "expert",
    }
    for config in configs.values():
        assert config.checkpoint.keep * config.checkpoint.every >= config.rounds


def test_every_arm_of_the_ablations_is_a_run_of_its_own():
    plan = read_plan(RECIPE.with_name("ablations.yaml"))
    given = {"output": "x", "data": {"images": "a", "prompts": "b"}}
    cells = [cell for cell in plan.cells() if cell.arm != CONTROL and cell.seed == 1]
    configs = {cell.arm: load_config(merge(cell.settings, given)) for cell in cells}
    assert {config.reward.scorer for config in configs.values()} == {"live", "frozen", "random"}
    told = [dump_config(config) for config in configs.values()]
    assert len(set(told)) == len(configs) >= 12
    default = {**given, **plan.common}
    assert told[list(configs).index("live")] == dump_config(load_config(default))


def test_the_ablations_run(tmp_path: Path):
    """Each arm that no other test trains, for a round, as `suder experiment` does."""
    arms = ["no-eos", "centred-sum", "entropy", "critical", "siblings"]
    tiny = ["rounds=1", "inputs_per_round=2", "candidates=2", "sampling.max_new_tokens=4",
            "reward.cut_captions=keep", "guard.enabled=false", "checkpoint.every=1"]  # fmt: skip
    plan = (
        read_plan(RECIPE.with_name("ablations.yaml")).changed(tiny).narrowed(arms=arms, seeds=[1])
    )
    write_inputs(tmp_path / "inputs", pictures=8, prompt_count=8, hold_back=False, world="shapes")
    finals = set()
    for cell in plan.cells():
        if cell.arm == CONTROL:
            continue
        config = load_config(cell.tree(tmp_path / cell.arm, tmp_path / "inputs"))
        Trainer(config, quiet=True).run()
        finals.add((tmp_path / cell.arm / "model" / "model.safetensors").read_bytes())
    assert len(finals) == len(arms)


def test_cells_start_with_the_controls_and_differ_in_name_and_fingerprint(
    make_recipe: Callable[..., Path],
):
    cells = read_plan(make_recipe()).cells()
    assert [cell.arm for cell in cells[:2]] == [CONTROL, CONTROL]
    assert len(cells) == 2 + 2 * 2 * 2
    for key in ("name", "fingerprint"):
        values = [getattr(cell, key) for cell in cells]
        assert len({value() if callable(value) else value for value in values}) == len(cells)
    changed = read_plan(make_recipe()).changed(["optimizer.lr=1e-4"]).cells()
    assert cells[0].fingerprint() != changed[-1].fingerprint()
    assert changed[-1].settings["optimizer"]["lr"] == 1e-4
    assert changed[0].settings == {}
    assert read_plan(make_recipe()).changed([], n=5).cells()[0].measures.n == 5


def test_the_grid_can_be_narrowed(make_recipe: Callable[..., Path]):
    plan = read_plan(make_recipe())
    cells = plan.narrowed(arms=["grpo"], starts=["shapes"], seeds=[2], split="validation").cells()
    assert [(c.arm, c.start, c.split) for c in cells] == [
        (CONTROL, "shapes", "validation"),
        ("grpo", "shapes", "validation"),
    ]
    with pytest.raises(PlanError, match="no arm gpro; there are start, grpo, high"):
        plan.narrowed(arms=["gpro"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}}, "at least `arms`"),
        ({"seed": 1}, r"unknown \['seed'\]"),
        ({"evaluation": {"m": 1}}, "evaluation: m: .*nexpected"),
        ({"evaluation": {"n": 0}}, "evaluation: n: .*greater than"),
        ({"evaluation": {"temperatures": [float("inf")]}}, "temperatures.0: .*finite"),
        ({"seeds": [-1]}, "seeds.0: .*greater than"),
        ({"starts": "shapes"}, "starts: .*list"),
        ({"inputs": {"pictures": "many"}}, "inputs.pictures: .*integer"),
    ],
)
def test_bad_recipes_are_named(
    make_recipe: Callable[..., Path], change: dict[str, Any], message: str
):
    with pytest.raises(PlanError, match=message):
        read_plan(make_recipe(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("foo=1", "arm grpo: .*unknown setting `foo`"),
        ("optimizer.lr=-1", "arm grpo: .*`optimizer.lr`: .*greater than 0"),
        ("optimizer.lr=.inf", "arm grpo: .*finite"),
    ],
)
def test_a_bad_setting_is_refused_before_any_cell(
    make_recipe: Callable[..., Path],
    tmp_path: Path,
    change: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "out"
    recipe = str(make_recipe())
    assert main(["experiment", "--out", str(out), "--recipe", recipe, "--set", change]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not out.exists()


def test_a_missing_recipe_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="give one with --recipe"):
        read_plan(tmp_path / "none.yaml")


def test_changes_on_the_command_line():
    assert read_change("a.b=1") == {"a": {"b": 1}}
    assert read_change("a=1e-4") == {"a": 1e-4}
    assert read_change("a.b=grpo") == {"a": {"b": "grpo"}}
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}, "d": 4}) == {
        "a": {"b": 3, "c": 2},
        "d": 4,
    }
    with pytest.raises(PlanError, match=r"expected section\.key=value"):
        read_change("a")


def test_the_emoji_recipe_has_its_arms_and_controls():
    plan = read_plan(RECIPE.with_name("emoji.yaml"))
    assert plan.measures.world == "emoji"
    assert plan.seeds == [1, 2, 3]
    arms = ["start", "grpo", "grpo-long", "simpo", "grpo-judge", "grpo-random"]
    assert list(plan.arms) == arms
    for cell in plan.cells():
        cell.check()


def test_inputs_of_emoji_are_of_the_unlabelled_split(emoji_world, tmp_path, monkeypatch):
    drawn: list[emoji.Kind] = []
    draw = emoji.draw
    monkeypatch.setattr(emoji, "draw", lambda kind, seed: (drawn.append(kind), draw(kind, seed))[1])
    every = set(emoji.kinds("unlabelled"))
    for hold_back, known in ((False, every), (True, set(filterfalse(emoji.held_back, every)))):
        drawn.clear()
        folder = tmp_path / str(hold_back)
        write_inputs(folder, pictures=400, prompt_count=400, hold_back=hold_back, world="emoji")
        asked = (folder / "prompts.txt").read_text().splitlines()
        assert set(asked) == {emoji.prompt(kind) for kind in known}
        assert set(drawn) == known
        assert len(asked) == 400
        pictures = [np.asarray(Image.open(one)) for one in (folder / "images").glob("*.png")]
        assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 400


def test_inputs_are_unlabelled_and_can_leave_validation_out(tmp_path: Path):
    write_inputs(tmp_path / "all", pictures=20, prompt_count=300)
    write_inputs(tmp_path / "held", pictures=20, prompt_count=300, hold_back=True)
    for name, held_back in (("all", False), ("held", True)):
        lines = (tmp_path / name / "prompts.txt").read_text().splitlines()
        assert len(lines) == len(set(lines)) == 300
        pairs = [kinds for kinds in map(asked_kinds, lines) if len(kinds) == 2]
        assert all(split_of((a, b)) == "unlabelled" for a, b in pairs)
        assert any(map(in_validation, pairs)) is not held_back
        files = sorted((tmp_path / name / "images").glob("*.png"))
        assert len(files) == 20
        with Image.open(files[0]) as picture:
            assert picture.size == (32, 32)
    before = files[0].read_bytes()
    write_inputs(tmp_path / "held", pictures=20, prompt_count=300, hold_back=True)
    assert files[0].read_bytes() == before
    with pytest.raises(ValueError, match="holds other inputs"):
        write_inputs(tmp_path / "held", pictures=21, prompt_count=300, hold_back=True)

"""The grid: its recipe, its cells as processes, what is collected from them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import filterfalse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import suder
from suder.cli import main
from suder.evaluation.result import Evaluation, Items
from suder.evaluation.statistics import paired_interval
from suder.evaluation.task import asked_kinds, in_validation
from suder.experiment import cell as cell_module
from suder.experiment import runner
from suder.experiment.collect import collect, regret
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import CONTROL, Cell, PlanError, merge, read_change, read_plan
from suder.experiment.plot import plot
from suder.experiment.runner import finished, run_cells
from suder.experiment.starts import weights_of
from suder.experiment.table import markdown
from suder.models import Janus
from suder.run.trainer import Trainer
from suder.settings.config_file import dump_config, load_config
from suder.storage.files import WriteError, finite, read_json, write_json
from suder.storage.folders import FolderError, claim, sole_writer
from suder.world import emoji
from suder.world.splits import split_of

RECIPE = Path(__file__).parents[3] / "recipes" / "experiment.yaml"
TINY: dict[str, Any] = {
    "starts": ["shapes", "shapes-2"],
    "seeds": [1, 2],
    "inputs": {"pictures": 24, "prompts": 24},
    "evaluation": {"n": 12, "checkpoint_n": 6, "candidates": 2, "temperatures": [1.0, 0.5]},
    "common": {
        "rounds": 2,
        "inputs_per_round": 2,
        "candidates": 2,
        "sampling": {"max_new_tokens": 4},
        "reward": {"cut_captions": "keep"},
        "guard": {"every": 2, "inputs": 2},
        "checkpoint": {"every": 1, "keep": 9},
    },
    "arms": {CONTROL: {}, "grpo": {}, "high": {"optimizer": {"lr": 0.01}}},
}


@pytest.fixture
def make_recipe(tmp_path: Path) -> Callable[..., Path]:
    def make(**changes: Any) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
        return path

    return make


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
    assert list(plan.arms) == ["start", "grpo", "simpo", "grpo-judge", "grpo-random"]
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


FAKE = """
import json, os, sys, time, pathlib
folder = pathlib.Path(sys.argv[1])
cell = json.loads((folder / "cell.json").read_text())
with open(folder / "times.txt", "a") as file:
    file.write(f"{os.environ['OMP_NUM_THREADS']} {time.time()}\\n")
if cell["arm"] == "high" and not (folder.parent / "mended").exists():
    print("something broke"); sys.exit(3)
(folder / "result.json").write_text(json.dumps({"fingerprint": cell["settings"]["print"]}))
"""


def fake_cells() -> list[Cell]:
    measures = read_plan(RECIPE).measures
    cells = []
    for arm, seed in (("grpo", 1), ("high", 1), ("grpo", 2)):
        cell = Cell(arm, "shapes", seed, "test", {}, measures, {})
        cells.append(cell)
    return cells


def test_finished_cells_are_not_run_again_and_failed_ones_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(runner, "COMMAND", (sys.executable, "-c", FAKE))
    monkeypatch.setattr(runner, "_PAUSE", 0.02)
    monkeypatch.setattr(Cell, "fingerprint", lambda self: "same")
    cells = [Cell(**{**vars(cell), "settings": {"print": "same"}}) for cell in fake_cells()]
    assert run_cells(cells, tmp_path, jobs=2, threads=1) == ["high.shapes.seed1"]
    assert "something broke" in capfd.readouterr().out
    assert finished(cells[0], tmp_path) is not None
    assert finished(cells[1], tmp_path) is None
    (tmp_path / "cells" / "mended").touch()
    assert run_cells(cells, tmp_path, jobs=2, threads=1) == []
    runs = {
        cell.name: (tmp_path / "cells" / cell.name / "times.txt").read_text().splitlines()
        for cell in cells
    }
    assert {name: len(lines) for name, lines in runs.items()} == {
        "grpo.shapes.seed1": 1,
        "high.shapes.seed1": 2,
        "grpo.shapes.seed2": 1,
    }
    assert all(line.startswith("1 ") for lines in runs.values() for line in lines)
    monkeypatch.setattr(Cell, "fingerprint", lambda self: "other")
    with pytest.raises(PlanError, match="made with other settings"):
        run_cells(cells, tmp_path)


SIGNALLED = """
import json, os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def note(number, frame):
    with open(folder / "signals.txt", "a") as file:
        file.write(f"{signal.Signals(number).name}\\n")
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, note)
(folder / "ready").touch()
for _ in range(1000):
    time.sleep(0.02)
    if (folder / "signals.txt").exists():
        time.sleep(0.3)
        (folder / "state").touch()
        sys.exit(1)
"""
EXPERIMENT = """
import sys
from pathlib import Path
from suder.cli import main
from suder.experiment import runner
runner.COMMAND = (sys.executable, "-c", sys.argv[1])
sys.exit(main(["experiment", "--out", sys.argv[2], "--recipe", sys.argv[3], "--arms", "grpo"]))
"""
# Ctrl-c reaches the whole group of processes in the foreground, the others one process.
ENDS = {"SIGTERM": (os.kill, 0), "SIGINT": (os.killpg, 130), "SIGHUP": (os.kill, 129)}


def test_no_cell_outlives_an_experiment_that_is_stopped(
    tmp_path: Path, make_recipe: Callable[..., Path]
):
    """Each is asked once, so that it can write its state, and waited for."""
    recipe = make_recipe()
    command = [sys.executable, "-c", EXPERIMENT, SIGNALLED]
    started = {
        name: subprocess.Popen(
            [*command, str(tmp_path / name), str(recipe)],
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            # Under nohup the signal is ignored, by these tests and by whom they start.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        for name in ENDS
    }  # fmt: skip
    for name, (send, code) in ENDS.items():
        cells = tmp_path / name / "cells"
        until = time.monotonic() + 120
        while len(list(cells.glob("*/ready"))) < 2:
            assert started[name].poll() is None, started[name].communicate()
            assert time.monotonic() < until
            time.sleep(0.05)
        send(started[name].pid, signal.Signals[name])
        said = started[name].communicate(timeout=60)[1]
        assert started[name].returncode == code, said
        assert f"stopped by {name}; what the cells have done is kept" in said
        asked = [path.read_text() for path in cells.glob("*/signals.txt")]
        assert asked == ["SIGTERM\n"] * 2
        assert len(list(cells.glob("*/state"))) == 2, "it was over before its cells were"


def test_an_experiment_takes_no_folder_of_others(
    tmp_path: Path, make_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    recipe = str(make_recipe())
    theirs, run, used = tmp_path / "theirs", tmp_path / "run", tmp_path / "used"
    for folder, name in ((theirs, "results.json"), (run, "config.yaml")):
        folder.mkdir()
        if folder == run:
            claim(run)
        (folder / name).write_text("theirs")
    claim(used)
    said = {
        theirs: "theirs is not empty and nothing of suder's: results.json is in it",
        run: f"--output: {run} holds a run; give the experiment another folder",
        used: f"{used} is in use by process {os.getpid()} on",
    }
    with sole_writer(used):
        for out, why in said.items():
            before = sorted(out.rglob("*"))
            for more in ([], ["--table-only"]):
                assert main(["experiment", "--out", str(out), "--recipe", recipe, *more]) == 2
                assert why in capsys.readouterr().err
            assert sorted(out.rglob("*")) == before
    assert (theirs / "results.json").read_text() == "theirs"


def test_cells_are_not_put_through_links(tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "cells").symlink_to(tmp_path / "theirs")
    with pytest.raises(FolderError, match="cells is a symbolic link"):
        run_cells(fake_cells(), tmp_path)
    (tmp_path / "inputs").symlink_to(tmp_path / "theirs")
    with pytest.raises(FolderError, match="inputs is a symbolic link"):
        write_inputs(tmp_path / "inputs", pictures=1, prompt_count=1)
    assert not list((tmp_path / "theirs").iterdir())


def test_a_full_disk_leaves_no_half_of_a_picture(tmp_path: Path, make_recipe: Callable[..., Path]):
    cells, _ = made_up(tmp_path, make_recipe)
    results = collect(cells, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"no space left for .*results\.png: it takes [\d,]+"):
            plot(results, tmp_path / "results.png")
        with pytest.raises(WriteError, match=r"no space left for .*0000\.png: it takes [\d,]+"):
            write_inputs(tmp_path / "inputs", pictures=24, prompt_count=24)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    halves = {"results.png", "results.png.partial", "0000.png", "0000.png.partial"}
    assert not halves & {path.name for path in tmp_path.rglob("*")}
    write_inputs(tmp_path / "inputs", pictures=24, prompt_count=24)


def test_a_cell_that_another_process_works_on_is_left_alone(
    tmp_path: Path, make_recipe: Callable[..., Path]
):
    """One whose experiment was killed goes on; so may somebody's `suder train --resume` of it."""
    cell = read_plan(make_recipe()).cells()[-1]
    folder = folder_of(cell, tmp_path)
    write_json(folder / "cell.json", asdict(cell))
    write_json(folder / "fingerprint.json", "of other settings")
    config = load_config(cell.tree(folder / "run", tmp_path / "inputs"))
    claim(folder / "run")
    (folder / "run" / "config.yaml").write_text(dump_config(config))
    (folder / "run" / "model").mkdir()
    for taken in (folder, folder / "run"):
        with sole_writer(taken), pytest.raises(FolderError, match=rf"{taken} is in use by"):
            cell_module.run_cell(folder, tmp_path / "inputs")
        assert (folder / "run" / "model").is_dir()


def test_a_cell_from_beginning_to_end_and_after_a_cut(
    tmp_path: Path,
    janus: Janus,
    make_recipe: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A control and an arm in this process; the arm is cut off between training and judging."""
    janus.save(tmp_path / "start")
    write_inputs(tmp_path / "inputs", pictures=24, prompt_count=24)
    plan = read_plan(make_recipe()).narrowed(
        starts=[str(tmp_path / "start")], seeds=[1], arms=[CONTROL, "grpo"]
    )
    cells = plan.cells()
    for cell in cells:
        write_json(folder_of(cell, tmp_path) / "cell.json", asdict(cell))
    cell_module.run_cell(folder_of(cells[0], tmp_path), tmp_path / "inputs")

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    folder = folder_of(cells[1], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cell_module, "evaluate", cut)
        with pytest.raises(KeyboardInterrupt):
            cell_module.run_cell(folder, tmp_path / "inputs")
    assert finished(cells[1], tmp_path) is None
    trained = (folder / "run" / "metrics.jsonl").read_bytes()
    cell_module.run_cell(folder, tmp_path / "inputs")
    assert (folder / "run" / "metrics.jsonl").read_bytes() == trained, "it was not trained again"
    result = finished(cells[1], tmp_path)
    assert result is not None
    rounds = [row["round"] for row in result["checkpoints"]]
    assert rounds == [0, 1, 2]
    assert sum(row["kept"] for row in result["checkpoints"]) == 1
    assert not (folder / "run" / "checkpoints").exists()
    assert (folder / "run" / "model" / "model.safetensors").is_file()
    results = collect(cells, tmp_path)
    assert [row["arm"] for row in results["cells"]] == ["grpo"]
    assert results["missing"] == []
    text = markdown(results)
    assert "| grpo | 1 |" in text
    plot(results, tmp_path / "results.png")
    with Image.open(tmp_path / "results.png") as picture:
        assert picture.size[0] > 500
    _start_trained_again(cells, tmp_path, janus, monkeypatch, capsys)


def _start_trained_again(
    cells: list[Cell],
    out: Path,
    janus: Janus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Of other weights under the name that they had, finished cells are none, and say so."""
    with torch.no_grad():
        next(iter(janus.trainable_parameters())).mul_(1.01)
    janus.save(out / "start")
    assert [finished(cell, out) for cell in cells] == [None, None]
    assert collect(cells, out)["missing"] == [cell.name for cell in cells]
    asked: list[str] = []
    monkeypatch.setattr(runner, "_PAUSE", 0.0)
    monkeypatch.setattr(runner, "_start", lambda cell, *_: asked.append(cell.name) or Ended())
    run_cells(cells, out)
    assert asked == [cell.name for cell in cells]
    assert capsys.readouterr().err.count("is run again") == 2
    cell_module._forget_others(cells[1], folder_of(cells[1], out), weights_of(cells[1].start))
    assert not (folder_of(cells[1], out) / "result.json").exists()
    assert not (folder_of(cells[1], out) / "run" / "summary.json").exists()
    write_json(folder_of(cells[0], out) / "result.json", {"fingerprint": cells[0].fingerprint()})
    assert finished(cells[0], out), "an earlier result, which does not say"


class Ended:
    """A process that has done its work."""

    returncode = 0

    def poll(self) -> int:
        return 0


def folder_of(cell: Cell, out: Path) -> Path:
    folder = out / "cells" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_unfinished_work_of_other_settings_is_thrown_away(
    tmp_path: Path, make_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    """Whatever the arm: what others were judged by judges nothing here. The user's stays."""
    control, *_, cell = read_plan(make_recipe()).cells()
    for one in (control, cell):
        folder = folder_of(one, tmp_path)
        write_json(folder / "fingerprint.json", "of other settings")
        names = ["greedy.npz", "sampled.npz", "t0.5.npz", "checkpoints/000001.npz"]
        for name in (*names, "mine.npz", "checkpoints/mine.npz"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("old")
        cell_module._forget_others(one, folder, "weights")
        assert {path.name for path in folder.rglob("*.npz")} == {"mine.npz"}
        mark = {"cell": one.fingerprint(), "start": "weights"}
        assert read_json(folder / "fingerprint.json") == mark
    write_json(folder / "fingerprint.json", "of other settings")
    run = folder / "run"
    claim(run)
    old = load_config(cell.tree(run, tmp_path), ["rounds=99"])
    (run / "config.yaml").write_text(dump_config(old))
    for name in ("summary.json", "rounds/000099/sample.safetensors", "rounds/000099/notes.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text('{"rounds": 99}')
    begun = {}

    class Trainer:
        def __init__(self, config: Any, quiet: bool) -> None:
            begun["config"] = config

        def run(self) -> dict[str, Any]:
            return {"rounds": 2}

    monkeypatch.setattr(cell_module, "Trainer", Trainer)
    cell_module._forget_others(cell, folder, "weights")
    assert [path.name for path in (run / "rounds").rglob("*") if path.is_file()] == ["notes.txt"]
    assert cell_module._train(cell, folder, tmp_path) == {"rounds": 2}
    assert begun["config"].optimizer.lr == 0.01
    assert begun["config"].seed == cell.seed


# ---- collecting, from made-up results


def evaluation(correct: np.ndarray) -> Evaluation:
    n = len(correct)
    names = [f"prompt {i}" for i in range(n)]
    clusters = [f"cluster {i // 4}" for i in range(n)]
    pictures = np.zeros((0, 32, 32, 3), np.uint8)
    items = Items(names, names, ["single"] * n, clusters, {"correct": correct}, pictures)
    return Evaluation(items, items, {"task": "shapes/test", "seed": 0, "greedy": True})


def made_up(out: Path, make_recipe: Callable[..., Path]) -> tuple[list[Cell], dict[str, Any]]:
    cells = read_plan(make_recipe()).narrowed(starts=["shapes"], arms=[CONTROL, "grpo"]).cells()
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {}
    for cell in cells:
        folder = folder_of(cell, out)
        names = ("greedy", "t1", "t0.5") if cell.arm == CONTROL else ("greedy", "sampled")
        for name in names:
            truth[cell.name, name] = rng.random(200) < (0.4 if cell.arm == CONTROL else 0.6)
            evaluation(truth[cell.name, name]).save(folder / f"{name}.npz")
        result: dict[str, Any] = {
            "fingerprint": cell.fingerprint(),
            "seconds": 9.0,
            "reward_accuracy": {"generation": [0.8, 0.7, 0.9], "understanding": [0.7, 0.6, 0.8]},
        }
        if cell.arm == CONTROL:
            best = rng.random(200) < 0.5
            result["best_of"] = {"generation": best.tolist(), "understanding": best.tolist()}
            result["any_of"] = {"generation": 0.9, "understanding": 0.9}
            truth["best"] = best
        else:
            result["summary"] = {"rounds": 2, "stopped": None, "seconds": 5.0}
            result["checkpoints"] = [
                {"round": 0, "kept": False, "generation": 0.4, "understanding": 0.4},
                {"round": 1, "kept": True, "generation": 0.5, "understanding": 0.6},
                {"round": 2, "kept": False, "generation": 0.7, "understanding": 0.5},
            ]
        write_json(folder / "result.json", result)
    return cells, truth


def test_collect_pairs_each_cell_with_its_own_start(
    tmp_path: Path, make_recipe: Callable[..., Path]
):
    cells, truth = made_up(tmp_path, make_recipe)
    results = collect(cells, tmp_path)
    start = cells[0].name
    clusters = [f"cluster {i // 4}" for i in range(200)]
    for cell, row in zip(cells[1:], results["cells"], strict=True):
        pairs = {
            "greedy": ("greedy", "greedy"),
            "sampled": ("sampled", "t1"),
            "sampled against greedy": ("sampled", "greedy"),
        }
        for comparison, (tuned, base) in pairs.items():
            direct = paired_interval(truth[start, base], truth[cell.name, tuned], clusters)
            found = row[comparison]["generation"]
            assert found["difference"] == pytest.approx(direct.estimate)
            assert found["interval"] == [direct.low, direct.high]
        assert row["guard"]["regret"] == pytest.approx(0.6 - 0.55)
    control = results["controls"]["shapes"]["rows"]
    best = control["best of 2"]["understanding"]
    assert best["difference"] == pytest.approx(truth["best"].mean() - truth[start, "greedy"].mean())
    assert set(control) == {"greedy", "temperature 1", "temperature 0.5", "best of 2"}
    arm = results["arms"]["grpo"]
    mean = np.mean([row["greedy"]["generation"]["difference"] for row in results["cells"]])
    assert arm["greedy"]["generation"]["estimate"] == pytest.approx(mean)
    assert arm["greedy"]["generation"]["up"] == 2
    assert arm["cells"] == 2
    tree = {"a": (float("nan"), 1.0), "b": results}
    assert json.loads(json.dumps(finite(tree), allow_nan=False))["a"] == [None, 1.0]
    text = markdown(results)
    assert f"{100 * mean:+.1f}" in text
    assert "5.0 (5.0)" in text


def test_what_is_missing_is_named(tmp_path: Path, make_recipe: Callable[..., Path]):
    cells, _ = made_up(tmp_path, make_recipe)
    (tmp_path / "cells" / cells[2].name / "result.json").unlink()
    results = collect(cells, tmp_path)
    assert results["missing"] == [cells[2].name]
    assert f"Not finished: {cells[2].name}." in markdown(results)
    assert results["arms"]["grpo"]["cells"] == 1


def test_command_collects(
    tmp_path: Path, make_recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    claim(out)
    made_up(out, make_recipe)
    command = ["experiment", "--out", str(out), "--recipe", str(make_recipe()), "--table-only"]
    narrowed = [*command, "--arms", "grpo", "--starts", "shapes"]
    assert main(narrowed) == 0
    assert "| grpo | 2 |" in capsys.readouterr().out
    assert json.loads((out / "results.json").read_text())["missing"] == []
    assert "| grpo | 2 |" in (out / "results.md").read_text()
    assert (out / "results.png").stat().st_size > 5000
    assert main([*narrowed, "--set", "rounds=3"]) == 2
    assert "made with other settings" in capsys.readouterr().err
    assert main([*command, "--jobs", "0"]) == 2


def test_regret():
    rows = [
        {"round": 0, "kept": True, "generation": 0.5, "understanding": 0.7},
        {"round": 40, "kept": False, "generation": 0.2, "understanding": 0.1},
    ]
    found = regret(rows)
    assert found["regret"] == 0.0
    assert (found["kept_round"], found["best_round"], found["last_round"]) == (0, 0, 40)
    assert found["last"] == pytest.approx(0.15)


def test_the_runner_starts_this_package():
    assert runner.COMMAND[1:] == ("-m", "suder.experiment.cell")
    assert Path(suder.__file__).parent.joinpath("experiment", "cell.py").is_file()

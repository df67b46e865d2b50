"""One cell: trained and judged, cut off, of other settings or another start than before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from suder.experiment import cell as cell_module
from suder.experiment import runner
from suder.experiment.collect import collect
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import CONTROL, Cell, read_plan
from suder.experiment.plot import plot
from suder.experiment.runner import finished, run_cells
from suder.experiment.starts import weights_of
from suder.experiment.table import markdown
from suder.models import Janus
from suder.settings.config_file import dump_config, load_config
from suder.storage.files import read_json, write_json
from suder.storage.folders import FolderError, claim, sole_writer
from tests.trainer.experiment.conftest import folder_of


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
    (out / "start").rename(out / "away")
    assert all(finished(cell, out) for cell in cells), "tables need no start model"
    (out / "away").rename(out / "start")
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

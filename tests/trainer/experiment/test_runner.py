"""Cells as processes: which are run again, how they are stopped, in which folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import suder
from suder.cli import main
from suder.experiment import runner
from suder.experiment.inputs import write_inputs
from suder.experiment.plan import Cell, PlanError, read_plan
from suder.experiment.runner import finished, run_cells
from suder.storage.folders import FolderError, claim, sole_writer
from tests.trainer.experiment.conftest import RECIPE

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


def test_the_runner_starts_this_package():
    assert runner.COMMAND[1:] == ("-m", "suder.experiment.cell")
    assert Path(suder.__file__).parent.joinpath("experiment", "cell.py").is_file()

"""A run's folder: what may be made one, what may be resumed, and what is never touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from suder.cli import main
from suder.inputs.pictures import DataError
from suder.models import load_model
from suder.run.folder import RunError, has_begun
from suder.run.leftovers import drop_checkpoints, drop_rounds, forget, tidy
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig
from suder.settings.config_file import load_config
from suder.storage.checkpoint import state_files
from suder.storage.files import read_json, read_jsonl, write_json
from suder.storage.folders import FolderError, sole_writer

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def run(finished: dict[str, Path], make_config: Make, tmp_path: Path,
        random_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # fmt: skip
    """A copy of one finished run of three rounds, whose start model is `start` beside it."""
    if not finished:
        home = tmp_path_factory.mktemp("finished")
        shutil.copytree(random_model_folder, home / "start")
        config = make_config(
            "rounds=3", f"model={home / 'start'}", f"output={home / 'run'}",
            "checkpoint.every=2", "guard.every=3",
        )  # fmt: skip
        Trainer(config, quiet=True).run()
        finished["home"] = home
    home = tmp_path / "copy"
    shutil.copytree(finished["home"], home)
    settings = home / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace(str(finished["home"]), str(home)))
    return home / "run"


class Killed(BaseException):
    """Not an Exception: nothing on the way may catch it and tidy up."""


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to the terminal, without the breaks of its lines, which may cut a path."""
    return "".join(capsys.readouterr().err.split())


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


# ---- what a run began with


@pytest.mark.parametrize("part", ["vqmodel", "language_model", "lm_head"])
def test_another_start_model_is_named_by_part(run: Path, part: str) -> None:
    """One value, the last of the part's last tensor: the first 256 of each are as they were."""
    path = run.parent / "start" / "model.safetensors"
    tensors = load_file(path)
    name = [name for name in sorted(tensors) if part in name and tensors[name].numel() > 300][-1]
    tensors[name].view(-1)[-1] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(RunError, match=rf"is not the model .*; other than then: {part}$"):
        Trainer.resume(run)


def test_another_template_or_picture_processor_is_named(run: Path) -> None:
    start = run.parent / "start"
    template = start / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    settings = read_json(start / "processor_config.json")
    settings["image_processor"]["image_mean"] = [0.4, 0.5, 0.5]
    write_json(start / "processor_config.json", settings)
    parts = r"chat_template\.jinja, processor_config\.json$"
    with pytest.raises(RunError, match=rf"other than then: {parts}"):
        Trainer.resume(run)


def test_frozen_weights_under_lora_count(make_config: Make, tmp_path: Path,
                                         random_model_folder: Path) -> None:  # fmt: skip
    start = tmp_path / "start"
    shutil.copytree(random_model_folder, start)
    config = make_config("lora.rank=2", f"model={start}", "rounds=1", "guard.enabled=false")
    Trainer(config, quiet=True).run()
    model = load_model(start)
    with torch.no_grad():
        model.core.model.language_model.layers[0].mlp.up_proj.weight[-1, -1] += 1
    model.save(start)
    with pytest.raises(RunError, match=r"other than then: language_model$"):
        Trainer.resume(config.output)


def test_pictures_that_changed_are_said(
    run: Path, inputs_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "data" / "inputs.json"
    inputs = read_json(path)
    digests = inputs["digests"]
    assert len(digests) == 12
    changed, gone = sorted(digests)[3], sorted(digests)[5]
    digests[changed] = "0" * 64
    for name in ("images", "watched_images"):
        inputs[name] = [f"{one}.gone" if one == gone else one for one in inputs[name]]
    digests[f"{gone}.gone"] = digests.pop(gone)
    write_json(path, inputs)
    Trainer.resume(run).run()
    said = told(capsys)
    assert "2of12picturesaregoneornotastheywere" in said
    assert changed.rpartition("/")[2] in said


def test_a_finished_run_of_an_older_version(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It hashed its pictures into a file of their own."""
    expected = weights(run)
    path = run / "data" / "inputs.json"
    inputs = read_json(path)
    write_json(run / "data" / "pictures.json", inputs.pop("digests"))
    write_json(path, inputs)
    assert Trainer.resume(run).run()["rounds"] == 3
    assert "whether12of12picturesareastheywereisnotknown" in told(capsys)
    assert weights(run) == expected


def test_changed_versions_are_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    origin = read_json(run / "versions.json")
    write_json(run / "versions.json", origin | {"torch": "1.0"})
    Trainer.resume(run).run()
    said = told(capsys)
    assert f"thesamebitsarenotpromised,forversionschanged:torchwas1.0,is{torch.__version__}" in said


# ---- states


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_damaged_state_falls_back_to_the_one_before(
    run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = weights(run)
    last = state_files(run)[-1]
    data = bytearray(last.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    last.write_bytes(
        {
            "truncated": data[:-7],
            "flipped": data,
            "foreign": (run.parent / "start" / "model.safetensors").read_bytes(),
            "empty": b"",
        }[damage]
    )
    (run / "model" / "model.safetensors").write_bytes(b"")
    assert Trainer.resume(run).run()["rounds"] == 3
    said = told(capsys)
    assert "000003.safetensors" in said
    assert "goingonfromround2" in said
    assert weights(run) == expected
    assert [row["round"] for row in read_jsonl(run / "metrics.jsonl")] == [0, 1, 2, 3]


@pytest.mark.parametrize("gone", ["folder", "files", "damaged"])
def test_without_a_state_it_says_what_can_be_used(run: Path, gone: str) -> None:
    expected = weights(run)
    for path in state_files(run):
        path.write_bytes(b"") if gone == "damaged" else path.unlink()
    if gone == "folder":
        (run / "state").rmdir()
    with pytest.raises(RunError, match=r"no state.*what can be used: .*checkpoints/000002.*best.*"
                       r"--start-over"):  # fmt: skip
        Trainer.resume(run, quiet=True).run()
    assert weights(run) == expected
    (run / "model" / "model.safetensors").write_bytes(b"")
    assert Trainer.resume(run, quiet=True, start_over=True).run()["rounds"] == 3
    assert weights(run) == expected


def fill_with_others(run: Path) -> set[str]:
    """What `suder evaluate` leaves in a run, and files of the user's beside what the run made."""
    theirs = ["rounds/000003/notes.txt", "checkpoints/000001/weights", "checkpoints/mine/weights"]
    theirs += ["rounds/7/sample.safetensors", "evaluation/mine.npz", "state/mine.safetensors"]
    theirs += ["evaluation/mine/tuned.greedy.npz", "notes.txt", "data/mine.jsonl"]
    ours = ["evaluation/tuned.greedy.npz", "evaluation/shapes.test.n2.seed0/base.sampled.npz"]
    ours += ["evaluation/shapes.test.n2.seed0/comparison.json"]
    for name in (*theirs, *ours):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    return {*theirs}


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def test_start_over_deletes_what_the_run_made_and_nothing_else(run: Path) -> None:
    theirs = fill_with_others(run)
    kept = {".suder", "config.yaml", "versions.json", "data/inputs.json", "data/dropped.jsonl"}
    kept |= {name for name in files(run) if name.startswith("tensorboard/")}
    forget(run, load_config(run / "config.yaml"))
    assert files(run) == theirs | kept
    shutil.rmtree(run / "checkpoints" / "000001")  # which may well be of a run
    assert not has_begun(run)


def test_start_over_begins_as_if_nothing_had_been(run: Path) -> None:
    expected = weights(run)
    fill_with_others(run)
    write_json(run / "summary.json", read_json(run / "summary.json") | {"evaluation": {"n": 9}})
    trainer = Trainer.resume(run, quiet=True, start_over=True)
    assert weights(run) == expected, "nothing is deleted before the run has the folder"
    assert "evaluation" not in trainer.run()
    assert weights(run) == expected
    assert not (run / "evaluation" / "tuned.greedy.npz").exists()
    trainer.run()  # a second call goes on, as any other's


def test_start_over_killed_anywhere_says_how_to_go_on(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each deletion: all is there and the last state too, or it asks again, or it is done."""
    fill_with_others(run)
    shutil.rmtree(run / "checkpoints" / "000001")
    config, before, ends = load_config(run / "config.yaml"), files(run), []
    for point in range(100):
        copy = run.with_name(f"killed{point}")
        shutil.copytree(run, copy)
        left = iter(range(point, -1, -1))

        def dying(act: Any, left: Any = left) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                if next(left, 1) == 0:
                    raise Killed
                return act(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("unlink", "rmdir", "replace"):
                patch.setattr(os, name, dying(getattr(os, name)))
            with suppress(Killed):
                forget(copy, config)
        for model in [*copy.glob("checkpoints/000002"), copy / "best", copy / "model"]:
            there = {path.name for path in model.glob("*")}
            whole = {path.name for path in (run / model.relative_to(copy)).glob("*")}
            assert there in (set(), whole), f"half of {model} has its name"
        if state_files(copy):
            assert before - files(copy) <= {"state/000002.safetensors"}
            ends.append("goes on")
        elif has_begun(copy):
            with pytest.raises(RunError, match=r"holds no state to go on from.*--start-over"):
                Trainer.resume(copy)
            ends.append("asks")
        else:
            ends.append("begins")
        if next(left, None) is not None:
            break
        shutil.rmtree(copy)
    assert ends == sorted(ends, key=["goes on", "asks", "begins"].index)
    assert set(ends) == {"goes on", "asks", "begins"}


def test_state_of_another_run_is_not_used(run: Path, make_config: Make) -> None:
    other = make_config("rounds=1", "seed=9", output="other")
    Trainer(other, quiet=True).run()
    for path in state_files(run):
        shutil.copy(state_files(Path(other.output))[-1], path)
    with pytest.raises(RunError, match=r"000003\.safetensors is the state of another run"):
        Trainer.resume(run, quiet=True).run()


def test_damaged_phase_is_made_again(make_config: Make) -> None:
    whole, config = make_config(output="whole"), make_config(output="part")
    Trainer(whole, quiet=True).run()
    Trainer(config, quiet=True).run()
    run = Path(config.output)
    state_files(run)[-1].unlink()
    for name in ("sample", "score"):
        path = run / "rounds" / "000002" / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    Trainer.resume(run, quiet=True).run()
    assert weights(run) == weights(Path(whole.output))


# ---- torn and foreign files


def test_torn_log_is_laid_aside_and_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "metrics.jsonl"
    rows = path.read_text().split("\n")
    torn = "\n".join([rows[0], rows[1][:20], '{"round": "<b>"}', *rows[2:]])
    path.write_text(torn)
    Trainer.resume(run).run()
    said = told(capsys)
    assert "metrics.jsonl,line2:notJSON" in said
    assert "metrics.jsonl.damaged" in said
    assert [row["round"] for row in read_jsonl(path)] == [0, 2, 3]
    assert Path(f"{path}.damaged").read_text() == torn


@pytest.mark.parametrize("text", ["", "{", "[]", '{"start": 3}', '{"start": {}, "run": 5}'])
def test_torn_versions_are_named(run: Path, text: str) -> None:
    (run / "versions.json").write_text(text)
    with pytest.raises(RunError, match=r"versions\.json(?s:.*)what can be used: .*best"):
        Trainer.resume(run)


def test_torn_summary_is_written_anew_and_an_evaluation_kept(run: Path) -> None:
    path = run / "summary.json"
    summary = read_json(path)
    write_json(path, summary | {"evaluation": {"n": 1000}})
    again = Trainer.resume(run, quiet=True).run()
    assert again.pop("evaluation") == {"n": 1000}
    path.write_text('{"rou')
    again = Trainer.resume(run, quiet=True).run()
    assert again.keys() == summary.keys()
    assert read_json(path) == again


# ---- the user's own


@pytest.mark.parametrize("name", ["model", "best", "data", "rounds", "notes.txt"])
def test_folder_with_something_of_the_users_is_refused(
    make_config: Make, tmp_path: Path, name: str
) -> None:
    theirs = tmp_path / "run" / name
    theirs.mkdir(parents=True)
    (theirs / "weights").write_text("theirs")
    with pytest.raises(FolderError, match=rf"not empty and nothing of suder's: {name} is in it"):
        Trainer(make_config())
    assert [path.name for path in (tmp_path / "run").rglob("*")] == [name, "weights"]


def test_the_current_folder_is_not_filled(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for output in ("", "."):
        config = make_config().model_copy(update={"output": output})
        with pytest.raises(RunError, match="name a folder for the run"):
            Trainer(config)
    assert not list((tmp_path / "here").iterdir())


@pytest.mark.parametrize("name", ["rounds", "state", "checkpoints", "best", "model", "data"])
def test_links_in_a_run_are_refused(run: Path, tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "theirs"
    shutil.move(run / name, theirs)
    (theirs / "000000").mkdir()
    (run / name).symlink_to(theirs)
    before = sorted(theirs.rglob("*"))
    with pytest.raises(FolderError, match=rf"{name} is a symbolic link"):
        Trainer.resume(run).run()
    assert sorted(theirs.rglob("*")) == before


def test_only_what_the_run_made_is_deleted(tmp_path: Path) -> None:
    rounds, checkpoints = tmp_path / "rounds", tmp_path / "checkpoints"
    for number in range(1, 7):
        for folder in (rounds, checkpoints):
            (folder / f"{number:06d}").mkdir(parents=True)
            (folder / f"{number:06d}" / "sample.safetensors").touch()
    (rounds / "000002" / "notes.txt").touch()
    theirs = tmp_path / "theirs"
    shutil.move(rounds / "000001", theirs)
    (rounds / "000001").symlink_to(theirs)
    (rounds / "7").mkdir()
    drop_rounds(rounds, 10**6, 2)
    drop_checkpoints(checkpoints, 10**6, every=2, keep=1)
    assert {path.name for path in rounds.iterdir()} == {"7", "000001", "000002", "000005", "000006"}
    assert (theirs / "sample.safetensors").exists()
    assert [path.name for path in (rounds / "000002").iterdir()] == ["notes.txt"]
    assert {path.name for path in checkpoints.iterdir()} == {
        "000001", "000003", "000005", "000006",
    }  # fmt: skip


def test_leftovers_of_the_user_and_behind_links_stay(tmp_path: Path) -> None:
    """What an earlier life left half written goes; what only looks like it does not."""
    run, theirs = tmp_path / "run", tmp_path / "theirs"
    for folder in (run / "rounds" / "000001", run / "state", run / "data", theirs):
        folder.mkdir(parents=True)
    (run / "rounds" / "000002").symlink_to(theirs)
    ours = ["rounds/000001/score.safetensors", "state/000001.safetensors", "data/inputs.json"]
    others = [run / "notes.partial", run / "data" / "mine.partial", run / "state" / "a.partial"]
    others += [theirs / "sample.safetensors.partial", theirs / "film.mkv.partial"]
    for path in [*(run / f"{name}.partial" for name in ours), *others]:
        path.touch()
    (run / "summary.json.partial").mkdir()
    tidy(run)
    assert not any((run / f"{name}.partial").exists() for name in ours)
    assert all(path.exists() for path in others)


def test_what_an_earlier_life_left_is_not_counted(tmp_path: Path) -> None:
    """After --start-over: numbers above the present one are not the latest."""
    for number in (50, 150, 200):
        (tmp_path / f"{number:06d}").mkdir()
        (tmp_path / f"{number:06d}" / "sample.safetensors").touch()
    drop_checkpoints(tmp_path, 50, every=50, keep=1)
    drop_rounds(tmp_path, 50, keep=1)
    assert (tmp_path / "000050" / "sample.safetensors").exists()


# ---- starts that are refused


def test_refused_start_leaves_nothing(make_config: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.heldout: 0\.98 of 12 different pictures leaves"):
        Trainer(make_config("data.heldout=0.98"))
    assert not (tmp_path / "run").exists()
    config = make_config("rounds=1", "guard.enabled=false")
    Trainer(config, quiet=True).run()


def test_start_that_failed_before_any_work_does_not_stand_in_the_way(
    make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config("rounds=1", "seed=5")
    with monkeypatch.context() as patch:
        patch.setattr("suder.run.oversight.Watch.look", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            Trainer(config, quiet=True).run()
    Trainer(make_config("rounds=1"), quiet=True).run()
    assert "seed: 0" in (Path(config.output) / "config.yaml").read_text()
    with pytest.raises(RunError, match="holds a run already"):
        Trainer(config, quiet=True)


def test_of_two_trainers_of_one_folder_the_first_does_not_run(make_config: Make) -> None:
    """Its states would be another run's to every resume."""
    config = make_config("rounds=1", "guard.enabled=false")
    first, second = Trainer(config, quiet=True), Trainer(config, quiet=True)
    with pytest.raises(RunError, match=r"another run was begun in .* since this one was"):
        first.run()
    second.run()
    assert Trainer.resume(config.output, quiet=True).run()["rounds"] == 1


PIPES = {
    "versions.json": "versions.json: not a regular file",
    "config.yaml": "no config.yaml",
    "metrics.jsonl": "metrics.jsonl: not a regular file",
    "data/inputs.json": "inputs.json: not a regular file",
    "data/dropped.jsonl": "dropped.jsonl: not a regular file",
    "state/000003.safetensors": "",
    "rounds/000003/sample.safetensors": "",
    "summary.json": "",
    ".suder": ".suder is not a regular file",
}


@pytest.mark.parametrize("name", PIPES)
def test_pipes_in_a_run_keep_nobody_waiting(
    run: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are named, or gone round as any other damage."""
    if name.startswith("rounds"):
        state_files(run)[-1].unlink()
    (run / name).unlink()
    os.mkfifo(run / name)
    signal.alarm(30)  # ends the test's process
    code = main(["train", "--resume", str(run), "--quiet"])
    signal.alarm(0)
    assert code == (2 if PIPES[name] else 0)
    assert PIPES[name] in " ".join(capsys.readouterr().err.split())


def test_second_trainer_is_refused(run: Path) -> None:
    trainer = Trainer.resume(run, quiet=True)
    with sole_writer(run):
        for act in (trainer.run, lambda: Trainer.resume(run)):
            with pytest.raises(FolderError, match=r"in use by process \d+ on"):
                act()
    trainer.run()
    json.loads((run / ".suder").read_text())

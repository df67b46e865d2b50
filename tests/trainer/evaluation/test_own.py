"""A user's own inputs: both models' answers, their rewards by the base, paired differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from suder.cli import main
from suder.evaluation.own import beside, mean_difference
from suder.evaluation.own_inputs import TRAINED, OwnInputs, read_own
from suder.inputs.data import Inputs
from suder.inputs.files import DataError
from suder.inputs.pictures import digest_of, load_picture
from suder.method.rewards import DualReward
from suder.models import load_model
from suder.run.trainer import Trainer
from suder.settings.config import TrainConfig

Make = Callable[..., TrainConfig]


@pytest.fixture
def photos(inputs_folder: Path, tmp_path: Path) -> Path:
    """Six pictures, of which two have texts of their own and one is the first again."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        data = (inputs_folder / "pictures" / f"{number:02d}.png").read_bytes()
        (folder / f"{number}.png").write_bytes(data)
    (folder / "5.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "0.txt").write_text("a red circle\n")
    row = {"file_name": "2.png", "text": "two blue square"}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_intervals_are_students_over_clusters() -> None:
    change = np.random.default_rng(0).normal(3.0, 40.0, 12)  # far beyond what a fraction may be
    found = mean_difference(change, range(12))
    low, high = stats.t.interval(0.95, 11, change.mean(), stats.sem(change))
    assert np.allclose(found[:3], (change.mean(), low, high), rtol=1e-12)
    twice = mean_difference(np.repeat(change, 2), np.repeat(np.arange(12), 2))
    assert np.allclose(twice[:3], found[:3], rtol=1e-12)  # copies are no new evidence
    assert mean_difference(change[:1], ["one"]).high == np.inf
    assert mean_difference(np.zeros(3), range(3))[:3] == (0.0, 0.0, 0.0)


def test_both_models_on_own_inputs(
    random_model_folder: Path, lively_model_folder: Path, photos: Path, inputs_folder: Path
) -> None:
    base, tuned = load_model(random_model_folder), load_model(lively_model_folder)
    inputs = read_own(photos, inputs_folder / "prompts.txt", count=6)
    assert inputs.captions == ("a red circle", "", "two blue square", "", "", "")
    found = beside(base, tuned, inputs, greedy=False, max_new_tokens=6)
    scorer, own = DualReward(base), DualReward(tuned)
    shown = [load_picture(path) for path in inputs.pictures]
    side = found.tuned
    assert side.measured.keys() == {"generation", "understanding", "own_caption", "own_picture"}
    by_hand = {
        "generation": scorer.generation(inputs.prompts, side.drawn),
        "understanding": scorer.understanding(shown, side.captions),
        "own_caption": own.generation(inputs.captions, shown),
        "own_picture": own.understanding(shown, inputs.captions),
    }
    for name, values in by_hand.items():
        expected = values.double().numpy()
        assert np.allclose(side.measured[name], expected, atol=1e-5, equal_nan=True), name
    told = found.differences()
    assert told["own_caption"]["n"] == 2
    change = side.measured["generation"] - found.base.measured["generation"]
    assert np.isclose(told["generation"]["difference"], change.mean(), atol=1e-9)
    assert np.abs(change).max() > 1e-3  # they are two models
    again = beside(base, base, inputs, greedy=False, max_new_tokens=6).differences()
    assert all(row["interval"] == [0.0, 0.0] for row in again.values())


def test_what_a_run_learnt_from_is_left_out(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red circle\n\na blue square\na red circle\n")
    trained = {"a red circle", digest_of((photos / "0.png").read_bytes())}
    found = read_own(photos, file, count=99, trained=trained)
    assert found.prompts == ("a blue square",)
    assert [Path(path).name for path in found.pictures] == [f"{i}.png" for i in (1, 2, 3, 4)]
    lost = [Path(name).name for name, why in found.left_out if why == TRAINED]
    assert sorted(lost) == ["0.png", "5.png", "a red circle"]
    with pytest.raises(DataError, match=r"--prompts: .* the run was trained on all 2"):
        read_own(None, file, count=9, trained={"a red circle", "a blue square"})
    with pytest.raises(DataError, match="--images: there is no folder"):
        read_own(tmp_path / "none", None, count=9)


def test_the_command(make_config: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config("guard.action=watch", "rounds=1", "data.heldout=0.7")
    Trainer(config, quiet=True).run()
    kept = Inputs.load(Path(config.output))
    page = tmp_path / "own.html"
    own = ["--images", config.data.images, "--prompts", config.data.prompts]
    own += ["--temperature", "0.7"]
    assert main(["evaluate", config.output, *own, "--output", str(page)]) == 0
    words = capsys.readouterr().out
    assert "R_G of the pictures drawn: " in words
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert told["settings"]["temperature"] == 0.7  # asked for, so it samples
    assert {row["prompt"] for row in told["prompts"]} == set(kept.watched_prompts)
    assert {row["picture"] for row in told["pictures"]} == set(kept.watched_images)
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == len(kept.watched_prompts)
    assert "right" not in text.split("</style>")[1]  # no verdict of a judge
    assert main(["evaluate", config.model, *own, "--output", str(page), "--overwrite"]) == 2
    assert "--base M" in capsys.readouterr().err


def test_one_kind_alone(random_model_folder: Path, inputs_folder: Path) -> None:
    base = load_model(random_model_folder)
    inputs = read_own(None, inputs_folder / "prompts.txt", count=2)
    assert inputs == OwnInputs(prompts=inputs.prompts)
    assert beside(base, base, inputs).differences().keys() == {"generation"}

"""Evaluating, pairing and grouping: against answers known beforehand, and on a random model."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from suder.cli import main
from suder.evaluation import controls
from suder.evaluation import evaluate as evaluate_module
from suder.evaluation.checker import CATEGORIES, caption_correct, picture_correct
from suder.evaluation.compare import accuracies, compare, headline, in_order
from suder.evaluation.controls import Groups, candidate_groups
from suder.evaluation.evaluate import about_model, evaluate, settings_of
from suder.evaluation.result import kept_evaluation, load_evaluation
from suder.evaluation.statistics import paired_interval
from suder.evaluation.task import (
    Task,
    asked_kinds,
    distinct_first,
    in_validation,
    kinds_of,
    shapes_task,
)
from suder.evaluation.worlds import task_of
from suder.models import Janus, load_model
from suder.world.drawing import draw
from suder.world.scenes import all_scenes, prompts, scenes
from suder.world.splits import split_of
from suder.world.things import Scene, Thing

SCENES = list(all_scenes())


def scene_of(prompt: str) -> Scene:
    """Some scene for which the prompt is true and complete: the first one found."""
    return next(scene for scene in SCENES if caption_correct(prompt, scene))


class Scripted:
    """Stands for model and sampler: answers each input from a table, whatever the batch."""

    asks: dict[str, str] = {}  # noqa: RUF012
    max_new_tokens = 32
    weights = torch.zeros(3)

    def __init__(self, pictures: dict[str, np.ndarray], captions: dict[bytes, str]) -> None:
        self.pictures, self.captions = pictures, captions
        self.drawn: list[np.ndarray] = []
        self.said: list[str] = []
        self.calls: list[tuple[str, int, dict[str, Any]]] = []

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"model.layer.weight": self.weights}

    def save_description(self, folder: Any) -> None:
        (Path(folder) / "tokenizer.json").write_text("{}")

    def sample(
        self, model: Any, direction: str, condition: Any, n: int = 1, **how: Any
    ) -> SimpleNamespace:
        self.calls.append((direction, len(condition), how))
        if direction == "generation":
            first = len(self.drawn)
            self.drawn += [self.pictures[prompt] for prompt in condition for _ in range(n)]
            rows = torch.arange(first, len(self.drawn))[:, None]
            return SimpleNamespace(tokens=rows)
        first = len(self.said)
        self.said += [self.captions[bytes(row)] for row in condition for _ in range(n)]
        return SimpleNamespace(tokens=[torch.tensor([i]) for i in range(first, len(self.said))])

    def decode(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.drawn[i] for i in tokens[:, 0].tolist()]))

    def pixels(self, pictures: Sequence[np.ndarray]) -> list[bytes]:
        return [picture.tobytes() for picture in pictures]

    def detokenize(self, ids: Sequence[torch.Tensor]) -> list[str]:
        return [self.said[int(row)] for row in ids]


@pytest.fixture(scope="module")
def task() -> Task:
    return shapes_task("test", 60, 0)


@pytest.fixture
def scripted(task: Task, monkeypatch: pytest.MonkeyPatch) -> tuple[Scripted, np.ndarray]:
    """Right for every input whose number is not a multiple of 3."""
    right = np.array([item % 3 > 0 for item in range(60)])
    blank = np.full((32, 32, 3), 255, np.uint8)
    pictures = {
        prompt: draw(scene_of(prompt), 5) if good else blank
        for prompt, good in zip(task.prompts, right, strict=True)
    }
    captions = {
        picture.tobytes(): truth if good else "a red"
        for picture, truth, good in zip(task.pictures, task.references, right, strict=True)
    }
    model = Scripted(pictures, captions)
    monkeypatch.setattr(evaluate_module, "sample", model.sample)
    monkeypatch.setattr(controls, "sample", model.sample)
    return model, right


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("batch_size", [7, 256])
def test_each_answer_is_judged_against_its_own_input(
    task: Task, scripted: tuple[Scripted, np.ndarray], greedy: bool, batch_size: int
):
    model, right = scripted
    found = evaluate(model, task=task, greedy=greedy, batch_size=batch_size, progress=False)
    np.testing.assert_array_equal(found.generation.correct, right)
    np.testing.assert_array_equal(found.understanding.correct, right)
    assert found.accuracy() == {"generation": 40 / 60, "understanding": 40 / 60}
    assert found.generation.inputs == list(task.prompts)
    assert found.understanding.answers[1] == task.references[1]
    np.testing.assert_array_equal(found.generation.pictures[1], model.pictures[task.prompts[1]])
    how = model.calls[0][2]
    assert how["greedy"] if greedy else how["temperature"] == 1.0


def test_batches_of_one_evaluation_draw_from_different_seeds(
    task: Task, scripted: tuple[Scripted, np.ndarray]
):
    model, _ = scripted
    evaluate(model, task=task, greedy=False, batch_size=7, progress=False)
    seeds = [how["seed"] for direction, _, how in model.calls if direction == "generation"]
    assert len(set(seeds)) == len(seeds) > 1


def test_greedy_draws_a_repeated_prompt_once(scripted: tuple[Scripted, np.ndarray], task: Task):
    model, _ = scripted
    twice = Task(**{**vars(task), "prompts": [task.prompts[1], task.prompts[0]] * 30})
    drawn = evaluate(model, task=twice, progress=False).generation.pictures
    assert model.calls[0][:2] == ("generation", 2)
    for item, prompt in enumerate(twice.prompts):
        np.testing.assert_array_equal(drawn[item], model.pictures[prompt])


def test_nearly_greedy_drawings_are_one_for_each_item(
    scripted: tuple[Scripted, np.ndarray], task: Task
):
    model, _ = scripted
    few = Task(**{**vars(task), "prompts": [task.prompts[1]] * 60, "nearly_greedy": 0.1})
    found = evaluate(model, task=few, progress=False)
    direction, count, how = model.calls[0]
    assert (direction, count, how["temperature"]) == ("generation", 60, 0.1)
    assert [how["greedy"] for direction, _, how in model.calls if direction == "understanding"]
    assert found.settings["nearly_greedy"] == 0.1
    assert "nearly_greedy" not in settings_of(model, few, greedy=False)


def test_a_random_model_gives_the_same_answers_twice_and_round_the_disk(
    shared_janus: Janus, tmp_path: Path
):
    one = evaluate(shared_janus, n=12, greedy=False, max_new_tokens=4, progress=False)
    two = evaluate(shared_janus, n=12, greedy=False, max_new_tokens=4, progress=False)
    one.save(tmp_path / "deep" / "one.npz")
    back = load_evaluation(tmp_path / "deep" / "one.npz")
    for other in (two, back):
        assert other.understanding.answers == one.understanding.answers
        assert other.generation.inputs == one.generation.inputs
        assert other.generation.categories == one.generation.categories
        assert other.settings == one.settings
        np.testing.assert_array_equal(other.generation.pictures, one.generation.pictures)
        np.testing.assert_array_equal(other.generation.correct, one.generation.correct)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["one.npz"]


def test_shapes_task_asks_of_its_split_and_nothing_twice():
    task = shapes_task("test", 400, 1)
    assert len(task.prompts) == len(task.pictures) == len(task.references) == 400
    assert len(set(task.prompts)) == 400
    for prompt in task.prompts:
        first, second = asked_kinds(prompt)
        assert split_of((first, second)) == "test"
    for reference, category in zip(task.references, task.picture_categories, strict=True):
        assert category in CATEGORIES
        first, second = asked_kinds(reference)
        assert split_of((first, second)) == "test"
    every = list(range(400))
    truths = task.judge_captions(list(task.references), every)["correct"]
    assert truths.all(), "true captions of the pictures are right"
    shifted = task.judge_captions(list(task.references), every[1:] + every[:1])["correct"]
    assert shifted.mean() < 0.1
    same = shapes_task("test", 400, 1)
    assert list(same.prompts) == list(task.prompts)
    np.testing.assert_array_equal(np.stack(same.pictures), np.stack(task.pictures))


def test_clusters_are_combinations_of_things():
    task = shapes_task("test", 400, 1)
    for prompt, cluster in zip(task.prompts, task.prompt_clusters, strict=True):
        assert cluster == " + ".join(sorted(f"{c} {s}" for c, s in asked_kinds(prompt)))
    assert 60 < len(set(task.prompt_clusters)) < 200


def test_validation_is_part_of_unlabelled_and_never_of_test():
    task = shapes_task("validation", 150, 0)
    for prompt in task.prompts:
        first, second = asked_kinds(prompt)
        assert split_of((first, second)) == "unlabelled"
        assert in_validation((first, second))
    pairs = {tuple(sorted(kinds_of(scene))) for scene in scenes("unlabelled", 3000, 0)}
    pairs = {pair for pair in pairs if len(pair) == 2}
    share = np.mean([in_validation(pair) for pair in pairs])
    assert 0.2 < share < 0.5
    for pair in pairs:
        assert in_validation(pair) == in_validation(pair[::-1])
    tested = [asked_kinds(prompt) for prompt in prompts("test", 500, 0)]
    assert not any(in_validation(kinds) for kinds in tested)


def test_distinct_first():
    assert distinct_first("aabcab", 6) == ["a", "b", "c", "a", "b", "a"]
    assert distinct_first("aab", 2) == ["a", "b"]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        shapes_task("test", 0, 0)
    with pytest.raises(ValueError, match="no split 'train'; there are supervised, unlabelled"):
        shapes_task("train", 5, 0)
    with pytest.raises(
        ValueError, match="no judge for world 'faces'; there are judges for shapes, digits, emoji"
    ):
        task_of("faces", "test", 5, 0)


def test_compare_equals_the_arithmetic(task: Task, scripted: tuple[Scripted, np.ndarray]):
    model, right = scripted
    base = evaluate(model, task=task, progress=False)
    model.pictures = {prompt: draw(scene_of(prompt), 6) for prompt in task.prompts}
    model.weights = torch.ones(3)
    tuned = evaluate(model, task=task, progress=False)
    rows = compare(base, tuned)
    row = headline(rows, "generation")
    assert (row["base"], row["tuned"]) == (40 / 60, 1.0)
    assert row["difference"] == pytest.approx(20 / 60)
    direct = paired_interval(right, np.ones(60), task.prompt_clusters)
    assert row["interval"] == [direct.low, direct.high]
    nothing = headline(rows, "understanding")
    assert nothing["difference"] == 0.0
    assert nothing["interval"][0] < 0 < nothing["interval"][1], "60 items do not prove a 0"
    itself = headline(compare(base, base), "generation")
    assert (itself["difference"], itself["interval"]) == (0.0, [0.0, 0.0])
    for direction in ("generation", "understanding"):
        parts = [
            row for row in rows if row["direction"] == direction and row["category"] in CATEGORIES
        ]
        assert sum(row["n"] for row in parts) == 60
        weighted = sum(row["n"] * row["difference"] for row in parts) / 60
        assert weighted == pytest.approx(headline(rows, direction)["difference"])
    labels = [row["category"] for row in rows if row["direction"] == "generation"]
    assert labels[0] == "all"
    assert {"two_objects: shapes right", "two_objects: colours bound"} < set(labels)
    alone = accuracies(tuned)
    assert alone[0]["accuracy"] == 1.0
    assert alone[0]["n"] == 60


def test_an_evaluation_is_reused_only_of_the_same_weights_inputs_and_settings(
    task: Task, scripted: tuple[Scripted, np.ndarray], tmp_path: Path
):
    model, _ = scripted
    file = tmp_path / "one.npz"
    assert kept_evaluation(file, settings_of(model, task)) is None
    evaluate(model, task=task, progress=False).save(file)
    assert kept_evaluation(file, settings_of(model, task)) is not None
    changed = [
        settings_of(model, task, **how)
        for how in ({"seed": 1}, {"greedy": False}, {"guidance": 2.0}, {"max_new_tokens": 9})
    ]
    pictures = [picture ^ (i == 5) for i, picture in enumerate(task.pictures)]
    for field, other in (("pictures", pictures), ("prompts", list(task.prompts)[::-1])):
        changed.append(settings_of(model, Task(**{**vars(task), field: other})))
    model.weights = torch.tensor([0.0, 0.0, 1e-7])
    changed.append(settings_of(model, task))
    for settings in changed:
        assert kept_evaluation(file, settings) is None
    file.write_bytes(file.read_bytes()[:-100])
    model.weights = Scripted.weights
    assert kept_evaluation(file, settings_of(model, task)) is None


def test_different_inputs_cannot_be_compared(
    task: Task, scripted: tuple[Scripted, np.ndarray], shared_janus: Janus
):
    model, _ = scripted
    one = evaluate(model, task=task, progress=False)
    other = Task(**{**vars(task), "prompts": list(reversed(task.prompts))})
    two = evaluate(model, task=other, progress=False)
    with pytest.raises(ValueError, match="one split, n and seed"):
        compare(one, two)


def test_categories_come_in_the_checkers_order():
    assert in_order(["zero", "position", "single", "zero"]) == ["single", "position", "zero"]


def test_best_of_n_and_any_of_n():
    nan, inf = np.nan, np.inf
    reward = np.array([[0.1, 0.9, 0.5], [nan, 0.2, 0.1], [nan, inf, -inf], [0.3, 0.3, 0.1]])
    correct = np.array([[0, 1, 0], [0, 1, 0], [1, 1, 1], [1, 0, 0]], bool)
    groups = Groups(reward, correct, ["a", "b", "c", "d"])
    assert groups.best().tolist() == [True, True, False, True]
    assert groups.any_right().tolist() == [True] * 4
    # group a: the right one beats both; b: one pair, for NaN is in none; d: a tie and a win.
    assert groups.reward_accuracy().estimate == pytest.approx((2 + 1 + 1.5) / 5)


def test_candidate_groups_score_and_judge_the_same_candidates(
    task: Task, scripted: tuple[Scripted, np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    """A reward that is the judge's own verdict must come out perfect, and its negative as bad."""
    model, _ = scripted
    blank = np.full((32, 32, 3), 255, np.uint8)
    flip = np.random.default_rng(0)

    def sample(
        self: Any, direction: str, condition: Any, n: int = 1, **how: Any
    ) -> SimpleNamespace:
        drawn = model.sample(self, direction, condition, n, **how)
        store: Any = model.drawn if direction == "generation" else model.said
        for place in range(len(store) - len(condition) * n, len(store)):
            if flip.random() < 0.5:
                store[place] = blank if direction == "generation" else "a red"
        return drawn

    class Oracle:
        def __init__(self, model: Any) -> None: ...

        def generation(self, asked: Sequence[str], tokens: Any, group: int) -> torch.Tensor:
            pictures = model.decode(tokens).numpy()
            right = [picture_correct(p, asked[i // group]) for i, p in enumerate(pictures)]
            return torch.tensor(right, dtype=torch.float32)

        def understanding(self, shown: Any, captions: Sequence[str], group: int) -> torch.Tensor:
            return torch.tensor([float(text != "a red") for text in captions])

    class Encoding(Scripted):
        def encode(self, pixels: Any) -> Any:
            return pixels

    model.__class__ = Encoding
    monkeypatch.setattr(controls, "sample", sample)
    monkeypatch.setattr(controls, "DualReward", Oracle)
    groups = candidate_groups(model, task, candidates=4, inputs=30, batch_size=8, progress=False)
    for one in groups.values():
        assert one.reward.shape == one.correct.shape == (30, 4)
        assert 0.1 < one.correct.mean() < 0.6
        assert one.reward_accuracy().estimate == 1.0
        np.testing.assert_array_equal(one.best(), one.any_right())
        flipped = Groups(-one.reward, one.correct, one.clusters)
        assert flipped.reward_accuracy().estimate == 0.0


def test_candidate_groups_of_a_real_model(shared_janus: Janus, task: Task):
    groups = candidate_groups(shared_janus, task, candidates=3, inputs=5, progress=False)
    for one in groups.values():
        assert one.reward.shape == (5, 3)
        finite = one.reward[~np.isnan(one.reward)]
        assert finite.size
        assert (finite < 0).all()
        assert len(set(finite.tolist())) > 1
        assert math.isnan(one.reward_accuracy().estimate) or one.correct.any()


def test_command(shared_janus: Janus, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "model"
    shared_janus.save(folder)
    model = ["evaluate", str(folder), "--n", "6"]
    assert main([*model, "--sampled", "--out", str(tmp_path / "items.npz")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"0\.0% │ 0\.0 to [3-9]\d\.\d%", said), "six items say little"
    saved = load_evaluation(tmp_path / "items.npz")
    assert saved.settings == {
        "task": "shapes/test", "inputs": shapes_task("test", 6, 0).digest(), "seed": 0,
        "greedy": False, "temperature": 1.0, "guidance": 1.0, "max_new_tokens": 32,
        **shared_janus.asks, **about_model(load_model(folder)),
    }  # fmt: skip
    capsys.readouterr()
    mine = tmp_path / "prompts.txt"
    mine.write_text("a red circle")
    for out, message in ((mine, "is there already"), (tmp_path, "is a folder"),
                         (tmp_path / "no" / "x.npz", "no folder")):  # fmt: skip
        assert main([*model, "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
    assert mine.read_text() == "a red circle"
    assert main([*model, "--out", str(tmp_path / "items.npz"), "--overwrite"]) == 0
    assert load_evaluation(tmp_path / "items.npz").settings["greedy"]
    assert main([*model, "--base", str(folder)]) == 0
    assert "+0.0 to +0.0" in capsys.readouterr().out
    assert main([*model, "--split", "none"]) == 2
    assert "no split 'none'" in capsys.readouterr().err
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").touch()
    assert main(["evaluate", str(run), "--base", "shapes"]) == 2
    assert "a run is compared with its start model" in capsys.readouterr().err


def test_a_scene_that_is_asked_for_is_right():
    for prompt in prompts("test", 60, 3):
        assert picture_correct(draw(scene_of(prompt), 1), prompt)
    assert not picture_correct(draw(Scene((Thing("red", "circle", 0),)), 1), "two red circles")

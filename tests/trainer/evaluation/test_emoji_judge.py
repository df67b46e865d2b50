"""The judge of emoji: an exact grammar, and a classifier that knows nothing from something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from suder.evaluation import emoji_classifier, emoji_judge
from suder.evaluation.emoji_classifier import DAMAGES, Seen, spoilt, to_input, train_classifier
from suder.evaluation.emoji_judge import emoji_task, parse, places
from suder.evaluation.worlds import task_of
from suder.world import emoji
from suder.world.emoji import Kind


@pytest.mark.parametrize(
    ("caption", "kind"),
    [
        ("apple, outlined on blue", Kind("apple", "outlined on blue")),
        (" Apple , OUTLINED on  Blue. ", Kind("apple", "outlined on blue")),
        ("apple outlined on blue", None),
        ("apple, outlined", None),
        ("apple, on blue", None),
        ("outlined on blue, apple", None),
        ("apple, flat on blue", None),
        ("apple, outlined on red", None),
        ("an apple, outlined on blue", None),
        ("apple, outlined on blue, grey", None),
        ("panda, outlined on blue", None),
        (", outlined on blue", None),
        ("", None),
    ],
)
def test_captions_are_read_by_an_exact_grammar(caption, kind):
    assert parse(caption) == kind


def test_every_prompt_of_the_world_is_a_caption():
    for split in ("supervised", "unlabelled", "test"):
        assert all(parse(emoji.prompt(kind)) == kind for kind in emoji.kinds(split))


def test_a_task_asks_for_its_split_and_judges_by_thing_and_style(emoji_world, monkeypatch):
    task = task_of("emoji", "test", 400, 0)
    tested = emoji.kinds("test")
    for said in (task.prompts, task.references):
        assert {parse(text) for text in said[:384]} == set(tested) == {parse(one) for one in said}
    asked = [parse(prompt) for prompt in task.prompts]
    assert task.prompt_categories == [kind.style.split(" on ")[0] for kind in asked]
    assert task.prompt_clusters == [kind.thing for kind in asked]
    wanted = np.array([places(kind) for kind in asked[:4]])
    thing = wanted[:, 0] + [0, 0, 1, 0]
    thing[3] = -1
    style = wanted[:, 1] + [0, 1, 0, 0]
    monkeypatch.setattr(emoji_judge, "see", lambda pictures: Seen(thing, style))
    judged = task.judge_pictures(np.zeros((4, 32, 32, 3), np.uint8), range(4))
    assert judged["correct"].tolist() == [True, False, False, False]
    assert judged["thing"].tolist() == [True, True, False, False]
    assert judged["style"].tolist() == [True, False, True, False]
    shown = [parse(text) for text in task.references[:3]]
    captions = [
        task.references[0],
        f"{shown[1].thing}, neon",
        f"{'crown' if shown[2].thing != 'crown' else 'bee'}, {shown[2].style}",
    ]
    judged = task.judge_captions(captions, range(3))
    assert judged["correct"].tolist() == [True, False, False]
    again = emoji_task("test", 400, 0)
    assert again.prompts == task.prompts
    np.testing.assert_array_equal(np.stack(again.pictures), np.stack(task.pictures))


def test_validation_is_the_part_held_back(emoji_world):
    kinds = {parse(prompt) for prompt in emoji_task("validation", 160).prompts}
    assert kinds == {kind for kind in emoji.kinds("unlabelled") if emoji.held_back(kind)}
    with pytest.raises(ValueError, match="no split 'train'"):
        emoji_task("train", 5)
    with pytest.raises(ValueError, match="n must be at least 1"):
        emoji_task("test", 0)


def test_damage_is_of_every_kind_and_destroys(emoji_world):
    kinds = [Kind(thing, "painted on white") for thing in emoji.NAMES[:25]]
    whole = to_input(torch.from_numpy(np.stack([emoji.draw(kind, 1) for kind in kinds])))
    found = spoilt(whole, 21, torch.Generator().manual_seed(0))
    assert found.shape == (21, 3, 32, 32)
    for at, picture in enumerate(found):
        distance = (whole - picture).square().mean((1, 2, 3))
        assert distance.min() > 1e-3, list(DAMAGES)[at % len(DAMAGES)]


def test_the_classifier_learns_what_it_is_shown_and_that_damage_is_nothing(
    emoji_world, monkeypatch
):
    monkeypatch.setattr(emoji_classifier, "_BATCH", 32)
    monkeypatch.setattr(emoji_classifier, "_SPOILT", 14)
    styles = ("painted on white", "grey on blue", "outlined on pink", "sketched on green")
    kinds = [Kind(thing, style) for thing in ("apple", "car") for style in styles]
    steps = []
    trained = train_classifier(kinds, 70, lambda: steps.append(1))
    assert len(steps) == 70
    fresh = np.stack([emoji.draw(kind, 5) for kind in kinds * 2])
    seen = emoji_classifier.look(trained, fresh)
    true = np.array([places(kind) for kind in kinds * 2])
    assert (seen.thing == true[:, 0]).mean() > 0.9
    assert (seen.style == true[:, 1]).mean() > 0.9
    damaged = spoilt(to_input(torch.from_numpy(fresh)), 14, torch.Generator().manual_seed(3))
    shown = ((damaged + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert (emoji_classifier.look(trained, shown.numpy()).thing == -1).mean() > 0.7


def test_the_judge_is_trained_once_and_the_same_each_time(emoji_world, monkeypatch):
    monkeypatch.setattr(emoji_classifier, "_STEPS", 2)
    monkeypatch.setattr(emoji_classifier, "_TAKES", 1)
    with torch.inference_mode():  # as the first to ask finds things
        first = emoji_classifier.load_classifier()
    kept = list(emoji_world.glob("judge-*.safetensors"))
    assert len(kept) == 1
    kept[0].unlink()
    again = emoji_classifier.load_classifier()
    monkeypatch.setattr(emoji_classifier, "train_classifier", lambda *_: pytest.fail("again"))
    read = emoji_classifier.load_classifier()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
        assert torch.equal(tensor, read.state_dict()[name]), name


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"uint8 \[B, 32, 32, 3\], got uint8 \(1, 16, 16, 3\)"):
        emoji_judge.see(np.zeros((1, 16, 16, 3), np.uint8))
    assert len(emoji_judge.see(np.zeros((0, 32, 32, 3), np.uint8)).thing) == 0

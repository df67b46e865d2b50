"""What is called never trained on was in nothing that a model learnt from, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest

from suder.evaluation.task import asked_kinds, kinds_of, shapes_task
from suder.experiment.inputs import _shapes as unlabelled_inputs
from suder.models.find import find_model
from suder.pretrain.recipe import Recipe
from suder.settings.yaml_file import read_yaml
from suder.world import digits
from suder.world.catalogue import shapes_pairs
from suder.world.scenes import scenes


def content(pictures) -> set[bytes]:
    return {np.asarray(picture).tobytes() for picture in pictures}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_the_judged_items_were_in_nothing_that_was_learnt_from(split: str):
    task = shapes_task(split, 1000, 0)
    combinations = {tuple(sorted(asked_kinds(text))) for text in [*task.prompts, *task.references]}
    assert len(task.prompts) == len(task.pictures) == 1000
    for name in ("shapes", "shapes-2"):
        tree, _ = read_yaml(find_model(name).folder / "recipe.yaml")
        recipe = Recipe.model_validate(tree)
        learnt = scenes("supervised", recipe.warmup.pairs, recipe.seed)
        assert not combinations & {tuple(sorted(kinds_of(scene))) for scene in learnt}
    # Those pictures themselves, of the last of the two, and what a run gets without labels.
    pictures, captions = shapes_pairs("supervised", recipe.warmup.pairs // 4, recipe.seed)
    seen, asked = unlabelled_inputs(512, 512, 0, hold_back=split == "validation")
    assert not content(task.pictures) & (content(pictures) | content(seen))
    assert not set(task.prompts) & {*captions, *asked}


def test_the_test_scans_are_no_others():
    pytest.importorskip("sklearn")
    parts = {split: content(digits.scans(split)[0]) for split in ("supervised", "unlabelled")}
    assert not content(digits.scans("test")[0]) & (parts["supervised"] | parts["unlabelled"])

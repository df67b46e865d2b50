"""The worlds: same seed, same inputs; splits that share nothing; sentences true of their scenes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from suder.world import captions, digits, scenes, splits
from suder.world.catalogue import world
from suder.world.drawing import RGB, draw
from suder.world.things import COLORS, KINDS, SHAPES, Kind, Scene, Thing


def test_the_splits_cover_every_combination_once():
    unlike = [splits.combinations(split, counting=False) for split in splits.SPLITS]
    alike = [splits.combinations(split, counting=True) for split in splits.SPLITS]
    assert sorted(itertools.chain(*unlike)) == list(itertools.combinations(sorted(KINDS), 2))
    assert sorted(itertools.chain(*alike)) == [(kind, kind) for kind in sorted(KINDS)]
    # 35, 30 and 35 % of 276 and of 24
    assert [len(part) for part in unlike] == [97, 82, 97]
    assert [len(part) for part in alike] == [8, 8, 8]


def test_the_splits_never_move():
    # Weights are committed that were trained on one of them.
    circle = Kind("black", "circle")
    fixed = {"ring": "supervised", "triangle": "supervised", "square": "unlabelled"}
    for shape, split in fixed.items():
        assert splits.split_of((circle, Kind("black", shape))) == split
        assert splits.split_of((Kind("black", shape), circle)) == split
    assert splits.split_of((circle, Kind("green", "ring"))) == "test"
    assert splits.split_of((circle, circle)) == "supervised"
    assert splits.split_of((Kind("black", "triangle"),) * 2) == "test"


def test_scenes_and_prompts_come_from_their_split():
    for split in splits.SPLITS:
        for scene in scenes.scenes(split, 300, seed=1):
            kinds = tuple(thing.kind for thing in scene.things)
            assert (len(kinds) == 1 and split != "test") or splits.split_of(kinds) == split
            cells = [thing.cell for thing in scene.things]
            assert cells == sorted(set(cells))
        every = set(captions.every_prompt(split))
        assert set(scenes.prompts(split, 300, seed=1)) <= every
    tests = set(captions.every_prompt("test"))
    supervised = set(captions.every_prompt("supervised"))
    shared = supervised & set(captions.every_prompt("unlabelled"))
    assert shared == {captions.single(kind) for kind in KINDS}
    assert not tests & supervised
    assert not tests & set(captions.every_prompt("unlabelled"))


def test_the_test_split_asks_enough_different_things():
    every = list(captions.every_prompt("test"))
    assert len(set(every)) == len(every) == 978
    assert set(scenes.prompts("test", 1000, seed=3)) == set(every)
    # and once all are said, the same ones again
    assert sorted(scenes.prompts("test", 2 * len(every), seed=3)) == sorted(every * 2)


def test_seeds_decide_everything():
    assert scenes.scenes("test", 50, seed=1) == scenes.scenes("test", 50, seed=1)
    assert scenes.scenes("test", 50, seed=1) != scenes.scenes("test", 50, seed=2)
    assert scenes.prompts("test", 50, seed=1) == scenes.prompts("test", 50, seed=1)
    assert scenes.prompts("test", 50, seed=1) != scenes.prompts("test", 50, seed=2)
    first, again = (world("shapes").pairs("unlabelled", 20, 4) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]


def test_an_unknown_split_or_world_is_named():
    with pytest.raises(ValueError, match="must be one of supervised, unlabelled, test, got 'dev'"):
        scenes.scenes("dev", 1, seed=0)
    with pytest.raises(ValueError, match=r"no world 'cats'; there are: shapes, digits, emoji"):
        world("cats")


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_a_thing_is_drawn_in_its_colour_inside_its_cell(kind):
    for cell, seed in itertools.product(range(4), range(6)):
        picture = draw(Scene((Thing(*kind, cell),)), seed).astype(int)
        assert picture.shape == (32, 32, 3)
        row, column = divmod(cell, 2)
        inside = np.zeros((32, 32), bool)
        inside[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = True
        assert (picture[~inside] == 255).all()
        painted = (picture == RGB[kind.color]).all(-1)
        assert painted.sum() > 20
        # Every pixel lies between the background and the colour, on the line that joins them.
        cover = (255 - picture) / (255 - np.array(RGB[kind.color]))
        assert np.ptp(cover, axis=-1).max() < 0.1
        # A quarter of the cell, which is what one token sees, always shows some of the thing.
        quarters = painted[inside].reshape(2, 8, 2, 8).any((1, 3))
        assert quarters.all() or kind.shape == "triangle"


def test_shapes_and_jitter_make_different_pictures():
    drawn = {
        kind: {draw(Scene((Thing(*kind, 0),)), seed).tobytes() for seed in range(60)}
        for kind in KINDS
    }
    assert all(len(variants) == 4 for variants in drawn.values())
    for one, other in itertools.combinations(KINDS, 2):
        assert not drawn[one] & drawn[other]


def test_relations_hold_between_rows_and_columns():
    one, other = Thing("red", "circle", 0), Thing("blue", "square", 3)
    assert captions.relations(one, other) == ["left of", "above"]
    assert captions.relations(other, one) == ["right of", "below"]
    assert captions.relations(one, other._replace(cell=1)) == ["left of"]
    assert captions.relations(one, other._replace(cell=2)) == ["above"]


def test_captions_name_what_is_there():
    rng = np.random.default_rng(0)
    for scene in scenes.all_scenes():
        words = captions.describe(scene, rng).split()
        assert set(words) <= set(captions.WORDS)
        named = [word for word in words if word in COLORS]
        kinds = [thing.kind for thing in scene.things]
        if len(kinds) == 2 and kinds[0] == kinds[1]:
            assert words == ["two", kinds[0].color, kinds[0].shape + "s"]
        else:
            shapes = [word for word in words if word in SHAPES]
            assert sorted(zip(named, shapes, strict=True)) == sorted(kinds)
    one, other = Thing("red", "ring", 0), Thing("blue", "ring", 1)
    beside = {captions.describe(Scene((one, other)), rng) for _ in range(50)}
    assert beside == {"a red ring left of a blue ring", "a blue ring right of a red ring"}
    diagonal = {captions.describe(Scene((one, other._replace(cell=3))), rng) for _ in range(50)}
    assert diagonal == {"a red ring and a blue ring", "a blue ring and a red ring"}


def test_digits_are_split_scans():
    pytest.importorskip("sklearn")
    parts = [digits.scans(split) for split in splits.SPLITS]
    assert [len(pictures) for pictures, _ in parts] == [270, 898, 629]
    every = np.concatenate([pictures for pictures, _ in parts])
    assert every.shape == (1797, 32, 32, 3)
    assert every.dtype == np.uint8
    for _, found in parts:
        assert set(found.tolist()) == set(range(10))
    seen, said = digits.pairs("test", 30, seed=1)
    by_picture = {picture.tobytes(): digit for picture, digit in zip(*parts[2], strict=True)}
    assert said == [digits.prompt(int(by_picture[picture.tobytes()])) for picture in seen]
    hidden = {picture.tobytes() for picture in parts[2][0]}
    assert not hidden & {picture.tobytes() for picture in digits.pictures(2000, seed=1)}


def test_enlarging_keeps_what_it_must():
    rng = np.random.default_rng(0)
    scan = rng.random((8, 8))
    large = digits.enlarge(scan)
    assert large.shape == (32, 32)
    assert large.min() >= scan.min()
    assert large.max() <= scan.max()
    np.testing.assert_allclose(digits.enlarge(np.full((8, 8), 0.3)), 0.3)
    np.testing.assert_allclose(
        large.reshape(8, 4, 8, 4).mean((1, 3))[1:-1, 1:-1].mean(), 0.5, atol=0.1
    )
    np.testing.assert_allclose(digits.enlarge(scan.T), large.T)

"""A reward with a signal is called fine; one that is flat, or likes length, is found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from suder.audit.groups import Groups
from suder.audit.material import Material, read_material
from suder.audit.measure import Audit, audit
from suder.audit.numbers import Correlation, Preference, inside, preference, spread
from suder.audit.partners import Partners
from suder.audit.verdict import judge_reward
from suder.cli import main
from suder.inputs.files import DataError
from suder.method.rewards import DualReward
from suder.models import Janus, load_model
from suder.report.audit_page import reasons, table, write_audit
from suder.world.catalogue import shapes_pairs

GOOD = Preference(1.0, 2.0, 0.1, -1.0, -3.0, 12, 48)
NOTHING = Correlation(math.nan, math.nan, 0)


class LikesLength(DualReward):
    """A nat less for every token of a caption, right or wrong."""

    def understanding(self, images: Any, captions: Any, group: int = 1) -> torch.Tensor:
        lengths = [len(ids) for ids in self.model.tokenize(list(captions))]
        return super().understanding(images, captions, group) - torch.tensor(lengths)


@pytest.fixture(scope="module")
def shapes() -> Janus:
    model = load_model("shapes")
    assert isinstance(model, Janus)
    return model


@pytest.fixture(scope="module")
def pairs() -> Material:
    pictures, captions = shapes_pairs("unlabelled", 12, 0)
    return Material(list(pictures), [f"{i}.png" for i in range(12)], captions, captions[:6])


def small(model: Any, material: Material, **options: Any) -> Audit:
    return audit(model, material, candidates=4, shuffles=6, temperature=1.5, **options)


@pytest.fixture(scope="module")
def healthy(shapes: Janus, pairs: Material) -> Audit:
    return small(shapes, pairs, name="shapes")


def test_a_good_model_is_fine(healthy: Audit):
    assert healthy.verdict == "fine"
    for one in healthy.rewards.values():
        assert one.matching.ahead > 0.98
        assert one.matching.margin > 1.0
        assert one.spread.lost == 0.0
    assert healthy.judge is None
    assert "its vocabulary lacks" in healthy.no_judge
    assert not healthy.own_captions


def test_a_random_model_is_flat(shared_janus: Janus, pairs: Material):
    found = small(shared_janus, pairs)
    assert found.verdict == "flat"
    for one in found.rewards.values():
        assert one.verdict.word == "flat"
        assert "does not tell matching partners from shuffled ones" in one.verdict.why
        assert 0.3 < one.matching.ahead < 0.7


def test_a_reward_that_likes_length_is_found(shapes: Janus, pairs: Material):
    found = small(shapes, pairs, scorer=LikesLength(shapes))
    one = found.rewards["understanding"]
    assert one.verdict.word == found.verdict == "length-biased"
    assert one.length.mean < -0.7
    assert any("likes short captions, right or wrong" in line for line in reasons(found))
    assert found.rewards["generation"].verdict.word == "fine"


def test_without_captions_the_models_own_stand_in(shapes: Janus, pairs: Material):
    bare = Material(pairs.pictures[:5], pairs.names[:5], None, ())
    found = audit(shapes, bare, candidates=2, shuffles=2)
    assert found.own_captions
    assert len(found.captions) == 5
    assert list(found.groups["generation"].inputs) == list(dict.fromkeys(found.captions))
    assert found.rewards["understanding"].matching.ahead > 0.9


def test_the_models_own_yes_is_asked_where_it_can_be(judging_model: Any, pictures: np.ndarray):
    texts = ["a red circle", "two blue circles", "a green triangle", "a blue square"]
    material = Material(list(pictures), list("abcd"), texts, texts[:2])
    found = audit(judging_model, material, candidates=3, shuffles=2, max_new_tokens=5)
    assert found.no_judge == ""
    assert found.judge is not None
    assert found.judge.compared == 8
    for groups in found.groups.values():
        assert groups.judge is not None
        assert groups.judge.shape == groups.reward.shape
    assert json.loads(json.dumps(found.as_object()))["judge"]["compared"] == 8


def test_both_rewards_of_a_group_are_those_of_training(shapes: Janus, healthy: Audit):
    scorer = DualReward(shapes)
    captions = healthy.groups["understanding"]
    picture, texts = captions.inputs[2], list(captions.candidates[2])
    reward = scorer.understanding([picture] * len(texts), texts)
    np.testing.assert_allclose(captions.reward[2], reward.numpy(), atol=1e-4)
    other = scorer.generation(texts, [picture] * len(texts))
    np.testing.assert_allclose(captions.other[2], other.numpy(), atol=1e-4)
    drawn = healthy.groups["generation"]
    reward = scorer.generation([drawn.inputs[1]] * 4, list(drawn.candidates[1]))
    np.testing.assert_allclose(drawn.reward[1], reward.numpy(), atol=1e-4)


def test_rank_correlations_are_scipys_mean_over_groups():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, (30, 7)) * 1.0, rng.normal(size=(30, 7))
    other[:, 3] = np.nan
    one[4] = 2.0  # a group in which nothing differs has no correlation
    kept = [0, 1, 2, 4, 5, 6]
    found = [spearmanr(a[kept], b[kept])[0] for i, (a, b) in enumerate(zip(one, other, strict=True))
             if i != 4]  # fmt: skip
    got = inside(one, other)
    assert got.groups == 29
    assert got.mean == pytest.approx(np.mean(found), abs=1e-12)
    assert got.error == pytest.approx(np.std(found, ddof=1) / math.sqrt(29), abs=1e-12)
    assert inside(np.zeros((3, 4)), other[:3, :4]).groups == 0


def test_preference_and_spread_are_the_arithmetic():
    nan = math.nan
    found = preference(np.array([1.0, 2.0, nan]), np.array([[0.0, 2.0, 1.0], [3.0, nan, 1.0]]))
    assert found.ahead == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.margin == pytest.approx((-0.5 + 0.0) / 2)
    assert (found.inputs, found.compared) == (2, 3)
    assert preference(np.array([nan]), np.array([[1.0]])).inputs == 0
    apart = spread(np.array([[1.0, 2.0, 4.0], [5.0, 5.0, 5.0], [nan, 1.0, nan]]))
    assert apart.alike == pytest.approx(2 / 3)
    assert apart.gap == pytest.approx(1.5)
    assert apart.lost == pytest.approx(2 / 9)


@pytest.mark.parametrize(
    ("change", "word", "why"),
    [
        ({}, "fine", ""),
        ({"matching": GOOD._replace(margin=0.2)}, "flat", "does not tell matching"),
        ({"inside": (0.1, 0.2, 0.8, 0.0)}, "flat", "one reward in 80% of the groups"),
        ({"inside": (0.1, 0.2, 0.1, 0.6)}, "flat", "60% of the candidates have no reward"),
        ({"length": Correlation(0.7, 0.1, 12)}, "length-biased", "likes long captions"),
        ({"length": Correlation(0.7, 0.3, 12)}, "fine", ""),
        ({"length": Correlation(-0.4, 0.05, 12)}, "fine", ""),
        ({"agreement": Correlation(-0.5, 0.1, 12)}, "at odds", "against the other direction"),
        ({"own_answer": Correlation(-0.5, 0.1, 12)}, "at odds", "against the model's own yes"),
        ({"agreement": Correlation(-0.2, 0.1, 12)}, "fine", ""),
    ],
)
def test_the_verdict_goes_by_its_thresholds(change: dict[str, Any], word: str, why: str):
    given: dict[str, Any] = {
        "matching": GOOD, "length": NOTHING, "inside": (0.1, 0.2, 0.1, 0.0),
        "agreement": Correlation(0.3, 0.1, 12), "own_answer": None,
    }  # fmt: skip
    given |= change
    given["inside"] = spread(np.zeros((1, 2)))._replace(
        **dict(zip(("deviation", "gap", "alike", "lost"), given["inside"], strict=True))
    )
    found = judge_reward(**given)
    assert found.word == word
    assert why in " ".join(found.why)
    assert bool(found.why) is (word != "fine")


def test_equal_captions_are_no_wrong_partners():
    reward = np.array([[1.0, 1.0], [np.nan, 0.0]])
    assert Partners(reward, np.zeros((2, 2))).preference().compared == 1


def test_best_and_worst_are_those_of_selection():
    nan = math.nan
    reward = np.array([[0.1, 0.9, nan, 0.5], [0.3, 0.3, 0.3, 0.3]])
    groups = Groups("generation", ["a", "b"], [list("wxyz")] * 2, reward, reward, None, reward)
    assert groups.best_and_worst() == [(1, 0), None]


def test_the_page_needs_nothing_else_and_obeys_no_text(healthy: Audit, tmp_path: Path):
    path = tmp_path / "audit.html"
    hostile = Material(
        healthy.material.pictures, healthy.material.names, healthy.captions, ["<script>x</script>"],
        [("a\x1b[2J.png", "picture a\x1b[2J.png: damaged")],
    )  # fmt: skip
    parts = {**vars(healthy), "material": hostile, "model": "<b>mine</b>"}
    write_audit(Audit(**parts), path)
    page = path.read_text(encoding="utf-8")
    assert "&lt;b&gt;mine&lt;/b&gt;" in page
    assert "<b>mine" not in page
    assert "\x1b" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") > 3 + 4
    write_audit(healthy, path)  # a page of ours may be replaced
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="is no audit of suder's"):
        write_audit(healthy, path)
    names = [row[0] for row in table(healthy)]
    assert names[-1] == "verdict"


def test_material_is_read_as_the_user_has_it(tmp_path: Path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(np.full((8, 8, 3), 30 * i, np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"text {i}\n" for i in [*range(8), "broken"]))
    found = read_material(folder, texts, texts, count=6)
    assert len(found.pictures) == len(found.prompts) == 6
    numbers = [Path(name).stem for name in found.names]
    assert found.captions == [f"text {number}" for number in numbers]
    assert [one[0, 0, 0] for one in found.pictures] == [30 * int(number) for number in numbers]
    every = read_material(folder, texts, count=99)
    assert len(every.pictures) == 8
    assert "broken.png" in every.left_out[0][0]
    texts.write_text("one\n")
    with pytest.raises(DataError, match=r"has 1 texts and 0 blank lines.* has 9 pictures"):
        read_material(folder, texts)
    with pytest.raises(DataError, match="there is no folder"):
        read_material(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has 0 pictures that can be read; takes 4 or more"):
        read_material(tmp_path / "empty")


def test_command(
    random_model_folder: Path,
    inputs_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "mine.html"
    command = ["audit", str(random_model_folder), "--images", str(inputs_folder / "pictures"),
               "--prompts", str(inputs_folder / "prompts.txt"), "--inputs", "4", "--candidates",
               "2", "--shuffles", "2", "--max-new-tokens", "4", "--out", str(out)]  # fmt: skip
    assert main(command) == 1, "an untrained model's rewards are flat"
    said = capsys.readouterr().out
    assert "R_U does not tell matching partners from shuffled ones" in said
    numbers = json.loads(out.with_suffix(".json").read_text())
    assert numbers["verdict"] == "flat"
    assert set(numbers["rewards"]) == {"understanding", "generation"}
    assert "Rewards of" in out.read_text(encoding="utf-8")
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*command, "--shuffles", "1"]) == 2
    assert "--shuffles: takes 2 or more" in capsys.readouterr().err

"""POPE: answers by all logits in float64, and its numbers by hand."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from suder.cli import main
from suder.evaluation.suites import pope
from suder.inputs.files import DataError
from tests.tolerances import TOLERANCES
from tests.trainer.conftest import random_janus
from tests.trainer.families import JUDGING

JUDGED = TOLERANCES["judge", "cpu", torch.float32]
TEXTS = ("Does this picture show a circle ?", "Does this picture show a square ?", "a red circle ?")


@pytest.fixture(scope="module")
def janus():
    return random_janus(words=JUDGING)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A file of 12 questions about 4 pictures."""
    folder = tmp_path_factory.mktemp("pope")
    rng = np.random.default_rng(2)
    rows = []
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
        for j, text in enumerate(TEXTS):
            rows.append(
                {"question_id": len(rows), "image": f"{i}.png", "text": text, "label": "yes"}
                | ({"label": "no"} if j == 1 else {})
            )
    file = folder / "pope.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@torch.no_grad()
def test_answers_are_those_of_all_logits(janus, asked, monkeypatch):
    monkeypatch.setattr(pope, "AT_ONCE", 5)
    rows = pope.questions(asked)
    said = [row for part in pope.answer(janus, rows, asked.parent, "{text}") for row in part]
    core = copy.deepcopy(janus.core).double()
    # Its vocabulary writes all words small.
    words = [janus.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")]
    expected = []
    for row in rows:
        pixels = janus.pixels([np.asarray(Image.open(asked.parent / row["image"]))])
        ids = janus.question_ids(row["text"])[None]
        p = core(input_ids=ids, pixel_values=pixels.double()).logits[0, -1].softmax(-1)[words]
        expected.append(float(p[0] / p.sum()))
    np.testing.assert_allclose([row["p_yes"] for row in said], expected, **as_numpy(JUDGED))
    assert [row["answer"] == "yes" for row in said] == [p >= 0.5 for p in expected]
    assert [{key: row[key] for key in rows[0]} for row in said] == rows
    assert np.std(expected) > 0.02


def as_numpy(tolerance: dict[str, float]) -> dict[str, float]:
    return {"rtol": tolerance["rtol"], "atol": tolerance["atol"]}


def answered(pairs) -> list[dict]:
    return [
        {"image": str(i), "answer": said, "label": true} for i, (said, true) in enumerate(pairs)
    ]


def test_the_numbers():
    """3 hits, 1 false alarm, 2 misses, 4 rightly denied."""
    pairs = [("yes", "yes")] * 3 + [("yes", "no")] + [("no", "yes")] * 2 + [("no", "no")] * 4
    found = pope.scores(answered(pairs))
    expected = {"accuracy": 0.7, "precision": 0.75, "recall": 0.6, "F1": 2 / 3, "yes ratio": 0.4}
    assert {name: one.estimate for name, one in found.items()} == pytest.approx(expected)
    assert all(0 <= one.low < one.estimate < one.high <= 1 for one in found.values())


def test_a_number_of_nothing_is_none():
    found = pope.scores(answered([("no", "no")] * 3))
    assert found["accuracy"].estimate == 1.0
    assert all(math.isnan(found[name].estimate) for name in ("precision", "recall", "F1"))


def test_command(janus, asked, tmp_path, capsys):
    janus.save(tmp_path / "model")
    out = tmp_path / "answers.jsonl"
    words = ["evaluate", "pope", str(asked), str(tmp_path / "model"), "--images"]
    words += [str(asked.parent), "--question", "{text}", "--out", str(out)]
    assert main(words) == 0
    said = [json.loads(line) for line in out.read_text().splitlines()]
    right = sum(row["answer"] == row["label"] for row in said) / 12
    shown = capsys.readouterr().out
    assert f"accuracy: {right:.4f} (" in shown
    assert "12 questions about 4 pictures" in shown
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no questions"),
        ("{", "line 1: not JSON"),
        ('{"question_id": 1, "image": "a", "text": "b", "label": "maybe"}', "line 1: takes"),
    ],
)
def test_what_is_no_question_is_refused(tmp_path, text, message):
    (tmp_path / "pope.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        pope.questions(tmp_path / "pope.json")

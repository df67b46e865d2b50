"""The suites' numbers of known answers, counted by hand; what a written answer means."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from suder.evaluation.answering.match import is_right, matched
from suder.evaluation.answering.question import YES_NO
from suder.evaluation.answering.score import lines, score
from suder.evaluation.answering.table import read_table
from tests.trainer.evaluation import official


def read(suite, tmp_path):
    module = importlib.import_module(f"suder.evaluation.asked.{suite}")
    file, _ = official.write_suite(suite, tmp_path)
    return module, module.questions(read_table(file)).questions


def answers(questions, right):
    """Answers that are right where `right` says so."""
    found = {}
    for one, is_so in zip(questions, right, strict=True):
        wrong = next((option for option in one.options if option not in one.answers), "?")
        said = one.answers[0] if is_so else wrong
        found[one.key] = {"key": one.key, "said": said, "text": said, "logprob": None}
    return found


def numbers(suite, tmp_path, right):
    module, questions = read(suite, tmp_path)
    rows = score(module.measures, questions, answers(questions, right))
    assert all(row["tuned_interval"][0] <= row["tuned"] <= row["tuned_interval"][1] for row in rows)
    return {(row["measure"], row["part"]): (row["tuned"], row["n"]) for row in rows}


def test_mmbench_is_right_in_every_rotation(tmp_path):
    """Four questions of 4, 3, 2 and 4 rotations: one wrong turn is a wrong question."""
    right = [True] * 13
    right[2] = right[4] = False  # a later turn of the first, the first turn of the second
    found = numbers("mmbench", tmp_path, right)
    assert found == {
        ("circular", "all"): (0.5, 4),
        ("circular", "perception"): (0.0, 2),
        ("circular", "reasoning"): (1.0, 2),
        ("circular", "counting"): (0.5, 2),
        ("circular", "ocr"): (0.5, 2),
        ("first order", "all"): (0.75, 4),
    }


def test_mmmu_by_subject(tmp_path):
    # Subjects: Art, Theory, Art, Theory, one of dev, which does not count, Art, Art.
    right = [True, False, True, True, True, False, True]
    found = numbers("mmmu", tmp_path, right)
    assert found == {
        ("accuracy", "all"): (pytest.approx(4 / 6), 6),
        ("accuracy", "Art_and_Design"): (pytest.approx(4 / 6), 6),
        ("accuracy", "Art"): (0.75, 4),
        ("accuracy", "Art Theory"): (0.5, 2),
    }


def test_seedbench_by_dimension(tmp_path):
    found = numbers("seedbench", tmp_path, [True, True, False, True, True])
    assert found == {
        ("accuracy", "all"): (0.8, 5),
        ("accuracy", "Scene Understanding"): (pytest.approx(2 / 3), 3),
        ("accuracy", "Instance Identity"): (1.0, 2),
    }


def test_hallusionbench_by_figure_and_by_question(tmp_path):
    """Figures: both wrong, both right, right; questions: wrong of one, wrong of one, right."""
    found = numbers("hallusionbench", tmp_path, [False, False, True, True, True])
    assert {key: value for key, value in found.items() if key[1] == "all"} == {
        ("aAcc", "all"): (0.6, 5),
        ("fAcc", "all"): (pytest.approx(2 / 3), 3),
        ("qAcc", "all"): (pytest.approx(1 / 3), 3),
    }
    assert found["fAcc", "VD"] == (0.5, 2)
    assert found["qAcc", "chart"] == (1.0, 1)


def test_pope_counts_yes(tmp_path):
    """3 hits, 1 false alarm, 5 misses, 3 rightly denied, of 12."""
    module, questions = read("pope", tmp_path)
    hits, alarms = 3, 1
    said = {}
    for one in questions:
        yes = one.answers == ("Yes",)
        take = (hits > 0) if yes else (alarms > 0)
        hits, alarms = (hits - (yes and take), alarms - (not yes and take))
        said[one.key] = {
            "key": one.key,
            "said": "Yes" if take else "No",
            "text": "",
            "logprob": None,
        }
    rows = score(module.measures, questions, said)
    assert {row["measure"]: row["tuned"] for row in rows} == pytest.approx(
        {"accuracy": 0.5, "precision": 0.75, "recall": 0.375, "F1": 0.5, "yes ratio": 1 / 3}
    )
    assert {row["clusters"] for row in rows} == {4}
    for one in said.values():
        one["said"] = "No"
    rows = {row["measure"]: row["tuned"] for row in score(module.measures, questions, said)}
    assert math.isnan(rows["precision"])
    assert rows["recall"] == 0.0


def test_an_unclear_answer_is_wrong_and_no_yes(tmp_path):
    module, questions = read("pope", tmp_path)
    said = {
        one.key: {"key": one.key, "said": "", "text": "well", "logprob": None} for one in questions
    }
    rows = {row["measure"]: row["tuned"] for row in score(module.measures, questions, said)}
    assert rows["accuracy"] == rows["yes ratio"] == 0.0


def test_base_and_tuned(tmp_path):
    """Differences are of the questions that both answered; of one model there are none."""
    module, questions = read("mmbench", tmp_path)
    base = answers(questions, [True] * 4 + [False] * 9)
    tuned = answers(questions, [True] * 9 + [False] * 4)
    rows = score(module.measures, questions, tuned, base)
    assert rows[0]["base"] == 0.25
    assert rows[0]["tuned"] == 0.75
    assert rows[0]["difference"] == 0.5
    assert rows[0]["interval"][0] < 0.5 < rows[0]["interval"][1]
    assert rows[0]["bootstrap"][0] <= 0.5 <= rows[0]["bootstrap"][1]
    del base["13"]
    base["13"] = {"key": "13", "skipped": "no picture"}
    rows = score(module.measures, questions, tuned, base)
    assert rows[-1]["n"] == 3  # of the first order
    same = score(module.measures, questions, tuned, tuned, same=True)
    assert all(row["interval"] == row["bootstrap"] == [0.0, 0.0] for row in same)
    assert lines(rows)[0][3:] == ("base", "tuned", "points", "95% interval")
    assert lines(rows)[1][-2].startswith("+")
    alone = lines(score(module.measures, questions, tuned))
    assert alone[1][2:4] == ("4", "75.0%")


def test_what_has_no_known_answer_is_not_scored(tmp_path):
    module, questions = read("mmbench", tmp_path)
    said = answers(questions, [True] * 13)
    unknown = [one._replace(answers=()) for one in questions]
    assert score(module.measures, unknown, said) == []
    some = unknown[:4] + questions[4:]
    assert score(module.measures, some, said)[0]["n"] == 3


CHOICES = ("a red circle", "a square", "none of them")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C) none of them", "C"),
        ("Answer: A", "A"),
        ("A or B", ""),
        ("a square", "B"),
        ("It is a square.", "B"),
        ("a square or a red circle", ""),
        ("A man walks by the long road and sees it", ""),  # no option: far from the end
        ("Because of it, the correct answer is **C**, as the picture shows it to be", "C"),
        ("D", ""),  # of no option
        ("", ""),
    ],
)
def test_which_letter_is_meant(text, said):
    assert matched(text, ("A", "B", "C"), CHOICES) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [("Yes", "Yes"), ("yes.", "Yes"), ("No, there is none", "No"), ("yes and no", ""), ("", ""),
     ("Nothing", ""), ("I know", "")],
)  # fmt: skip
def test_yes_or_no_is_meant(text, said):
    assert matched(text, YES_NO, ()) == said


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        ("It is 24 dollars.", ("24",), True),
        ("1,024", ("1024",), True),
        ("24.004", ("24",), True),
        ("240", ("24",), False),
        ("The Baroque style", ("baroque",), True),
        ("rebaroqued", ("baroque",), False),
        ("two", ("2", "two"), True),
        ("", ("two",), False),
    ],
)
def test_open_answers(text, answers, right):
    assert is_right(text, answers) == right


def test_mmmu_of_another_split_alone(tmp_path):
    module, questions = read("mmmu", tmp_path)
    dev = [one for one in questions if one.parts["split"] == "dev"]
    assert score(module.measures, dev, answers(dev, [True]))[0]["tuned"] == 1.0


def test_clusters_of_questions_make_wider_intervals(tmp_path):
    module, questions = read("seedbench", tmp_path)
    right = np.array([True, True, False, True, False])
    apart = score(module.measures, questions, answers(questions, right))[0]["tuned_interval"]
    alike = [one._replace(cluster=str(i < 2)) for i, one in enumerate(questions)]
    together = score(module.measures, alike, answers(alike, right))[0]["tuned_interval"]
    assert together[1] - together[0] > apart[1] - apart[0]

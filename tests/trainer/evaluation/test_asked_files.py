"""The official files of the question suites, read as their questions."""

from __future__ import annotations

import importlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from suder.evaluation.answering.question import picture_of
from suder.evaluation.answering.table import read_table
from suder.inputs.files import DataError
from tests.trainer.evaluation import official

WHITE = (255, 255, 255)


def asked(suite, file):
    return importlib.import_module(f"suder.evaluation.asked.{suite}").questions(read_table(file))


def pixels(number):
    return np.asarray(Image.open(io.BytesIO(official.png(number))))


def test_mmbench_with_rotations(tmp_path):
    found = asked("mmbench", official.write_suite("mmbench", tmp_path)[0])
    assert [len(one.options) for one in found.questions] == [4] * 4 + [3] * 3 + [2] * 2 + [4] * 4
    assert not found.bad
    first, second = found.questions[:2]
    assert first.key == "10"
    assert second.key == "1000010"
    assert first.text == (
        "Hint: it is red\nwhich shape is it ?\nA. circle\nB. square\nC. red\nD. blue"
    )
    assert second.choices == ("square", "red", "blue", "circle")
    assert [one.answers for one in found.questions[:4]] == [("B",), ("A",), ("D",), ("C",)]
    assert [one.parts["group"] for one in found.questions[:5]] == ["10"] * 4 + ["11"]
    # A rotation has the picture of the row that it names, and is of its cluster.
    for one in found.questions:
        number = int(one.parts["group"]) - 10
        np.testing.assert_array_equal(picture_of(one, None, WHITE), pixels(number))
    assert len({one.cluster for one in found.questions}) == 4


def test_mmbench_makes_the_rotations_that_a_file_lacks(tmp_path):
    """The same questions as with them, in whatever order."""
    whole = asked("mmbench", official.write_suite("mmbench", tmp_path)[0])
    plain = official.write_tsv(tmp_path / "plain.tsv", official.mmbench(rotated=False))
    made = asked("mmbench", plain)

    def of(found):
        return {(q.key, q.text, q.answers, q.parts["group"], q.cluster) for q in found.questions}

    assert of(made) == of(whole)
    assert sum(one.made for one in made.questions) == len(made.questions) - 4


def test_mmmu(tmp_path):
    """Several pictures side by side, an open question with both its answers; no test split."""
    rows = [*official.mmmu_tsv(), {**official.mmmu_tsv()[0], "index": 7, "split": "test"}]
    found = asked("mmmu", official.write_tsv(tmp_path / "some.tsv", rows))
    assert [one.key for one in found.questions] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [one.parts["split"] for one in found.questions[3:5]] == ["validation", "dev"]
    assert {one.parts["subject"] for one in found.questions} == {"Art", "Art Theory"}
    several, free = found.questions[-2:]
    both = np.concatenate([pixels(4), pixels(5)], 1)
    np.testing.assert_array_equal(picture_of(several, None, WHITE), both)
    assert free.options == ()
    assert free.answers == ("two", "2")
    assert free.asked("{text}!").endswith("Answer the question directly.")  # it has no options


def test_mmmu_of_the_hub(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    rows = [
        {
            "id": f"validation_Art_Theory_{i}",
            "question": "what is there in <image 1> ?",
            "options": "['circle', \"it's red\"]",
            "answer": "B",
            "question_type": "multiple-choice",
            "image_1": {"bytes": official.png(i), "path": None},
            "image_2": {"bytes": official.png(5), "path": None} if i == 1 else None,
        }
        for i in range(3)
    ]
    (tmp_path / "Art_Theory").mkdir()
    write_table(
        pa.Table.from_pylist(rows), tmp_path / "Art_Theory/validation-0.parquet", row_group_size=2
    )
    found = asked("mmmu", tmp_path)
    assert [one.parts["subject"] for one in found.questions] == ["Art Theory"] * 3
    assert found.questions[0].choices == ("circle", "it's red")
    assert found.questions[0].answers == ("B",)
    assert [picture_of(one, None, WHITE).shape for one in found.questions] == [
        (32, 32, 3), (32, 64, 3), (32, 32, 3),
    ]  # fmt: skip
    np.testing.assert_array_equal(picture_of(found.questions[2], None, WHITE), pixels(2))


def test_seedbench(tmp_path):
    file, pictures = official.write_suite("seedbench", tmp_path)
    found = asked("seedbench", file)
    assert [one.parts["dimension"] for one in found.questions[:3]] == [
        "Scene Understanding", "Instance Identity", "Scene Understanding",
    ]  # fmt: skip
    assert found.bad == [("row 6", "a question about a film")]
    np.testing.assert_array_equal(picture_of(found.questions[3], pictures, WHITE), pixels(3))


def test_hallusionbench_of_both_files(tmp_path):
    file, pictures = official.write_suite("hallusionbench", tmp_path)
    found = asked("hallusionbench", file)
    table = official.write_tsv(tmp_path / "HallusionBench.tsv", official.hallusionbench_tsv())
    theirs = asked("hallusionbench", table)
    assert [one.parts for one in found.questions] == [one.parts for one in theirs.questions]
    assert [one.answers for one in found.questions] == [one.answers for one in theirs.questions]
    assert [one.answers[0] for one in found.questions] == ["No", "Yes", "No", "Yes", "No"]
    assert found.bad == [("row 6", "a question without a figure")]
    np.testing.assert_array_equal(picture_of(found.questions[2], pictures, WHITE), pixels(1))


def test_pope_of_both_files(tmp_path):
    file, _ = official.write_suite("pope", tmp_path)
    rows = official.pope_jsonl()
    found = asked("pope", file)
    told = [(str(r["question_id"]), r["text"], (r["label"].capitalize(),)) for r in rows]
    assert [(one.key, one.text, one.answers) for one in found.questions] == told
    assert [one.cluster for one in found.questions[:4]] == ["0.png"] * 3 + ["1.png"]
    table = [
        {
            "index": row["question_id"],
            "question": f"{row['text']} Please answer yes or no.",
            "answer": row["label"].capitalize(),
            "category": "random,popular",
            "image": official.encoded(int(row["image"][0])),
        }
        for row in rows
    ]
    theirs = asked("pope", official.write_tsv(tmp_path / "POPE.tsv", table))
    assert [one.asked() for one in theirs.questions] == [one.asked() for one in found.questions]
    assert theirs.questions[0].asked() == (
        "is there a circle ?\nAnswer the question using a single word or phrase."
    )


BAD = {
    "columns": ("20\twhich\n", "2 columns, and the first line has"),
    "no picture": ("20\tq\t\ta\tb\tA\tx\ty\tdev\t77\n", "said to be that of row 77"),
    "answer": ("20\tq\t\ta\tb\tZ\tx\ty\tdev\t11\n", "its answer is Z, of 2 options"),
    "options": ("20\tq\t\ta\t\tA\tx\ty\tdev\t11\n", "1 options"),
    "index": ("x20\tq\t\ta\tb\tA\tx\ty\tdev\t11\n", "takes a whole number"),
    "twice": ("11\tq\t\ta\tb\tA\tx\ty\tdev\t11\n", "11 was there before"),
    "bytes": ("20\tq\udcff\t\ta\tb\tA\tx\ty\tdev\t11\n", "not UTF-8"),
}


@pytest.mark.parametrize(("line", "why"), BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_the_others_stay(line, why, tmp_path):
    rows = [
        {k: v for k, v in row.items() if k not in ("C", "D")} | {"answer": "A"}
        for row in official.mmbench(rotated=False)
    ]
    file = official.write_tsv(tmp_path / "some.tsv", rows)
    with file.open("ab") as end:
        end.write(line.encode("utf-8", "surrogateescape"))
    found = asked("mmbench", file)
    assert sum(not one.made for one in found.questions) == 4
    ((where, said),) = found.bad
    assert where == "line 7"  # of the file: one of the rows before takes two lines
    assert why in said


def test_a_damaged_picture_is_that_rows_alone(tmp_path):
    rows = official.mmbench(rotated=False)
    rows[1]["image"] = "?" * 100
    rows[2]["image"] = official.encoded(2)[:200]
    questions = asked("mmbench", official.write_tsv(tmp_path / "some.tsv", rows)).questions
    for one in questions:
        if one.parts["group"] in ("11", "12"):
            with pytest.raises(DataError, match="picture"):
                picture_of(one, None, WHITE)
        else:
            picture_of(one, None, WHITE)


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    file, pictures = official.write_suite("pope", tmp_path)
    (question, *_) = asked("pope", file).questions
    for name in ("../pope.json", "/etc/passwd"):
        with pytest.raises(DataError, match="not in the folder"):
            picture_of(question._replace(names=(name,)), pictures, WHITE)
    with pytest.raises(DataError, match="--images"):
        picture_of(question, None, WHITE)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "", "not JSON"),
        ("a.json", "[]", "no questions"),
        ("a.json", '[{"question_id": 1}]', "no question or text"),
        ("a.json", '{"text": "b"}\n{"text"', "line 2: not JSON"),
        ("a.tsv", "question\timage\nq\ti\n", "has `index` in it"),
        ("a.parquet", "nothing", "no parquet file"),
        (
            "a.json",
            json.dumps({"question_id": 1, "image": "a", "text": "b", "label": "maybe"}),
            "takes yes or no",
        ),
    ],
)
def test_what_holds_no_question_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        asked("pope", tmp_path / name)

"""Answers beside all logits in float64; what a kill and a division leave of them; the command."""

from __future__ import annotations

import copy
import csv
import importlib
import json
import math

import numpy as np
import pytest
import torch

from suder.cli import main
from suder.engine.sampling import sample
from suder.evaluation.answering import folder as folders
from suder.evaluation.answering.answer import Answering
from suder.evaluation.answering.folder import answer_all, answers_in
from suder.evaluation.answering.question import picture_of
from suder.evaluation.answering.table import read_table
from suder.models.base import NotFinite
from suder.report import write_report
from suder.storage.folders import FolderError
from tests.tolerances import TOLERANCES
from tests.trainer.conftest import random_janus
from tests.trainer.evaluation import official
from tests.trainer.families import JUDGING

LIKELY = TOLERANCES["answer", "cpu", torch.float32]
SUITES = ("pope", "mmbench", "mmmu", "seedbench", "hallusionbench")


@pytest.fixture(scope="module")
def janus():
    return random_janus(words=(*JUDGING, *official.WORDS))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """By suite: its module, its questions, its file and the folder of its pictures."""
    found = {}
    for suite in SUITES:
        where = tmp_path_factory.mktemp(suite)
        module = importlib.import_module(f"suder.evaluation.asked.{suite}")
        file, pictures = official.write_suite(suite, where)
        found[suite] = (module, module.questions(read_table(file)).questions, file, pictures)
    return found


@torch.no_grad()
@pytest.mark.parametrize("suite", ["pope", "mmbench"])
def test_the_likelihood_is_that_of_all_logits(janus, files, suite):
    _, questions, _, pictures = files[suite]
    core = copy.deepcopy(janus.core).double()
    found = Answering(janus, pictures)(questions)
    spread = []
    for one, answer in zip(questions, found, strict=True):
        # Its vocabulary writes all words small, so both spellings of yes are one token.
        ids = [janus.tokenizer.convert_tokens_to_ids(word.lower()) for word in one.options]
        pixels = janus.pixels([picture_of(one, pictures, janus.background)])
        asked = janus.question_ids(one.asked())[None]
        logits = core(input_ids=asked, pixel_values=pixels.double()).logits[0, -1]
        expected = logits[ids].log_softmax(0)
        got = torch.tensor(list(answer["logprob"].values()), dtype=torch.float64)
        torch.testing.assert_close(got, expected, **LIKELY)
        assert answer["said"] == one.options[int(expected.argmax())]
        assert [*answer["logprob"]] == [*one.options]
        spread.append(float(expected[0]))
    assert np.std(spread) > 0.02
    assert len({answer["said"] for answer in found}) > 1


@torch.no_grad()
def test_a_written_answer_is_what_generate_writes(janus, files):
    _, questions, _, pictures = files["seedbench"]
    found = Answering(janus, pictures, "generation", "{text}", max_new_tokens=5)(questions)
    for one, answer in zip(questions, found, strict=True):
        ids = janus.question_ids(one.text)[None]
        pixels = janus.pixels([picture_of(one, pictures, janus.background)])
        theirs = janus.core.generate(
            ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, max_new_tokens=5,
            generation_mode="text", do_sample=False,
        )[0, ids.shape[1] :]  # fmt: skip
        assert answer["text"] == janus.detokenize([theirs])[0]
    assert len({answer["text"] for answer in found}) > 1


def test_an_open_question_is_answered_in_writing(janus, files):
    _, questions, _, pictures = files["mmmu"]
    found = Answering(janus, pictures, max_new_tokens=4)(questions)
    free = next(i for i, one in enumerate(questions) if not one.options)
    assert [one["logprob"] is None for one in found] == [i == free for i in range(len(found))]
    pixels = janus.pixels([picture_of(questions[free], pictures, janus.background)])
    drawn = sample(
        janus, "understanding", pixels, greedy=True, max_new_tokens=4,
        questions=[questions[free].asked()],
    )  # fmt: skip
    assert found[free]["said"] == janus.detokenize(drawn.tokens)[0]


def test_what_cannot_be_asked_is_named_and_the_rest_is_answered(janus, files):
    _, questions, _, pictures = files["pope"]
    some = list(questions[:4])
    some[1] = some[1]._replace(names=("gone.png",))
    some[2] = some[2]._replace(text="red " * 600)
    found = Answering(janus, pictures)(some)
    assert ["skipped" in one for one in found] == [False, True, True, False]
    assert "gone.png" in found[1]["skipped"]
    assert "too long" in found[2]["skipped"]
    alone = Answering(janus, pictures)([some[0], some[3]])
    assert [one["said"] for one in (found[0], found[3])] == [one["said"] for one in alone]


def test_a_model_of_no_use_is_an_error(janus, files):
    _, questions, _, pictures = files["pope"]
    broken = copy.deepcopy(janus)
    broken.core.lm_head.weight.data.fill_(math.nan)
    with pytest.raises(NotFinite, match="no answer to question 0"):
        Answering(broken, pictures)(questions)
    with pytest.raises(ValueError, match="vocabulary lacks B, C"):
        Answering(random_janus(), files["mmbench"][3])(files["mmbench"][1])
    with pytest.raises(ValueError, match=r"around \{text\}"):
        Answering(janus, wrap="What?")


def test_a_kill_and_a_division_change_nothing(janus, files, tmp_path, monkeypatch):
    _, questions, _, pictures = files["mmbench"]
    monkeypatch.setattr(folders, "AT_ONCE", 3)
    answering = Answering(janus, pictures)
    *_, (done, total, whole) = answer_all(questions, answering, tmp_path / "a", {"of": 1})
    assert done == total == len(questions) == len(whole)
    # Killed in the middle of a line; then by two processes, of which the second has all at its end.
    going = answer_all(questions, answering, tmp_path / "b", {"of": 1})
    next(going)
    next(going)
    going.close()
    (file,) = (tmp_path / "b").glob("answers.*")
    file.write_bytes(file.read_bytes()[:-9])
    asked = []

    def spy(some):
        asked.extend(one.key for one in some)
        return answering(some)

    for place in range(2):
        *_, (_, _, known) = answer_all(questions, spy, tmp_path / "b", {"of": 1}, (place, 2))
    assert known == whole
    assert answers_in(tmp_path / "b") == whole
    assert asked == [one.key for one in [*questions[6:9], *questions[12:], *questions[3:6],
                                         *questions[9:12]]]  # fmt: skip
    with pytest.raises(FolderError, match="of 1 there and 2 now"):
        list(answer_all(questions, answering, tmp_path / "b", {"of": 2}))


@pytest.fixture(scope="module")
def models(janus, tmp_path_factory):
    """A base, and a tuned one that likes other answers."""
    where = tmp_path_factory.mktemp("models")
    janus.save(where / "base")
    random_janus(4, words=(*JUDGING, *official.WORDS)).save(where / "tuned")
    return where


def numbers_of(file):
    return {(r["measure"], r["part"]): r["tuned"] for r in json.loads(file.read_text())["rows"]}


@pytest.mark.parametrize("suite", SUITES)
def test_command(models, files, suite, tmp_path, capsys):
    """Base and tuned side by side; predictions that give the same numbers when they are counted."""
    module, questions, file, pictures = files[suite]
    out = tmp_path / "out"
    words = ["evaluate", suite, str(file), str(models / "tuned"), "--base", str(models / "base")]
    words += ["--images", str(pictures), "--output", str(out)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert module.TITLE in shown
    assert "points" in shown
    told = json.loads((out / "scores.json").read_text())
    assert told["questions"] == len(questions)
    assert told["left_out"] == {"seedbench": 1, "hallusionbench": 1}.get(suite, 0)
    for row in told["rows"]:
        if row["difference"] is not None:
            assert row["difference"] == pytest.approx(row["tuned"] - row["base"])
            assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    page = (out / "scores.md").read_text()
    assert f"| {told['rows'][0]['measure']} | all | {told['rows'][0]['n']} |" in page
    # VLMEvalKit's file: what the suite's file asks, each with the prediction.
    dataset = file.stem if file.suffix == ".tsv" else module.DATASET
    with (out / "tuned" / f"tuned_{dataset}.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert [row["index"] for row in rows] == [one.key for one in questions]
    assert not any("image" in row and len(row["image"]) > 64 for row in rows)
    assert all(row["question"] for row in rows)
    right = [row["prediction"] == row["answer"] for row, one in zip(rows, questions, strict=True)
             if one.options]  # fmt: skip
    if suite in ("seedbench", "pope"):
        assert numbers_of(out / "scores.json")["accuracy", "all"] == pytest.approx(np.mean(right))
    # lmms-eval's.
    lines = (out / "tuned" / f"suder_samples_{module.TASK}.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert [one["filtered_resps"] for one in samples] == [row["prediction"] for row in rows]
    assert [one["doc_id"] for one in samples] == list(range(len(rows)))
    # Once more: nothing is answered anew, and the same is found.
    before = (out / "scores.json").read_bytes()
    assert main(words) == 0
    assert (out / "scores.json").read_bytes() == before
    capsys.readouterr()
    assert main([*words, "--by", "generation"]) == 2
    assert "other settings" in capsys.readouterr().err


def test_one_model_alone_and_by_generation(models, files, capsys):
    _, _, file, pictures = files["seedbench"]
    words = ["evaluate", "seedbench", str(file), str(models / "tuned"), "--images", str(pictures)]
    assert main([*words, "--by", "generation", "--max-new-tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert "points" not in shown
    assert "what the model writes" in shown
    assert "Left out: 1, such as row 6: a question about a film" in shown
    assert main([*words, "--shard", "1/2"]) == 2
    assert "--output" in capsys.readouterr().err
    assert main(words[:4]) == 2
    assert "--images" in capsys.readouterr().err


def test_what_was_left_out_is_tried_again(models, files, tmp_path, capsys):
    """Of a folder without pictures nothing is said; with some, more the next time."""
    _, questions, file, pictures = files["pope"]
    some = tmp_path / "pictures"
    some.mkdir()
    words = ["evaluate", "pope", str(file), str(models / "tuned"), "--images", str(some)]
    words += ["--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no question could be answered: line 1: picture" in capsys.readouterr().err
    for names, left in ((("0.png", "1.png"), 6), (("2.png", "3.png"), 0)):
        for name in names:
            (some / name).write_bytes((pictures / name).read_bytes())
        assert main(words) == 0
        told = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert told["left_out"] == left
        assert told["rows"][0]["n"] == len(questions) - left
    (some / "0.png").unlink()  # what was answered stays so
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == told


def test_parts_are_put_together_by_the_last(models, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folders, "AT_ONCE", 4)
    _, questions, file, pictures = files["pope"]
    words = ["evaluate", "pope", str(file), str(models / "tuned"), "--images", str(pictures)]
    assert main([*words, "--output", str(tmp_path / "whole")]) == 0
    parts = [*words, "--output", str(tmp_path / "parts"), "--shard"]
    assert main([*parts, "1/2"]) == 0
    assert f"others have 4 of {len(questions)} questions" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "scores.json").exists()
    assert main([*parts, "2/2"]) == 0
    whole, together = (tmp_path / name / "scores.json" for name in ("whole", "parts"))
    assert whole.read_bytes() == together.read_bytes()


def test_a_run_has_its_start_beside_it_and_in_its_report(models, files, tmp_path, capsys):
    """By default, and by its own system prompt."""
    run = tmp_path / "run"
    (run / "data").mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"model: {models / 'base'}\ndata:\n  images: x\n  prompts: y\noutput: z\n", encoding="utf-8"
    )
    _, _, file, pictures = files["pope"]
    words = ["evaluate", "pope", str(file), str(run), "--images", str(pictures)]
    assert main(words) == 2
    assert "no finished run" in capsys.readouterr().err
    (run / "model").symlink_to(models / "tuned")
    assert main(words) == 0
    told = json.loads((run / "evaluation" / "pope" / "scores.json").read_text())
    assert told["base"] == str(models / "base")
    assert (run / "evaluation" / "pope" / "tuned" / "run_POPE.tsv").is_file()
    page = write_report(run).read_text()
    assert "POPE" in page
    assert "yes ratio" in page
    # A run that gave its start back differs in nothing.
    (run / "model").unlink()
    (run / "model").symlink_to(models / "base")
    assert main([*words, "--output", str(tmp_path / "same")]) == 0
    rows = json.loads((tmp_path / "same" / "scores.json").read_text())["rows"]
    assert all(row["interval"] == [0.0, 0.0] for row in rows)


def test_a_damaged_file_of_scores_is_noted_in_the_report(tmp_path):
    run = tmp_path / "run"
    (run / "evaluation" / "pope").mkdir(parents=True)
    (run / "config.yaml").write_text("model: shapes\n", encoding="utf-8")
    scores = run / "evaluation" / "pope" / "scores.json"
    bad = {"measure": "<b>", "part": "all", "n": -1, "base": 2, "tuned": "x"}
    for tree in ({"rows": 3}, {"suite": 4}, {"suite": "POPE", "rows": [bad]}, []):
        scores.write_text(json.dumps(tree), encoding="utf-8")
        assert "scores.json" in write_report(run).read_text()

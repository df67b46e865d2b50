"""`suder sample` and `suder score`, run as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import suder
import suder.cli.sample
from suder.cli import main
from suder.evaluation.evaluate import evaluate
from suder.evaluation.result import load_evaluation


@pytest.fixture
def family(shared_model):
    return type(shared_model).__name__.lower()


@pytest.fixture(scope="module")
def folder(shared_model, tmp_path_factory):
    """A saved model, prompts with a blank line, two pictures."""
    path = tmp_path_factory.mktemp("cli")
    shared_model.save(path / "model")
    (path / "prompts.txt").write_text("a red circle\n\n  two blue circles\n", encoding="utf-8")
    rng = np.random.default_rng(1)
    (path / "pictures" / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.png"):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
            path / "pictures" / name
        )
    return path


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_sample_draws_and_score_reads_it(folder, tmp_path, capsys):
    out = tmp_path / "drawn"
    options = ["--model", str(folder / "model"), "--prompts", str(folder / "prompts.txt")]
    assert main(["sample", *options, "--n", "3", "--seed", "5", "--out", str(out)]) == 0
    assert "6 pictures of 2 inputs" in capsys.readouterr().out

    model = suder.load_model(folder / "model")
    prompts = ["a red circle", "two blue circles"]
    expected = suder.sample(model, "generation", prompts, 3, seed=5)
    rows = read(out / "samples.jsonl")
    assert [row["tokens"] for row in rows] == expected.tokens.tolist()
    assert [row["prompt"] for row in rows] == [prompts[i // 3] for i in range(6)]
    for i, (row, picture) in enumerate(zip(rows, model.decode(expected.tokens), strict=True)):
        assert row["image"] == f"{i // 3:05d}_{i % 3}.png"
        assert np.array_equal(np.asarray(Image.open(out / row["image"])), picture.numpy())
        assert row["logprob"] == pytest.approx(expected.logprob[i].sum().item(), abs=1e-4)
    assert not list(out.glob("*.partial"))

    assert main(["score", str(out / "samples.jsonl"), "--model", str(folder / "model")]) == 0
    assert "reward/generation: mean" in capsys.readouterr().out
    scored = read(out / "samples.scored.jsonl")
    reward = suder.DualReward(model).generation(prompts, expected.tokens, group=3)
    assert [row["reward"] for row in scored] == pytest.approx(reward.tolist(), abs=1e-5)
    assert [row["tokens"] for row in scored] == expected.tokens.tolist()


def test_tokens_of_other_pictures_are_not_believed(folder, shared_model, tmp_path):
    """A row may have been edited, or be of another model: then the picture itself counts."""
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    row = {"image": "a.png", "prompt": "a red circle"}
    said = [None, "12", [1] * 16, [9999] * 16, [1.5] * 16, [[1]] * 16, [1], [True] * 16]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row | {"tokens": tokens}) + "\n" for tokens in said))
    assert main(["score", str(file), "--model", str(folder / "model")]) == 0
    expected = suder.DualReward(shared_model).generation(
        ["a red circle"], [Image.open(tmp_path / "a.png")]
    )
    scored = [row["reward"] for row in read(tmp_path / "rows.scored.jsonl")]
    assert scored == pytest.approx(expected.tolist() * len(said), abs=1e-5)


def test_sample_captions(folder, tmp_path):
    out = tmp_path / "captions"
    options = ["--model", str(folder / "model"), "--images", str(folder / "pictures")]
    assert main(["sample", *options, "--n", "2", "--top-k", "5", "--out", str(out)]) == 0
    files = [folder / "pictures/b.png", folder / "pictures/deep/a.png"]
    model = suder.load_model(folder / "model")
    pixels = model.pixels([np.asarray(Image.open(file)) for file in files])
    expected = suder.sample(model, "understanding", pixels, 2, top_k=5)
    rows = read(out / "samples.jsonl")
    assert [row["image"] for row in rows] == [str(files[i // 2]) for i in range(4)]
    assert [row["caption"] for row in rows] == model.detokenize(expected.tokens)
    assert [row["finished"] for row in rows] == expected.finished.tolist()


def test_what_is_asked_is_an_option(folder, family, tmp_path, capsys):
    """By the names of a run's settings, and to the same effect as in Python."""
    path, pictures = str(folder / "model"), str(folder / "pictures")
    system = "" if family == "liquid" else "A red circle."
    null = "fixed" if family == "janus" else "blue square"
    prompts = {"question": "Of two?", "system_prompt": system}
    given = ["--model", path, "--question", "Of two?", "--system-prompt", system]
    out = tmp_path / "captions"
    short = ["--max-new-tokens", "3", "--null-prompt", null]
    assert main(["sample", *given, *short, "--images", pictures, "--out", str(out)]) == 0
    model = suder.load_model(path, null_prompt=null, **prompts)
    files = [folder / "pictures/b.png", folder / "pictures/deep/a.png"]
    pixels = model.pixels([np.asarray(Image.open(file)) for file in files])
    expected = suder.sample(model, "understanding", pixels, max_new_tokens=3)
    rows = read(out / "samples.jsonl")
    assert [row["tokens"] for row in rows] == [row.tolist() for row in expected.tokens]

    out = tmp_path / "drawn"
    drawn = ["--prompts", str(folder / "prompts.txt"), "--guidance", "3", "--out", str(out)]
    assert main(["sample", *given, *short, *drawn]) == 0
    texts = ["a red circle", "two blue circles"]
    expected = suder.sample(model, "generation", texts, guidance=3.0)
    rows = read(out / "samples.jsonl")
    assert [row["tokens"] for row in rows] == expected.tokens.tolist()
    padded = suder.sample(suder.load_model(path), "generation", texts, guidance=3.0)
    assert expected.tokens.tolist() != padded.tokens.tolist()

    assert main(["score", str(out / "samples.jsonl"), *given]) == 0
    scored = [row["reward"] for row in read(out / "samples.scored.jsonl")]
    reward = suder.DualReward(model).generation(texts, expected.tokens)
    assert scored == pytest.approx(reward.tolist(), abs=1e-5)
    plain = suder.DualReward(suder.load_model(path)).generation(texts, expected.tokens)
    assert scored != pytest.approx(plain.tolist(), abs=1e-3)


def test_evaluate_asks_what_it_is_told(folder, family, tmp_path, capsys):
    out = tmp_path / "items.npz"
    null = "fixed" if family == "janus" else "blue square"
    options = ["--question", "Of two?", "--system-prompt", "", "--max-new-tokens", "3"]
    options += ["--n", "4", "--guidance", "2", "--null-prompt", null, "--out", str(out)]
    assert main(["evaluate", str(folder / "model"), *options]) == 0
    found = load_evaluation(out).settings
    asked = {"question": "Of two?", "system_prompt": "", "null_prompt": null}
    assert found.items() >= {**asked, "max_new_tokens": 3, "guidance": 2.0}.items()
    model = suder.load_model(folder / "model", **asked)
    expected = evaluate(model, n=4, max_new_tokens=3, guidance=2.0, progress=False)
    assert load_evaluation(out).understanding.answers == expected.understanding.answers


def test_score_names_what_it_cannot_score(folder, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    Image.open(folder / "pictures/b.png").save(tmp_path / "b.png")
    rows = [
        {"image": "b.png", "caption": "a red circle", "id": 7},
        {"image": "text.png", "caption": "a red circle"},
        {"image": "b.png", "caption": " "},
        {"image": "b.png", "prompt": "two blue circles"},
        {"image": "gone.png", "prompt": "two blue circles"},
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    out = tmp_path / "scored.jsonl"
    options = ["--model", str(folder / "model"), "--out", str(out)]
    assert main(["score", str(file), *options]) == 0
    told = capsys.readouterr()
    assert "5 rows" in told.out
    assert told.err.count("no reward:") == 3
    assert "text.png" in told.err
    assert "gone.png" in told.err
    assert "empty caption" in told.err

    scored = read(out)
    assert scored[0]["id"] == 7
    assert [row["reward"] is None for row in scored] == [False, True, True, False, True]
    model = suder.load_model(folder / "model")
    picture = Image.open(tmp_path / "b.png")
    reward = suder.DualReward(model)
    expected = torch.cat(
        [
            reward.understanding([picture], ["a red circle"]),
            reward.generation(["two blue circles"], [picture]),
        ]
    )
    assert [scored[0]["reward"], scored[3]["reward"]] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"image": "a.png"}', 'line 1: takes an object with "image" and one of'),
        ('{"image": "a.png", "caption": "a", "prompt": "b"}', "one of"),
        ("{image}", "line 1: not JSON"),
        ("\n", "no rows in it"),
    ],
)
def test_score_refuses_what_is_no_row(tmp_path, capsys, text, message):
    file = tmp_path / "pairs.jsonl"
    file.write_text(text)
    assert main(["score", str(file), "--model", "never read"]) == 2
    assert message in capsys.readouterr().err


def test_sample_refuses_empty_inputs(tmp_path, capsys):
    (tmp_path / "none.txt").write_text("\n \n")
    for option, path in (("--prompts", tmp_path / "none.txt"), ("--images", tmp_path)):
        assert main(["sample", option, str(path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "has no prompt in it" in told
    assert "no picture in" in told


def test_texts_that_are_too_long_end_nothing(folder, shared_model, tmp_path, capsys):
    long = "red " * 300
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(f"{long}\na red circle\n")
    out = tmp_path / "drawn"
    options = ["--model", str(folder / "model")]
    assert main(["sample", *options, "--prompts", str(prompts), "--out", str(out)]) == 0
    (row,) = read(out / "samples.jsonl")
    assert (row["prompt"], row["image"]) == ("a red circle", "00000_0.png")
    (dropped,) = read(out / "dropped.jsonl")
    assert dropped["input"].startswith("red red")
    assert "too long: " in dropped["why"]
    assert "left out: red red" in capsys.readouterr().err
    prompts.write_text(long)
    assert main(["sample", *options, "--prompts", str(prompts), "--out", str(tmp_path / "no")]) == 1
    assert not (tmp_path / "no").exists()

    pairs = out / "pairs.jsonl"
    rows = [{"caption": long}, {"prompt": long}, {"caption": "a circle"}, {"prompt": "a circle"}]
    pairs.write_text("".join(json.dumps(one | {"image": row["image"]}) + "\n" for one in rows))
    assert main(["score", str(pairs), *options]) == 0
    scored = read(out / "pairs.scored.jsonl")
    assert [one["reward"] is None for one in scored] == [True, True, False, False]
    for one in scored[:2]:
        assert "too long: " in one["error"]
        assert f"more than the model's {shared_model.positions} positions" in one["error"]


def test_rewards_that_are_not_finite_are_errors_of_their_rows(
    folder, tmp_path, capsys, monkeypatch
):
    """A broken model ends the command only at its end, by exit code 1."""
    broken = suder.load_model(folder / "model")
    broken.parts.last_layer("generation")[0].data[3, 2] = np.nan
    monkeypatch.setattr(suder.models, "load_model", lambda *_, **__: broken)
    picture = str(folder / "pictures/b.png")
    texts = [{"caption": "a circle"}, {"prompt": "two"}]
    file = tmp_path / "pairs.jsonl"
    for pairs, code in ((texts, 0), (texts[:1], 1)):
        file.write_text("".join(json.dumps(one | {"image": picture}) + "\n" for one in pairs))
        assert main(["score", str(file), "--model", "it", "--overwrite"]) == code
        first, *others = read(tmp_path / "pairs.scored.jsonl")
        assert first["reward"] is None
        assert f"a reward that is not finite, by {folder / 'model'}" in first["error"]
        assert all(one["reward"] < 0 for one in others)
    assert "its weights hold NaN or infinity" in capsys.readouterr().err


def test_many_samples_of_one_prompt_are_decoded_in_parts(
    folder, shared_model, tmp_path, monkeypatch
):
    monkeypatch.setattr(suder.cli.sample, "AT_ONCE", 4)
    options = ["--model", str(folder / "model"), "--prompts", str(folder / "prompts.txt")]
    decoded = []
    family = type(shared_model)
    honest = family.decode
    monkeypatch.setattr(family, "decode", lambda self, t: decoded.append(len(t)) or honest(self, t))
    assert main(["sample", *options, "--n", "6", "--out", str(tmp_path / "cut")]) == 0
    assert decoded == [4, 2, 4, 2]
    monkeypatch.undo()
    assert main(["sample", *options, "--n", "6", "--out", str(tmp_path / "whole")]) == 0
    names = sorted(file.name for file in (tmp_path / "cut").iterdir())
    assert names == sorted(file.name for file in (tmp_path / "whole").iterdir())
    assert len(names) == 14
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("command", ["sample", "score"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    assert f"  suder {command} " in capsys.readouterr().out

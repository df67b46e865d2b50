"""`suder sample` and `suder score` on what should not be there: dropped, named, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import suder
import suder.engine.sampling
import suder.models
from suder.cli import main
from suder.cli import sample as sample_command
from suder.cli import score as score_command


@pytest.fixture(autouse=True)
def model(shared_janus, monkeypatch):
    """Loaded once for all."""
    monkeypatch.setattr(suder.models, "load_model", lambda *args, **options: shared_janus)
    return shared_janus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, one of them half transparent, among what only looks like pictures."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(pictures / "b.png")
    Image.fromarray(pixels).save(pictures / "d.png")
    whole = (pictures / "b.png").read_bytes()
    (pictures / "a.png").write_bytes(whole[:99])
    (pictures / "c\x1b[31m.png").write_bytes(b"no picture")
    os.mkfifo(pictures / "e.png")
    (pictures / "f.png").mkdir()
    (pictures / os.fsdecode(b"g\xe9.png")).write_bytes(whole)
    (pictures / "h.png").symlink_to("/etc/passwd")
    return tmp_path


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def write_rows(file: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


# ---- sample


def test_bad_pictures_are_left_out_and_named(folder, model, capsys):
    out = folder / "out"
    assert (
        main(["sample", "--images", str(folder / "pictures"), "--n", "2", "--out", str(out)]) == 0
    )
    told = capsys.readouterr()
    assert "4 captions of 2 inputs" in told.out
    assert told.err.count("left out: ") == 6
    assert "\x1b[31m" not in told.err
    names = {Path(row["input"]).name for row in rows_of(out / "dropped.jsonl")}
    assert names == {"a.png", "c\x1b[31m.png", "e.png", "f.png", "g\\udce9.png", "h.png"}
    rows = rows_of(out / "samples.jsonl")
    good = [folder / "pictures/b.png", folder / "pictures/d.png"]
    assert [row["image"] for row in rows] == [str(good[i // 2]) for i in range(4)]
    paper = Image.new("RGBA", (32, 32), model.background)
    seen = [
        np.asarray(Image.open(good[0])),
        np.asarray(Image.alpha_composite(paper, Image.open(good[1])).convert("RGB")),
    ]
    expected = suder.sample(model, "understanding", model.pixels(seen), 2)
    assert [row["caption"] for row in rows] == model.detokenize(expected.tokens)


def test_no_picture_left_is_nothing_done(folder, capsys):
    for name in ("b.png", "d.png"):
        (folder / "pictures" / name).write_bytes(b"")
    out = folder / "out"
    assert main(["sample", "--images", str(folder / "pictures"), "--out", str(out)]) == 1
    assert "nothing was sampled" in capsys.readouterr().err
    assert not out.exists()
    for path in ("b.png", "e.png"):
        assert main(["sample", "--images", str(folder / "pictures" / path), "--out", str(out)]) == 1


@pytest.mark.parametrize("prompts", ["prompts.txt", "pipe", "folder"])
def test_prompts_that_cannot_be_read(tmp_path, capsys, prompts):
    (tmp_path / "prompts.txt").write_bytes(b"one\ncaf\xe9\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    command = ["sample", "--prompts", str(tmp_path / prompts), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    told = capsys.readouterr().err
    why = {"prompts.txt": "prompts.txt, line 2: not UTF-8", "pipe": "not a regular file"}
    assert why.get(prompts, "folder") in told
    assert not (tmp_path / "out").exists()


def test_rows_are_kept_through_a_kill_and_parts_are_as_the_whole(
    tmp_path, model, monkeypatch, capsys
):
    """A batch at a time; a prompt's pictures do not depend on where the cut was."""
    prompts = [f"a {colour} {thing}" for colour in ("red", "green") for thing in ("circle", "left")]
    (tmp_path / "prompts.txt").write_bytes(("\ufeff" + "\r\n".join(prompts)).encode())
    out = tmp_path / "out"
    monkeypatch.setattr(sample_command, "AT_ONCE", 4)
    command = ["sample", "--prompts", str(tmp_path / "prompts.txt"), "--n", "2", "--out", str(out)]
    assert main(command) == 0
    expected = suder.sample(model, "generation", prompts, 2)
    rows = rows_of(out / "samples.jsonl")
    assert [row["prompt"] for row in rows] == [prompts[i // 2] for i in range(8)]
    assert [row["tokens"] for row in rows] == expected.tokens.tolist()

    whole = suder.engine.sampling.sample

    def dies(model, direction, part, **how):
        if how["first"]:
            raise KeyboardInterrupt
        return whole(model, direction, part, **how)

    monkeypatch.setattr(suder.engine.sampling, "sample", dies)
    assert main([*command[:-1], str(tmp_path / "cut")]) == 130
    assert rows_of(tmp_path / "cut/samples.jsonl") == rows[:4]
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {
        "samples.jsonl", *(row["image"] for row in rows[:4])
    }  # fmt: skip


def test_a_used_folder_is_refused_unless_asked(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo blue circles\n")
    out = tmp_path / "out"
    command = ["sample", "--prompts", str(tmp_path / "prompts.txt"), "--out", str(out)]
    assert main([*command, "--n", "2"]) == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert main(command) == 2
    assert "holds samples already; take another folder, or replace" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    # Replaced: no picture of the time before, and whatever else lies there stays.
    (out / "notes.txt").write_text("mine")
    (out / "samples.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (out / "samples.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    (out / "00000_1.png").unlink()
    (out / "00000_1.png").symlink_to(tmp_path / "prompts.txt")
    assert main([*command, "--overwrite"]) == 0
    assert {path.name for path in out.iterdir()} == {
        "samples.jsonl", "00000_0.png", "00001_0.png", "notes.txt"
    }  # fmt: skip
    assert not (out / "samples.jsonl").is_symlink()
    assert len(rows_of(tmp_path / "elsewhere.jsonl")) == 4
    assert (tmp_path / "prompts.txt").read_text() == "a red circle\ntwo blue circles\n"


def test_what_is_the_users_is_refused(tmp_path, capsys):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    command = ["sample", "--prompts", str(prompts), "--overwrite", "--out"]
    for out, why in (
        (prompts, "is a file"),
        (tmp_path, "holds other files"),
        (prompts / "below", "is no folder that can be written"),
    ):
        assert main([*command, str(out)]) == 2
        assert why in capsys.readouterr().err
    assert prompts.read_text() == "a red circle\n"
    # Settings that cannot be used leave no folder to trip over.
    assert main([*command, str(tmp_path / "out"), "--temperature", "-1"]) == 2
    assert not (tmp_path / "out").exists()


# ---- score


def test_what_sample_wrote_is_scored_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("prompts.txt").write_text("a red circle\n")
    assert main(["sample", "--prompts", "prompts.txt", "--out", "drawn"]) == 0
    assert main(["sample", "--images", "drawn", "--out", "told"]) == 0
    monkeypatch.chdir(tmp_path / "away")
    (tmp_path / "here").rename(tmp_path / "moved")
    assert main(["score", "../moved/drawn/samples.jsonl"]) == 0
    assert rows_of(tmp_path / "moved/drawn/samples.scored.jsonl")[0]["reward"] is not None
    (tmp_path / "moved").rename(tmp_path / "here")
    assert main(["score", "../here/told/samples.jsonl"]) == 0


def test_nothing_scored_is_exit_code_1(tmp_path, capsys):
    file = write_rows(tmp_path / "a.jsonl", {"image": "gone.png", "caption": "a"})
    assert main(["score", str(file)]) == 1
    assert "gone.png: No such file" in capsys.readouterr().err
    [row] = rows_of(tmp_path / "a.scored.jsonl")
    assert row["reward"] is None


def test_each_odd_row_is_its_own_error(folder, capsys):
    picture = "pictures/b.png"
    file = write_rows(
        folder / "a.jsonl",
        {"image": picture, "caption": "a red\u2028circle", "error": "of last time", "reward": 1},
        {"image": picture, "caption": None},
        {"image": picture, "prompt": 7},
        {"image": 3, "caption": "a"},
        {"image": "a\0b", "caption": "a"},
        {"image": "a" * 5000, "caption": "a"},
        {"image": "pictures/e.png", "caption": "a"},
        {"image": "/dev/zero", "caption": "a"},
        {"image": "pictures", "caption": "a"},
        {"image": picture, "caption": ["a"]},
        {"image": picture},
        "[1]",
        '{"image": NaN, "caption": "a"}',
        '{"image"',
        {"image": picture, "caption": ""},
        {"image": picture, "prompt": "a red circle", "error": "of last time"},
    )
    assert main(["score", str(file)]) == 0
    rows = rows_of(folder / "a.scored.jsonl")
    assert len(rows) == 16
    assert [i for i, row in enumerate(rows) if row["reward"] is not None] == [0, 15]
    assert "error" not in rows[0]
    assert "error" not in rows[15]
    told = [row.get("error", "") for row in rows]
    for number in (2, 3, 4, 10, 11, 12, 13, 14):
        assert f"a.jsonl, line {number}: " in told[number - 1]
    assert '"caption" takes a text, got null' in told[1]
    assert '"image" takes a text, got 3' in told[3]
    assert "embedded null byte" in told[4]
    assert "File name too long" in told[5]
    assert "not a regular file" in told[6]
    assert "not a regular file" in told[7]
    assert "empty caption" in told[14]


def test_rows_are_kept_through_a_kill(folder, monkeypatch):
    monkeypatch.setattr(score_command, "AT_ONCE", 2)
    row = {"image": "pictures/b.png", "caption": "a red circle"}
    file = write_rows(folder / "a.jsonl", *[row] * 5)
    scores = score_command._score

    def dies(scorer, rows, pictures):
        if (folder / "a.scored.jsonl").stat().st_size:
            raise KeyboardInterrupt
        scores(scorer, rows, pictures)

    monkeypatch.setattr(score_command, "_score", dies)
    assert main(["score", str(file)]) == 130
    assert [row["reward"] is None for row in rows_of(folder / "a.scored.jsonl")] == [False] * 2


def test_where_scores_go_is_known_before_any_work(folder, monkeypatch, capsys):
    def works(*args, **options):
        raise AssertionError("a model was loaded")

    file = write_rows(folder / "a.jsonl", {"image": "pictures/b.png", "caption": "a red circle"})
    taken = write_rows(folder / "taken.jsonl", {"mine": 1})
    picture = folder / "pictures/b.png"
    pixels = picture.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(suder.models, "load_model", works)
        for out, why in (
            (folder / "nowhere/out.jsonl", "is no folder that can be written"),
            (taken, "is there already; take another file, or replace it by --overwrite"),
            (picture, "is there already"),
            (file, "holds the rows to score"),
            (folder, "is not a regular file"),
        ):
            assert main(["score", str(file), "--out", str(out)]) == 2
            assert why in capsys.readouterr().err
        assert main(["score", str(file), "--out", str(file), "--overwrite"]) == 2
    assert picture.read_bytes() == pixels
    assert main(["score", str(file), "--out", str(taken), "--overwrite"]) == 0
    assert rows_of(taken)[0]["reward"] is not None

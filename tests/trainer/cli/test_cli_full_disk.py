"""`sample` and `score` where space ends: what and how much is said, and what is there is whole."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import suder
from suder.cli import main


@pytest.fixture(autouse=True)
def model(shared_janus, monkeypatch):
    monkeypatch.setattr(suder.models, "load_model", lambda *args, **options: shared_janus)


@contextmanager
def limit(size: int) -> Iterator[None]:
    """Has the system refuse more bytes in one file; for no longer than a command runs, or it would
    refuse the log of these tests."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def rows(file: Path) -> list[dict]:
    """Each whole, the last as well."""
    text = file.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_sample_of_rows(tmp_path: Path, capsys) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo blue circles\n")
    out = tmp_path / "out"
    options = ["--model", "it", "--prompts", str(tmp_path / "prompts.txt"), "--n", "20"]
    with limit(3_500):  # a picture has 3,000 bytes, and a row some 150
        assert main(["sample", *options, "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"no space left for {out / 'samples.jsonl'}: it takes " in told
    assert "internal error" not in told
    found = rows(out / "samples.jsonl")
    assert 5 < len(found) < 40
    assert all((out / row["image"]).is_file() for row in found)
    assert not list(out.glob("*.partial"))
    assert main(["sample", *options, "--out", str(out), "--overwrite"]) == 0
    assert len(rows(out / "samples.jsonl")) == 40


def test_sample_of_pictures(tmp_path: Path, capsys) -> None:
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    out = tmp_path / "out"
    options = ["--model", "it", "--prompts", str(tmp_path / "prompts.txt")]
    with limit(500):
        assert main(["sample", *options, "--out", str(out)]) == 2
    assert f"no space left for {out / '00000_0.png'}: it takes " in capsys.readouterr().err
    assert not list(out.iterdir())


def test_score(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("suder.cli.score.AT_ONCE", 4)
    pixels = np.zeros((32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    row = {"image": "a.png", "caption": "a red circle", "note": "n" * 100}
    file, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    file.write_text((json.dumps(row) + "\n") * 20)
    with limit(2_000):
        assert main(["score", str(file), "--model", "it", "--out", str(out)]) == 2
    assert f"no space left for {out}: it takes " in capsys.readouterr().err
    assert len(rows(out)) == 8  # whole parts of four
    assert main(["score", str(file), "--model", "it", "--out", str(out), "--overwrite"]) == 0
    assert len(rows(out)) == 20

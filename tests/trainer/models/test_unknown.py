"""Words that a vocabulary does not have are named before anything is drawn for them."""

from __future__ import annotations

from pathlib import Path

import pytest

import suder
from suder.cli import main
from suder.models.unknown import not_known, unknown_words


def test_the_words_and_nothing_else() -> None:
    model = suder.load_model("shapes")
    assert unknown_words(model.tokenizer, "a cat on a red mat") == ["cat", "on", "mat"]
    assert not_known(model, ["a red circle", "a blue square"]) == ""
    told = not_known(model, ["a red circle", "a cat", "a cat", "zebra\x1b[1m one two three four"])
    assert told.startswith("2 of 3 prompts have words that this model does not know")
    assert '"cat"' in told
    assert "\x1b" not in told


def test_a_tokenizer_that_knows_every_byte_has_none() -> None:
    class Bytes:
        unk_token_id = None

    assert unknown_words(Bytes(), "anything") == []


def test_sample_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat on a mat\n")
    assert main(["sample", "--prompts", str(prompts), "--out", str(tmp_path / "out")]) == 0
    assert "warning: 1 of 1 prompt has words" in capsys.readouterr().err

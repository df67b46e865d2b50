"""What is read and written is, without a bar of anybody's."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.utils import logging

from suder.models import Janus, load_model


def test_reading_and_writing_draw_no_bars(
    shared_janus: Janus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(logging, "_tqdm_active", True)
    shared_janus.save(tmp_path)
    load_model(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled(), "another's bars are as they were"

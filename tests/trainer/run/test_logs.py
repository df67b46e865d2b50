"""What the log writes of a number."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suder.run.logs import RunLog
from suder.storage.files import read_jsonl


@given(value=st.floats(1e-30, 1e30))
def test_digits_that_count_are_kept_at_any_size(
    value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A rate of 4e-7 was written as 0."""
    run = tmp_path_factory.mktemp("run")
    with RunLog(run, 1, quiet=True) as log:
        log.round(1, {"lr": value, "loss": -value})
    (row,) = read_jsonl(run / "metrics.jsonl")
    assert row["lr"] == pytest.approx(value, rel=1e-6, abs=0)
    assert row["loss"] == -row["lr"]


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, 1, quiet=True) as log:
        log.round(1, {"a": math.nan, "b": math.inf, "c": 0.0, "d": 4e-7})
    assert '"a": null, "b": null, "c": 0.0, "d": 4e-07}' in (tmp_path / "metrics.jsonl").read_text()


def test_where_nobody_sees_a_bar_a_line_tells_of_each_tenth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLog(tmp_path, 40) as log:
        for index in range(1, 41):
            log.round(index, {"reward/generation": -index})
    said = [line for line in capsys.readouterr().err.splitlines() if " of 40 " in line]
    assert said[0] == "round 4 of 40 R_G -4.000"
    assert [int(line.split()[1]) for line in said] == list(range(4, 41, 4))

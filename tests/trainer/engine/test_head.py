"""What a distribution may be asked to be; its draws are in tests/ops/test_sample_token.py."""

from __future__ import annotations

import pytest

from suder.engine.head import Rules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: takes a finite number above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature: takes a finite number above 0"),
        ({"temperature": float("inf")}, "temperature: takes a finite number above 0"),
        ({"top_k": -1}, "got top_k=-1"),
        ({"top_p": 0.0}, r"top_p numbers in \(0, 1\]"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_impossible_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Rules(**options)

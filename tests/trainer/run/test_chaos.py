"""The short form of `make chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_killed_again_and_again_the_bits_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("chaos.py")), "--kills", "8", "--seed", "2"],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert sum(told[end] for end in told.keys() - {"runs equal", "seconds"}) == 8
    assert told["runs equal"] >= 1

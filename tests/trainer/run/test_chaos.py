"""The short form of `make chaos`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kills"), [("janus", 8), ("emu3", 1), ("liquid", 2)])
def test_killed_again_and_again_the_bits_are_the_same(family: str, kills: int) -> None:
    given = ["--family", family, "--kills", str(kills), "--seed", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.run.chaos", *given], cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert sum(told[end] for end in told.keys() - {"runs equal", "seconds"}) == kills
    assert told["runs equal"] >= 1

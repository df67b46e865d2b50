"""Every script in examples/ is short, and runs as its reader would run it."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))
# What stands in what each prints.
PRINTS = {
    "dpo_from_hidden_states.py": "step 9: loss 0.",
    "grpo_step.py": "step 3: loss ",
    "own_adapter.py": "tensor([-",
    "rerank_captions.py": "  a ",
    "rewards_from_hidden_states.py": "best ",
    "trainer_cross_entropy.py": "'grad_norm': ",
    "trl_grpo.py": "rewards/dual_reward_understanding/mean",
}


def test_there_are_seven() -> None:
    assert sorted(PRINTS) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.filterwarnings("ignore")  # of the hosts' own libraries
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("trl"):
        pytest.importorskip("trl")
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 40
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    printed = capsys.readouterr().out
    assert PRINTS[name] in printed
    assert "nan" not in printed

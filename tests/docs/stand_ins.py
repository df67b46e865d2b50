"""What the pages' blocks find where they run: small inputs, a settings file, models they name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suder.experiment.inputs import write_inputs
from tests.conftest import ROOT
from tests.docs.blocks import Block
from tests.trainer.families import JUDGING, small_liquid
from tests.trainer.published import write_checkpoint

# A block of Python that begins with `# NAME.py` is that file, for the commands below it.
FILE = re.compile(r"# (\w+\.py)\b")
# Names of files in the pages, and what stands there.
INPUTS = {
    "my/pictures": "images",
    "pictures": "images",
    "photos": "images",
    "data/pictures": "images",
    "my/prompts.txt": "prompts.txt",
    "prompts.txt": "prompts.txt",
    "data/prompts.txt": "prompts.txt",
    "runs/demo/inputs": "",
}
SETTINGS = """\
model: shapes
output: runs/of-{}
data: {{images: my/pictures, prompts: my/prompts.txt}}
"""


def make(page: str, folder: Path, blocks: Sequence[Block]) -> dict[str, Any]:
    """Writes them into the folder; returns the names that the page's Python finds."""
    for name in ("recipes", "examples", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    write_inputs(folder / "inputs", pictures=12, prompt_count=12)
    for name, source in INPUTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(folder / "inputs" / source)
    if any("other/" in block.text for block in blocks):
        write_inputs(folder / "other", pictures=4, prompt_count=4, seed=1)
        (folder / "other" / "pictures").symlink_to("images")
    for name in ("settings", "mine"):
        (folder / f"{name}.yaml").write_text(SETTINGS.format(name), encoding="utf-8")
    for block in blocks:
        if block.language == "python" and (found := FILE.match(block.text)):
            (folder / found[1]).write_text(block.text, encoding="utf-8")
    if page == "docs/janus-pro.md":
        write_checkpoint(folder / "models" / "janus-pro-1b")
    (folder / "picture.png").symlink_to(folder / "inputs/images/0000.png")
    if page == "docs/rewards.md":
        noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
        return {
            "model": small_liquid(words=JUDGING),
            "pictures": noise,
            "captions": ["a red circle", "two blue squares"],
            "text": "a red circle",
        }
    return {}

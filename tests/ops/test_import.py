"""What `import suder_ext`, its integrations and a call load: torch, and what is needed."""

from __future__ import annotations

import subprocess
import sys

CALL = """
import sys, torch
sys.modules.update(dict.fromkeys(("openrlhf", "swift", "trl", "verl")))  # not to be had
before = set(sys.modules)
import suder_ext
from suder_ext.integrations import openrlhf, swift, trl, verl
suder_ext.linear_logprob(torch.ones(1, 2), torch.ones(3, 2), torch.zeros(1).long())
print(*set(sys.modules) - before)
"""
# Slow to load, or of no use to who has tensors on one device.
NOT_LOADED = (
    "accelerate",
    "datasets",
    "suder",
    "suder_ext._ops.collectives",
    "suder_ext.functional.vocabulary_parallel",
    "torch._dynamo",
    "torch._inductor",
    "transformers",
)


def test_no_more_than_needed() -> None:
    run = subprocess.run([sys.executable, "-c", CALL], check=True, capture_output=True, text=True)
    loaded = set(run.stdout.split())
    assert "suder_ext.integrations.verl" in loaded
    assert "suder_ext.functional.logprobs" in loaded
    assert loaded.isdisjoint(NOT_LOADED)

"""Sampling on a GPU: steps that are recorded and run again draw what steps as they are draw."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("pydantic", reason="the trainer is not installed")
pytest.importorskip("transformers", reason="the trainer is not installed")
from suder.engine.graphs import graphs_of
from suder.engine.sampling import sample
from suder.engine.weights import to_sample_with
from tests.trainer.conftest import random_janus

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CALLS = [
    ("generation", {"n": 4}),
    ("generation", {"n": 4, "guidance": 3.0, "top_k": 9, "top_p": 0.9}),
    ("generation", {"n": 4, "greedy": True}),
    ("understanding", {"n": 16, "max_new_tokens": 20}),
    ("understanding", {"n": 16, "max_new_tokens": 20, "top_p": 0.9}),
]
PROMPTS = ["a red circle", "two blue circles", "a green triangle above a red square"]


@pytest.mark.parametrize("compute", [None, torch.bfloat16])
def test_recorded_steps_draw_what_steps_draw(compute, monkeypatch):
    model = random_janus(compute=compute).cuda()
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    for seed in range(3):
        for direction, options in CALLS:
            condition = PROMPTS if direction == "generation" else pixels
            ours = sample(model, direction, condition, seed=seed, **options)
            with monkeypatch.context() as plain:
                plain.setattr("suder.engine.sampling.graphs_of", lambda model: None)
                theirs = sample(model, direction, condition, seed=seed, **options)
            assert all(map(torch.equal, ours.tokens, theirs.tokens)), (direction, options)
            assert all(map(torch.equal, ours.logprob, theirs.logprob)), (direction, options)
        with torch.no_grad():
            for weight in model.trainable_parameters():
                weight.mul_(1.02)
    graphs = graphs_of(to_sample_with(model))
    assert any(replay for steps in graphs.steps.values() for replay in steps.values())

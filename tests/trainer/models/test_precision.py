"""bfloat16 products over float32 weights: what is promised in float32 stays float32."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch

from suder.engine.head import Head
from suder.engine.sampling import sample
from suder.models.base import inference
from suder_ext import linear_logprob
from tests.tolerances import TOLERANCES

HOW = ("compute", "autocast", "weights")


def in_bfloat16(model, how):
    """The model, and the region that a caller opens around everything."""
    model = copy.deepcopy(model)
    if how == "compute":
        model.compute = torch.bfloat16
    if how == "weights":
        model.to(torch.bfloat16)
    if how == "autocast":
        return model, torch.autocast("cpu", torch.bfloat16)
    return model, contextlib.nullcontext()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("direction", ["understanding", "generation"])
def test_drawn_and_trained_log_probabilities(shared_model, prompts, pictures, direction, how):
    model, region = in_bfloat16(shared_model, how)
    condition = prompts if direction == "generation" else model.pixels(pictures)
    with region:
        drawn = sample(model, direction, condition, 16, seed=1)
        with inference(model):
            hidden = model(direction, condition, drawn.tokens, 16)
            again = linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias)
    gap = (torch.cat(list(drawn.logprob)) - again).abs()
    assert gap.max() < TOLERANCES["ratio", "cpu", torch.bfloat16]["atol"]
    assert gap.mean() < TOLERANCES["mean_ratio", "cpu", torch.bfloat16]["atol"]
    assert gap.max() > 1e-4  # it was bfloat16


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("direction", ["understanding", "generation"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_logits_and_residuals_while_drawing(
    shared_model, prompts, pictures, direction, guidance, how
):
    if direction == "understanding" and guidance != 1.0:
        return
    model, region = in_bfloat16(shared_model, how)
    condition = prompts if direction == "generation" else model.pixels(pictures)
    with region, inference(model):
        steps = model.start(direction, condition, 4, 16, guidance)
        steps.make_room()
        steps.advance(torch.arange(16), 15)
        head = Head(steps.weight, steps.bias)
        logits = head.logits(steps.features())
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16().float()).float().mean() > 0.9
    assert steps.hidden.dtype == model.dtype  # the residual stream, after its norm


@torch.no_grad()
def test_hidden_states_come_in_the_dtype_they_are_multiplied_in(shared_janus, prompts):
    tokens = torch.arange(64).view(4, 16) % 48
    model, _ = in_bfloat16(shared_janus, "compute")
    hidden = model("generation", prompts, tokens)
    assert {part.dtype for part in (hidden.hidden, hidden.weight, hidden.bias)} == {torch.bfloat16}
    assert not torch.is_autocast_enabled("cpu")
    exact = shared_janus("generation", prompts, tokens)
    assert exact.weight is shared_janus.core.model.generation_head.vision_head.weight
    assert (hidden.hidden.float() - exact.hidden).abs().mean() < 0.03


@pytest.mark.parametrize("how", ["compute", "autocast"])
def test_pictures_are_read_and_drawn_in_the_weights_dtype(shared_janus, pictures, how):
    """A picture's tokens are data: they do not depend on what a run computes in."""
    model, region = in_bfloat16(shared_janus, how)
    tokens = shared_janus.encode(shared_janus.pixels(pictures))
    with region:
        assert torch.equal(model.encode(model.pixels(pictures)), tokens)
        assert torch.equal(model.decode(tokens), shared_janus.decode(tokens))


def test_a_change_of_weights_is_seen_at_once(janus, prompts):
    """torch's autocast keeps casts of the weights as long as its region lasts."""
    janus.compute = torch.bfloat16
    tokens = torch.arange(64).view(4, 16) % 48
    before = janus("generation", prompts, tokens).hidden
    with torch.no_grad():
        for layer in janus.core.model.language_model.layers:
            layer.mlp.down_proj.weight.mul_(-1)
    after = janus("generation", prompts, tokens).hidden
    assert not torch.allclose(before, after, rtol=0.1, atol=0.1)

"""Rewards of products in 16 bits: by the sampler's copy of the weights, not by one made a batch."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from suder.engine.weights import to_sample_with
from suder.method.rewards import DualReward
from suder.settings.learning import Lora
from tests.tolerances import TOLERANCES

CAPTIONS = ["a red circle", "two circles", "a blue square", "above below above", "and", "red", "a"]


@pytest.fixture
def narrow(janus):
    janus.compute = torch.bfloat16
    return janus


@pytest.fixture
def tokens(narrow):
    make = torch.Generator().manual_seed(2)
    return torch.randint(narrow.image_vocab_size, (7, narrow.num_image_tokens), generator=make)


def with_lora(model):
    pytest.importorskip("peft")
    model.add_lora(Lora(rank=3), seed=0)
    make = torch.Generator().manual_seed(1)
    for weight in model.trainable_parameters():
        weight.data += 0.02 * torch.randn(weight.shape, generator=make)
    return model


def both(reward, tokens):
    return torch.stack(
        [reward.understanding(tokens, CAPTIONS), reward.generation(CAPTIONS, tokens)]
    )


@pytest.mark.parametrize("scorer", ["live", "frozen"])
def test_the_bits_are_those_of_autocast(narrow, tokens, monkeypatch, scorer):
    reward = DualReward(narrow, scorer=scorer)
    ours = both(reward, tokens)
    monkeypatch.setattr("suder.method.rewards.to_sample_with", lambda model: model)
    assert torch.equal(ours, both(reward, tokens))
    assert ours.std() > 0.1


def test_the_live_one_follows_the_weights(narrow, tokens):
    live, frozen = DualReward(narrow), DualReward(narrow, scorer="frozen")
    before = both(live, tokens)
    with torch.no_grad():
        for weight in narrow.trainable_parameters():
            weight.mul_(1.1)
    assert (both(live, tokens) - before).abs().max() > 0.05
    assert torch.equal(both(frozen, tokens), before)


def test_adapters_are_merged_and_without_them_it_is_the_base(narrow, tokens, monkeypatch):
    """Off for the frozen scorer alone: the sampler's copy is that of the present model after."""
    base = both(DualReward(narrow), tokens)
    model = with_lora(narrow)
    live, frozen = DualReward(model), DualReward(model, scorer="frozen")
    assert frozen.model is model
    merged = both(live, tokens)
    assert torch.equal(both(frozen, tokens), base)
    assert torch.equal(both(live, tokens), merged)
    twin = to_sample_with(model).core.lm_head  # one copy serves both
    assert to_sample_with(model).core.lm_head is twin
    monkeypatch.setattr("suder.method.rewards.to_sample_with", lambda model: model)
    apart = both(live, tokens)
    model.compute = None
    exact = both(live, tokens)
    for one in (merged, apart):  # neither is nearer to what float32 gives
        gap = (one - exact).abs()
        assert gap.max() < TOLERANCES["merged", "cpu", torch.bfloat16]["atol"]
        assert gap.mean() < TOLERANCES["mean_merged", "cpu", torch.bfloat16]["atol"]
    assert (merged - base).abs().max() > 0.05
    assert not torch.equal(merged, apart)


def test_no_matrix_is_converted_for_a_batch(narrow, tokens, monkeypatch):
    """Once a call, into the same place; it was done to each of them for each batch."""
    matrices = {
        layer.weight.data_ptr() for layer in narrow.modules() if isinstance(layer, torch.nn.Linear)
    }

    class Casts(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.name().startswith("aten::_to_copy") and args[0].data_ptr() in matrices:
                self.count += 1
            return func(*args, **(kwargs or {}))

    reward = DualReward(narrow, batch_size=1)
    both(reward, tokens)
    with Casts() as ours:
        both(reward, tokens)
    monkeypatch.setattr("suder.method.rewards.to_sample_with", lambda model: model)
    with Casts() as autocast:
        both(reward, tokens)
    assert ours.count == 0
    assert autocast.count >= 7 * 14


@pytest.mark.parametrize("scorer", ["live", "frozen"])
def test_pictures_are_what_the_model_itself_encodes(narrow, pictures, scorer):
    """The VQ model's products stay in float32, and so do the pixels it is given."""
    encoded = narrow.encode(narrow.pixels(pictures))
    reward = DualReward(narrow, scorer=scorer)
    shown = reward.understanding(pictures, CAPTIONS[:4])
    assert torch.equal(shown, reward.understanding(encoded, CAPTIONS[:4]))
    twin = to_sample_with(narrow)
    assert torch.equal(twin.pixels(pictures), narrow.pixels(pictures))

"""Gradient checkpointing: the same gradients of what is kept of a forward that is much smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from suder.engine.sampling import sample
from suder.models import load_model
from suder.models.base import DIRECTIONS, Condition, Direction
from suder.models.decoder.adapter import DecoderModel
from suder.run.learner import Learner
from suder_ext import linear_logprob
from tests.tolerances import TOLERANCES

PROMPTS = ["a red circle", "two blue square"]


def asked(model: DecoderModel, direction: Direction) -> tuple[Condition, Any]:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randint(model.image_vocab_size, (4, model.num_image_tokens), generator=generator)
    if direction == "generation":
        return PROMPTS, drawn
    return model.pixels(model.decode(drawn[:2])), model.tokenize([*PROMPTS, *PROMPTS])


def gradients(model: DecoderModel, direction: Direction) -> tuple[list[torch.Tensor], int]:
    """Of the mean log-probability, and the bytes that autograd kept for them."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(direction, *asked(model, direction), 2)
        loss = linear_logprob(hidden.hidden, hidden.weight, hidden.target, hidden.bias).mean()
    own = {one.untyped_storage().data_ptr() for one in model.parameters()}
    size = sum(size for address, size in kept.items() if address not in own)
    loss.backward()
    return [p.grad for p in model.trainable_parameters() if p.grad is not None], size


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_same_gradients_of_less_memory(model_folder: Path, direction: Direction) -> None:
    model = load_model(model_folder)
    model.parts.language_model.layers[0].self_attn.attention_dropout = 0.5  # must stay off
    plain, size = gradients(model, direction)
    model.checkpoint_activations = True
    again, smaller = gradients(model, direction)
    assert smaller < 0.6 * size
    assert len(again) == len(plain)
    for one, other in zip(again, plain, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCES["gradient", "cpu", torch.float32])
    assert not any(module.training for module in model.modules())


def test_sampling_keeps_its_cache(model_folder: Path) -> None:
    model = load_model(model_folder)
    plain = sample(model, "generation", PROMPTS, 2, seed=1)
    model.checkpoint_activations = True
    assert torch.equal(sample(model, "generation", PROMPTS, 2, seed=1).tokens, plain.tokens)


def test_a_run_takes_the_setting(make_config: Callable[..., Any]) -> None:
    config = make_config("optimizer.checkpoint_activations=true", "optimizer.offload=true")
    assert Learner(config).policy.checkpoint_activations

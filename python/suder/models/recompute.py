"""Gradient checkpointing of transformers' layers, for one forward at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Layers called inside keep no more than their inputs; the backward computes the rest again.

    transformers does so in training mode alone, which would also switch dropout on: here it is only
    the layers' own flag, none of their parts', and only while a forward runs.
    """
    layers = [one for one in model.modules() if isinstance(one, GradientCheckpointingLayer)]
    before = [one.training for one in layers]
    for layer in layers:
        vars(layer).update(
            gradient_checkpointing=True,
            _gradient_checkpointing_func=partial(checkpoint, use_reentrant=False),
            training=True,
        )
    try:
        yield
    finally:
        for layer, training in zip(layers, before, strict=True):
            layer.gradient_checkpointing = False
            layer.training = training

"""Copies of a model whose layers stay in the host's memory, and come while they work.

For copies to draw and score with that do not fit the device. Each process has its own, whole: were
they divided among processes, all would have to draw in step, though their shares of a round end at
different tokens. accelerate's hooks bring the weight of one linear layer before its product and
drop it after; so each step of a drawing carries every layer over the bus.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer


class _Host(dict[str, Tensor]):
    """What a hook reads from; one for all copies of a layer, so that all are brought up to date."""

    def __deepcopy__(self, memo: Any) -> _Host:
        return self


def within_layers(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The modules, by name, inside of the transformer layers."""
    for outer, layer in model.named_modules():
        if isinstance(layer, GradientCheckpointingLayer):
            yield from ((f"{outer}.{name}", one) for name, one in layer.named_modules() if name)


def products(model: Any) -> list[tuple[str, nn.Linear]]:
    """The linear layers among them: nearly all of a model."""
    return [(name, one) for name, one in within_layers(model) if type(one) is nn.Linear]


def send_away(layer: nn.Linear, device: torch.device) -> dict[str, Tensor]:
    """Keeps the weights of a layer on the host; it works on `device` all the same.

    Returns:
        Tensors by name that the layer has from now on; written to in place, they change it.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module  # takes a while

    host = _Host({name: one.detach().to("cpu") for name, one in layer.named_parameters()})
    if device.type == "cuda":  # copied from there without a stop on the way
        for name in host:
            host[name] = host[name].pin_memory()
    add_hook_to_module(layer, AlignDevicesHook(device, offload=True, weights_map=host))
    return host


def moved(model: Any, device: str) -> dict[str, Tensor]:
    """Moves a frozen model to a device, but for the layers it keeps on the host.

    Returns:
        What is kept there, by the parameters' names.
    """
    kept: dict[str, Tensor] = {}
    for name, layer in products(model):
        host = send_away(layer, torch.device(device))
        kept |= {f"{name}.{part}": one for part, one in host.items()}
    model._apply(lambda one: one if one.is_meta else one.to(device))
    return kept


def comes_and_goes(model: Any) -> bool:
    """Whether accelerate's hooks bring weights of it, which then are elsewhere at every call."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())

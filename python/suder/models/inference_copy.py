"""A transformers model that shares every tensor with another but those of its linear layers.

They are its own, in 16 bits, with every adapter merged: the roundings are those of torch's
autocast, made once instead of at every step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from suder.models.away import send_away, within_layers
from suder.models.merged import replaced_layers, unwrapped
from suder.models.precision import exactly

# Layers of one input: where their weights lie one behind the other, a step takes one product.
READ_ALIKE = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class InferenceCopy:
    """Made once; `refresh` brings it up to date in place.

    Args:
        core: the model; it may hold PEFT adapters.
        dtype: of its products.
        exact: parts of it that compute in their own dtype; they are the same in both.
        away: keep the transformer layers' own in the host's memory (`models.away`).

    Attributes:
        core: the copy.
    """

    def __init__(
        self, core: Any, dtype: torch.dtype, exact: Sequence[nn.Module], away: bool = False
    ) -> None:
        shared: dict[int, Any] = {id(part): part for part in exact}
        shared |= {id(tensor): tensor for tensor in (*core.parameters(), *core.buffers())}
        self.core = copy.deepcopy(core, shared).eval()
        made: list[tuple[str, Any, nn.Linear]] = []
        leaving = {name for name, _ in within_layers(core)} if away else set()
        outside = {id(module) for part in exact for module in part.modules()}
        adapted = dict(replaced_layers(core))
        for layer in adapted.values():
            outside |= {id(module) for module in layer.modules() if module is not layer}
        for name, layer in core.named_modules():
            if id(layer) in outside:
                continue
            plain = layer
            if name in adapted:
                # Run dry, a layer cannot be tried out; of plain LoRA there is nothing to try.
                known = _lora_weight(layer) is not None
                plain = layer.base_layer if known else _plain(name, layer)
            if type(plain) is not nn.Linear:
                continue
            weight, bias = plain.weight, plain.bias
            if plain is layer and all(one.dtype == dtype for one in plain.parameters()):
                continue
            after, before = weight.shape
            where = "cpu" if name in leaving else weight.device
            own = nn.Linear(before, after, bias is not None, "meta", dtype)
            for part, one in own.named_parameters():  # no numbers are drawn to be written over
                setattr(own, part, nn.Parameter(torch.empty_like(one, device=where)))
            self.core.set_submodule(name, own.requires_grad_(False))
            made.append((name, layer, own))
        own_layers = {own for _, _, own in made}
        for module in self.core.modules():
            for names in READ_ALIKE:
                layers = [getattr(module, name, None) for name in names]
                if own_layers.issuperset(layers):
                    _lay_together(layers)
        self.layers: list[tuple[str, Any, dict[str, Tensor]]] = []
        for name, layer, own in made:
            tensors: dict[str, Tensor] = dict(own.named_parameters())
            if name in leaving:
                tensors = send_away(own, next(layer.parameters()).device)
            self.layers.append((name, layer, tensors))

    @torch.no_grad()
    def refresh(self) -> None:
        for name, layer, own in self.layers:
            merged = _lora_weight(layer)
            if merged is not None:
                own["weight"].copy_(merged)
                if "bias" in own:
                    own["bias"].copy_(layer.base_layer.bias)
                continue
            plain = layer if type(layer) is nn.Linear else _plain(name, layer)
            for part, new in plain.named_parameters():
                own[part].copy_(new)


def _lay_together(layers: Sequence[Any]) -> None:
    weights = [layer.weight for layer in layers]
    if len({weight.shape[1] for weight in weights}) == 1:
        rows = [len(weight) for weight in weights]
        joined = weights[0].new_empty(sum(rows), weights[0].shape[1])
        for layer, part in zip(layers, joined.split(rows), strict=True):
            layer.weight = nn.Parameter(part, requires_grad=False)


def _lora_weight(layer: Any) -> Tensor | None:
    """Of PEFT's plain LoRA, which adds products to the weight; None of any other layer.

    `unwrapped` gives the same bits of every kind of adapter, but copies the layer and tries out
    whether merging was right, which at each refresh would take longer than all the rest.
    """
    kind = type(layer)
    if (kind.__module__, kind.__name__) != ("peft.tuners.lora.layer", "Linear"):
        return None
    if type(layer.base_layer) is not nn.Linear or getattr(layer, "lora_variant", True):
        return None
    if any(layer.lora_bias.values()) or any(p.dtype != torch.float32 for p in layer.parameters()):
        return None
    weight: Tensor = layer.base_layer.weight
    if layer.disable_adapters:
        # PEFT takes merged adapters out again before it runs the layer.
        return None if layer.merged else weight
    with exactly(weight.device):
        for name in layer.active_adapters:
            if name in layer.lora_A and name not in layer.merged_adapters:
                weight = layer.get_delta_weight(name).add_(weight)
    return weight


def _plain(name: str, layer: Any) -> Any:
    """An adapted layer without adapters, merged if they are on; the layer if no plain one is it."""
    if getattr(layer, "disable_adapters", False):
        return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    try:
        return unwrapped(name, layer)
    except ValueError:
        return layer

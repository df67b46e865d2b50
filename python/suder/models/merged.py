"""The weights of a model as a plain model of its kind holds them: every PEFT adapter merged in.

PEFT has some forty kinds of adapter, and more to come. A layer is replaced by what PEFT makes of it
only where both give the same output; anything else is an error, never another model.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from suder.models.precision import exactly

# Of an output's largest value: merging adds products up in another order, in float32.
CLOSE = 1e-3


@torch.no_grad()
def plain_state(core: Any) -> dict[str, Tensor]:
    """The state of a transformers model, adapters merged; its own weights are not touched.

    Layers that PEFT has replaced are merged one at a time, in float32 at least.

    Raises:
        ValueError: adapters that are turned off, or that no plain weights can stand for.
    """
    state: dict[str, Tensor] = dict(core.state_dict())
    for name, layer in replaced_layers(core):
        state = {key: value for key, value in state.items() if not key.startswith(name + ".")}
        plain = unwrapped(name, layer).state_dict()
        state |= {f"{name}.{key}": value for key, value in plain.items()}
    return state


def replaced_layers(core: nn.Module) -> list[tuple[str, Any]]:
    """The outermost modules that PEFT has put in, by name."""
    try:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper
    except ModuleNotFoundError:
        return []
    found: list[tuple[str, Any]] = []
    for name, module in core.named_modules():
        inside = any(name.startswith(outer + ".") for outer, _ in found[-1:])
        if not inside and isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            found.append((name, module))
    return found


def unwrapped(name: str, layer: Any) -> nn.Module:
    """The plain layer that computes what `layer`, one of `replaced_layers`, computes.

    Raises:
        ValueError: its adapters are turned off, or no plain weights can stand for them.
    """
    if layer.disable_adapters:
        raise ValueError(
            f"save: the adapters at {name} are turned off; turn them on or remove them"
        )
    with exactly(next(layer.parameters()).device):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "already merged", which is as good
                layer = _wide(copy.deepcopy(layer)).eval()
                given = _probe(layer)
                before = None if given is None else layer(given)
                plain: nn.Module = _merged(layer)
                after = None if given is None else plain(given)
        except Exception as error:
            raise ValueError(
                f"save: {_kind(layer)} at {name} cannot be merged into the weights: {error}"
            ) from error
    if before is None or after is None:
        return plain
    if not (before - after).abs().max() <= CLOSE * before.abs().max():  # also where it is NaN
        raise ValueError(
            f"save: {_kind(layer)} at {name} is not the same after merging; no plain weights can "
            "stand for this kind of adapter"
        )
    return plain


def _merged(layer: Any) -> Any:
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return layer.unload_and_optionally_merge_module(True, False, None)
    layer.merge()
    return layer.get_base_layer()


def _probe(layer: Any) -> Tensor | None:
    """Something to put into both layers; None for a copy of a whole module, which is just taken."""
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
    weight = getattr(base, "weight", None)
    if weight is None:
        return None
    generator = torch.Generator().manual_seed(0)
    if isinstance(base, nn.Embedding):
        return torch.arange(len(weight), device=weight.device)
    shape: tuple[int, ...] = (3, weight.shape[-1])
    if isinstance(base, nn.Conv2d):
        shape = (1, base.in_channels, *(2 * size for size in base.kernel_size))
    return torch.randn(shape, generator=generator, dtype=weight.dtype).to(weight.device)


def _wide(module: nn.Module) -> nn.Module:
    return module if any(p.dtype == torch.float64 for p in module.parameters()) else module.float()


def _kind(layer: Any) -> str:
    return f"{type(layer).__module__.rpartition('.')[0]}.{type(layer).__name__}"

"""AdamW with its two moments of every weight in float32, or in 8 bits through torchao."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from suder.settings.learning import Optimizer

# torchao's: tensors of fewer values stay in float32, as those that its blocks do not divide.
FEWEST, BLOCK = 4096, 256
KEYS = ("step", "exp_avg", "exp_avg_sq")
PARTS = ("codes", "scale", "qmap")  # of a moment in 8 bits


def check_moments(settings: Optimizer) -> None:
    """Raises ModuleNotFoundError where moments in 8 bits are asked for and torchao is missing."""
    if settings.moments == "8bit" and find_spec("torchao") is None:
        raise ModuleNotFoundError(
            "optimizer.moments 8bit needs torchao: pip install 'suder[torchao]', or set "
            "optimizer.moments to float32"
        )


def new_adam(params: Sequence[Tensor], settings: Optimizer) -> torch.optim.Optimizer:
    betas = settings.betas[0], settings.betas[1]
    common: dict[str, Any] = {"lr": settings.lr, "betas": betas}
    common["weight_decay"] = settings.weight_decay
    if settings.moments == "float32":
        return torch.optim.AdamW(params, fused=True, **common)
    check_moments(settings)
    from torchao.optim import AdamW8bit

    adam: torch.optim.Optimizer = AdamW8bit(params, block_size=BLOCK, **common)
    return adam


def step(adam: torch.optim.Optimizer, lr: float) -> None:
    """One step at this rate. torchao compiles its own, which on a CPU is not worth a compiler."""
    for group in adam.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    if all(param.is_cpu for group in adam.param_groups for param in group["params"]):
        with torch.compiler.set_stance("force_eager"):
            adam.step()
    else:
        adam.step()
    adam.zero_grad(set_to_none=True)


def moment_bytes(weights: Sequence[Tensor], settings: Optimizer) -> int:
    """That Adam holds for these weights."""
    if settings.moments == "float32":
        return sum(2 * weight.nbytes for weight in weights)
    short = [w.numel() for w in weights if w.numel() >= FEWEST and w.numel() % BLOCK == 0]
    plain = sum(weight.numel() for weight in weights) - sum(short)
    return 2 * (4 * plain + sum(count + 4 * count // BLOCK + 4 * 256 for count in short))


def saved(adam: torch.optim.Optimizer, param: Tensor, name: str) -> dict[str, Tensor]:
    """What Adam knows of a weight, under names that `restore` reads."""
    tensors: dict[str, Tensor] = {}
    for key, value in adam.state.get(param, {}).items():
        if hasattr(value, "codes"):
            tensors |= {f"adam/{key}.{part}/{name}": getattr(value, part) for part in PARTS}
        else:
            tensors[f"adam/{key}/{name}"] = value
    return tensors


def restore(
    adam: torch.optim.Optimizer, param: Tensor, name: str, tensors: Mapping[str, Tensor]
) -> None:
    for key in KEYS:
        value = tensors.get(f"adam/{key}/{name}")
        parts = [tensors.get(f"adam/{key}.{part}/{name}") for part in PARTS]
        if parts[0] is not None:
            from torchao.optim.subclass_8bit import OptimState8bit

            ours = [part.to(param.device) for part in parts if part is not None]
            value = OptimState8bit(*ours, signed=key == "exp_avg", dtype=param.dtype)
        if value is not None:
            # The fused AdamW keeps its step counter beside the parameter; torchao's on the CPU.
            beside = key != "step" or isinstance(adam, torch.optim.AdamW)
            adam.state[param][key] = value.to(param.device) if beside else value.clone()

"""What others have for the same task, each a function or None where it is not installed.

All take hidden [N, D], weight [V, D], bias [V], target [N] and give the loss per token where they
can; a peer without bias or without per-token losses says so in its name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def eager(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """The textbook: all logits, float32 log-softmax."""
    logits = F.linear(hidden, weight, bias).float()
    return F.cross_entropy(logits, target, reduction="none")


def torch_fused(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> Tensor:
    """torch's own chunked operator (2.13 and newer)."""
    options = F.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, linear_bias=bias, options=options)


def _liger() -> Loss | None:
    try:
        from liger_kernel.ops.fused_linear_cross_entropy import (
            LigerFusedLinearCrossEntropyFunction as Liger,
        )
    except ImportError:
        return None
    return lambda h, w, b, t: Liger.apply(h, w, t, None, b, -100, 0.0, 0.0, "mean")[0]


def _quack() -> Loss | None:
    try:
        from quack.linear_cross_entropy import chunked_linear_cross_entropy
    except ImportError:
        return None
    return lambda h, w, b, t: chunked_linear_cross_entropy(h, w, t)


def _cut_cross_entropy() -> Loss | None:
    try:
        from cut_cross_entropy import linear_cross_entropy
    except ImportError:
        return None
    return lambda h, w, b, t: linear_cross_entropy(h, w, t, bias=b, reduction="none")


def _fla() -> Loss | None:
    try:
        from fla.modules.fused_linear_cross_entropy import fused_linear_cross_entropy_loss
    except ImportError:
        return None
    return lambda h, w, b, t: fused_linear_cross_entropy_loss(h, t, w, b)


def available() -> tuple[dict[str, Loss], list[str]]:
    """The peers that are here, and what was left out with the reason."""
    found: dict[str, Loss] = {"torch eager": eager, "torch compiled": torch.compile(eager)}
    optional = {
        "Liger (mean)": _liger(),
        "quack chunked (mean, no bias)": _quack(),
        "cut-cross-entropy": _cut_cross_entropy(),
        "flash-linear-attention (mean)": _fla(),
    }
    found.update({name: loss for name, loss in optional.items() if loss is not None})
    left_out = [f"{name}: not installed" for name, loss in optional.items() if loss is None]
    if hasattr(F, "linear_cross_entropy"):
        found["F.linear_cross_entropy (mean)"] = torch_fused
    else:
        left_out.append(f"F.linear_cross_entropy: torch {torch.__version__} has none")
    return found, left_out

"""One call of every differentiable public function, for tests of what torch does with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import suder_ext

CU = torch.tensor([0, 3, 3, 7, 8])
TARGET = torch.tensor([0, 4, -100, 2, 1, 6, 3, -100])


def inputs(dtype: torch.dtype = torch.float32, grad: bool = True) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "hidden": (8, 5),
        "weight": (7, 5),
        "bias": (7,),
        "logits": (8, 7),
        "token": (8,),
        "old": (8,),
        "ref": (8,),
        "chosen": (4,),
        "rejected": (4,),
        "advantage": (4,),
        "ref_hidden": (8, 3),
        "ref_weight": (7, 3),
        "ref_bias": (7,),
    }
    return {
        name: torch.randn(shape, generator=generator).to(dtype).requires_grad_(grad)
        for name, shape in shapes.items()
    }


def calls(
    t: dict[str, Tensor],
    cu: Tensor = CU,
    target: Tensor = TARGET,
    library: Any = suder_ext,
) -> dict[str, Any]:
    """Every differentiable function of a library, as a call without arguments."""
    head = t["hidden"], t["weight"], target
    heads = t["hidden"], t["weight"], t["ref_hidden"], t["ref_weight"]
    lengths = {"chosen_length": cu.diff() + 1, "rejected_length": cu.diff() + 2}
    return {
        "linear_logprob": lambda: library.linear_logprob(*head, t["bias"]),
        "linear_logprob_stats": lambda: library.linear_logprob_stats(*head, softcap=5.0),
        "linear_kl": lambda: library.linear_kl(
            *heads, t["bias"], t["ref_bias"], target, temperature=0.5
        ),
        "linear_kl softcap": lambda: library.linear_kl(*heads, target=target, softcap=5.0),
        "linear_kl sequences": lambda: library.linear_kl(
            *heads, t["bias"], target=target, cu_seqlens=cu
        ),
        "logprob": lambda: library.logprob(t["logits"], target, temperature=0.5),
        "logprob_stats": lambda: library.logprob_stats(t["logits"], target, softcap=5.0),
        "linear_sequence_logprob": lambda: library.linear_sequence_logprob(*head, cu, t["bias"]),
        "sequence_reduce": lambda: library.sequence_reduce(t["token"], target, cu, mean=True)[0],
        "preference_loss": lambda: library.preference_loss(
            t["chosen"], t["rejected"], t["advantage"], t["chosen"] * 0.5
        ),
        "preference_loss aot": lambda: library.preference_loss(
            t["chosen"], t["rejected"], loss_type="aot_unpaired"
        ),
        "preference_loss simpo": lambda: library.preference_loss(
            t["chosen"], t["rejected"], loss_type="simpo", margin=0.5, **lengths
        ),
        "linear_preference_loss": lambda: library.linear_preference_loss(*head, cu[::2], t["bias"]),
        "linear_preference_loss mean": lambda: library.linear_preference_loss(
            *head, cu[::2], t["bias"], reduction="mean"
        ),
        "policy_loss": lambda: library.policy_loss(
            t["token"], t["old"], t["advantage"], cu, t["ref"], kl_coef=0.1
        ),
        "policy_loss sequence": lambda: library.policy_loss(
            t["token"], t["old"], t["advantage"], cu, level="sequence", reduction="constant"
        ),
        "policy_loss weighted": lambda: library.policy_loss(
            *(t["token"], t["old"], t["token"] * 0.3, cu, t["ref"]),
            kl_coef=0.1,
            kl_bias_correction=True,
            loss_type="sapo",
            level="sequence",
            token_weight=t["old"],
        ),
        "policy_loss gmpo": lambda: library.policy_loss(
            *(t["token"], t["old"], t["advantage"], cu, t["ref"]),
            kl_coef=0.1,
            kl_bias_correction=True,
            loss_type="gmpo",
        ),
        "policy_loss gpg": lambda: library.policy_loss(
            t["token"], t["old"], t["advantage"], cu, t["ref"], kl_coef=0.1, loss_type="gpg"
        ),
        "selective_log_softmax": lambda: library.selective_log_softmax(
            t["logits"], target.clamp(min=0)
        ),
        "selective_log_softmax K": lambda: library.selective_log_softmax(
            t["logits"], target.clamp(min=0)[:, None].repeat(1, 2)
        ),
        "selective_log_softmax masked": lambda: library.selective_log_softmax(
            t["logits"], target, 0.5, target != -100
        ),
        "linear_cross_entropy": lambda: library.linear_cross_entropy(
            *head, linear_bias=t["bias"], label_smoothing=0.1
        ),
    }


FUNCTIONS = sorted(calls(inputs()))


def flat(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def weighted_sum(result: Any) -> Tensor:
    """A scalar, each element with its own weight; NaN (sequences without tokens) left out."""
    total = torch.zeros((), dtype=flat(result)[0].dtype)
    for part in flat(result):
        weight = torch.arange(1, part.numel() + 1, dtype=part.dtype).view(part.shape)
        total = total + (part * weight).nansum()
    return total

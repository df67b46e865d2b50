"""policy_loss against TRL's GRPO trainer: values, gradients and metrics of one batch, padded."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext import policy_loss
from tests.ops.test_policy_loss import CLOSE, batch, double, used

LENGTHS = [4, 7, 1, 30]
SAMPLER = {"token_truncate": (0.8, 1.3), "token_mask": (None, 1.2), "sequence_mask": (0.5, 3.0)}

# Ours, and TRL's settings that mean the same.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, {}),
    "grpo kl": ({"kl_coef": 0.05}, {}),
    "gspo": ({"level": "sequence", "clip": 0.01, "clip_high": 0.02, "kl_coef": 0.05}, {}),
    "bnpo": ({"loss_type": "bnpo", "delta": 1.4}, {}),
    "dapo": ({"loss_type": "dapo", "num_items": 50.0, "kl_coef": 0.05}, {}),
    "dr_grpo": ({"loss_type": "dr_grpo", "max_length": 33}, {}),
    "luspo": ({"loss_type": "luspo", "level": "sequence"}, {}),
    "cispo": ({"loss_type": "cispo", "clip_high": 1.3}, {}),
    "cispo kl": ({"loss_type": "cispo", "clip_high": 1.3, "kl_coef": 0.05}, {"corrected": True}),
    "sapo": ({"loss_type": "sapo", "sapo_temperature": (0.8, 1.2)}, {}),
    "vespo": ({"loss_type": "vespo"}, {}),
    "vespo sampler": ({"loss_type": "vespo"}, {"sampler": "token_mask"}),
    "corrected kl": ({"kl_coef": 0.5}, {"corrected": True}),
    "corrected kl, gspo": ({"kl_coef": 0.5, "level": "sequence"}, {"corrected": True}),
    "advantages of tokens": ({"delta": 1.5}, {"per_token": True}),
    "advantages of tokens, vespo": ({"loss_type": "vespo"}, {"per_token": True}),
    "advantages of tokens, gspo": ({"level": "sequence"}, {"per_token": True}),
    "entropy": ({"top_entropy_quantile": 0.3, "kl_coef": 0.05}, {}),
    "entropy, gspo": ({"top_entropy_quantile": 0.3, "level": "sequence"}, {}),
    **{f"sampler {mode}": ({"kl_coef": 0.05}, {"sampler": mode}) for mode in SAMPLER},
}


def trl_loss(
    arguments: dict[str, Tensor], new: Tensor, ours: dict[str, Any], corrected: bool
) -> tuple[Tensor, dict[str, list[float]]]:
    """The loss and metrics of GRPOTrainer, with a model that returns given numbers."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()

    def padded(values: Tensor) -> Tensor:
        return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask.bool(), values)

    new = padded(new)
    entropies = padded(arguments["entropy"])
    high = ours.get("clip_high", ours.get("clip", 0.2))
    k, lam = ours.get("vespo_k", (2.0, 3.0)), ours.get("vespo_lambda", (3.0, 2.0))
    metrics: dict[str, list[float]] = defaultdict(list)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            num_processes=1,
            gather=lambda x: x,
            reduce=lambda x, reduction: x,
            pad_across_processes=lambda x, **_: x,
        ),
        args=SimpleNamespace(
            use_bias_correction_kl=corrected,
            delta=ours.get("delta"),
            steps_per_generation=1,
            sapo_temperature_pos=ours.get("sapo_temperature", (1.0, 1.05))[0],
            sapo_temperature_neg=ours.get("sapo_temperature", (1.0, 1.05))[1],
            vespo_k_pos=k[0],
            vespo_k_neg=k[1],
            vespo_lambda_pos=lam[0],
            vespo_lambda_neg=lam[1],
        ),
        loss_type=ours.get("loss_type", "grpo"),
        importance_sampling_level=ours.get("level", "token"),
        beta=ours.get("kl_coef", 0.0),
        epsilon_low=ours.get("clip", 0.2),
        epsilon_high=high,
        aux_loss_enabled=False,
        top_entropy_quantile=ours.get("top_entropy_quantile", 1.0),
        off_policy_mask_threshold=None,
        use_vllm="sampling_ratio" in arguments,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        max_completion_length=ours.get("max_length"),
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        _entropy_bonus_enabled=False,
        _metrics={"eval": metrics},
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, entropies, None),
    )
    trainer.get_high_entropy_mask = GRPOTrainer.get_high_entropy_mask.__get__(trainer)
    advantage = arguments["advantage"]
    inputs = {
        "prompt_ids": mask,
        "prompt_mask": mask,
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": advantage if len(advantage) == len(LENGTHS) else padded(advantage),
        "old_per_token_logps": padded(arguments["old_logprob"]),
        "ref_per_token_logps": padded(arguments["ref_logprob"]),
        "num_items_in_batch": torch.tensor(ours.get("num_items", sum(LENGTHS))),
    }
    if "sampling_ratio" in arguments:
        # Beyond a sequence's end the ratio of nothing is exp(0).
        ones = 1.0 - mask.double()
        inputs["importance_sampling_ratio"] = padded(arguments["sampling_ratio"]) + ones
    return GRPOTrainer._compute_loss(trainer, None, inputs), metrics


def trl_sampler_ratio(log: Tensor, mode: str, least: float | None, most: float | None) -> Tensor:
    """TRL's has no function of its own: as GRPOTrainer._generate_and_score_completions does."""
    if mode.startswith("sequence"):
        log = torch.cat([part.sum().expand_as(part) for part in log.split(LENGTHS)])
    ratio = log.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(least, most)
    return ratio.masked_fill((ratio < (least or 0)) | (ratio > (most or 1e9)), 0.0)


@pytest.mark.parametrize("name", CASES)
def test_grpo_trainer(name: str) -> None:
    pytest.importorskip("trl")
    ours, theirs = dict(CASES[name][0]), CASES[name][1]
    generator = torch.Generator().manual_seed(2)
    arguments = batch(LENGTHS)
    arguments["entropy"] = torch.rand(sum(LENGTHS), generator=generator)
    if theirs.get("per_token"):
        arguments["advantage"] = torch.randn(sum(LENGTHS), generator=generator)
    wide, extra = double(arguments), {}
    if "sampler" in theirs:
        mode = theirs["sampler"]
        noise = 0.3 * torch.randn(sum(LENGTHS), generator=generator)
        arguments["sampling_logprob"] = arguments["old_logprob"] + noise
        log = wide["old_logprob"] - arguments["sampling_logprob"].double()
        wide["sampling_ratio"] = trl_sampler_ratio(log, mode, *SAMPLER[mode])
        least, most = SAMPLER[mode]
        extra = {"sampling_mode": mode, "sampling_min": least, "sampling_max": most}
    corrected = theirs.get("corrected", False)
    new = wide["logprob"].requires_grad_()
    expected, metrics = trl_loss(wide, new, ours, corrected)
    (expected_grad,) = torch.autograd.grad(expected, new)

    if "top_entropy_quantile" not in ours:
        del arguments["entropy"]
    own = arguments["logprob"].requires_grad_()
    result = policy_loss(
        **used(arguments, ours.get("kl_coef", 0.0)),
        **ours,
        **extra,
        kl_bias_correction=corrected,
        return_metrics=True,
    )
    (grad,) = torch.autograd.grad(result.loss, own)
    torch.testing.assert_close(result.loss.double(), expected, **CLOSE)
    torch.testing.assert_close(grad.double(), expected_grad, **CLOSE)
    for ours_name, theirs_name in (
        ("clip_low", "clip_ratio/low_mean"),
        ("clip_high", "clip_ratio/high_mean"),
        ("clip_high", "cispo_clip_ratio"),
        ("kl", "kl"),
    ):
        # One ratio a sequence with an advantage a token: they count tokens, we sequences.
        if theirs_name in metrics and name != "advantages of tokens, gspo":
            oracle = torch.tensor(metrics[theirs_name][0], dtype=torch.float64)
            torch.testing.assert_close(
                getattr(result.metrics, ours_name).double(), oracle, **CLOSE, msg=theirs_name
            )

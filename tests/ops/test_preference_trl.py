"""preference_loss against TRL's own loss code, run with a model that returns given numbers."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from suder_ext import preference_loss, reference
from suder_ext.preference_options import ALPHA, DISCOPOP_TAU, F_DIVERGENCES, TAKES_F_DIVERGENCE
from suder_ext.reference.pair_weights import tail_weight
from tests.ops.pairs import taken, taken_logprobs
from tests.tolerances import TOLERANCES

pytest.importorskip("trl")
CLOSE = TOLERANCES["preference_loss", "cpu", torch.float32]
PAIRS, TOKENS, BETA = 6, 9, 0.3
# TRL's "sigmoid" and "sigmoid_norm" take no label smoothing; ours are compared without.
DPO_LOSSES = {
    "sigmoid": 0.0,
    "hinge": 0.0,
    "ipo": 0.0,
    "exo_pair": 0.2,
    "nca_pair": 0.0,
    "robust": 0.2,
    "bco_pair": 0.0,
    "sppo_hard": 0.0,
    "aot": 0.2,
    "aot_unpaired": 0.2,
    "apo_zero": 0.0,
    "apo_down": 0.0,
    "discopop": 0.0,
    "sft": 0.0,
    "sigmoid_norm": 0.0,
}
CASES = [
    (loss_type, f_divergence)
    for loss_type in DPO_LOSSES
    for f_divergence in F_DIVERGENCES
    if f_divergence == "reverse_kl" or loss_type in TAKES_F_DIVERGENCE
]


class Batch:
    """Completions of random lengths: per-token log-probabilities, chosen first, then rejected."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        lengths = torch.randint(1, TOKENS, (2 * PAIRS, 1), generator=generator)
        # TRL drops the first position: a mask that starts at 1 has lost nothing there.
        self.mask = ((torch.arange(TOKENS) >= 1) & (torch.arange(TOKENS) <= lengths)).long()
        per_token = -2 * torch.rand(2 * PAIRS, TOKENS, generator=generator)
        self.per_token = (per_token * self.mask)[:, 1:]
        self.log_sum_sq = -torch.rand(self.per_token.shape, generator=generator)
        self.reference = self.per_token.sum(1) + torch.randn(2 * PAIRS, generator=generator)

    def ours(self, **options: Any) -> Tensor:
        """Our loss of the batch, averaged as TRL does."""
        chosen, rejected = self.per_token.sum(1).chunk(2)
        chosen_length, rejected_length = self.mask.sum(1).chunk(2)
        return preference_loss(
            *taken_logprobs(options["loss_type"], [chosen, rejected, *self.reference.chunk(2)]),
            beta=BETA,
            **taken(**options, chosen_length=chosen_length, rejected_length=rejected_length),
        ).loss.mean()


def trl_dpo_loss(
    batch: Batch, loss_type: str, f_divergence: str, smoothing: float, **settings: Any
) -> Tensor:
    from trl.trainer.dpo_trainer import DPOTrainer

    shape = batch.per_token.shape
    outputs = SimpleNamespace(
        log_probs=batch.per_token,
        entropy=torch.zeros(shape),
        mean_logits=torch.zeros(shape),
        log_sum_sq_probs=batch.log_sum_sq,
        is_top1=torch.zeros(shape, dtype=torch.bool),
    )
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(
            device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x
        ),
        aux_loss_enabled=False,
        ld_alpha=settings.get("ld_alpha"),
        precompute_ref_logps=True,
        use_weighting=settings.get("wpo", False),
        beta=BETA,
        label_smoothing=smoothing,
        loss_types=[loss_type],
        loss_weights=[1.0],
        f_divergence_type=f_divergence,
        f_alpha_divergence_coef=settings.get("alpha", ALPHA),
        args=SimpleNamespace(discopop_tau=settings.get("tau", DISCOPOP_TAU)),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    ref_chosen, ref_rejected = batch.reference.chunk(2)
    inputs = {
        "input_ids": torch.zeros_like(batch.mask),
        "attention_mask": torch.ones_like(batch.mask),
        "completion_mask": batch.mask,
        "ref_chosen_logps": ref_chosen,
        "ref_rejected_logps": ref_rejected,
    }
    return DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)


@pytest.mark.parametrize(("loss_type", "f_divergence"), CASES)
def test_dpo_trainer(loss_type: str, f_divergence: str) -> None:
    batch, smoothing = Batch(), DPO_LOSSES[loss_type]
    ours = batch.ours(loss_type=loss_type, f_divergence=f_divergence, label_smoothing=smoothing)
    torch.testing.assert_close(
        ours, trl_dpo_loss(batch, loss_type, f_divergence, smoothing), **CLOSE
    )


@pytest.mark.parametrize("alpha", [-0.7, 0.2, 1.0, 2.5])
def test_dpo_trainer_alpha(alpha: float) -> None:
    batch = Batch()
    ours = batch.ours(loss_type="sigmoid", f_divergence="alpha_divergence", f_alpha=alpha)
    theirs = trl_dpo_loss(batch, "sigmoid", "alpha_divergence", 0.0, alpha=alpha)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_dpo_trainer_discopop_tau() -> None:
    batch = Batch()
    ours = batch.ours(loss_type="discopop", discopop_tau=0.4)
    theirs = trl_dpo_loss(batch, "discopop", "reverse_kl", 0.0, tau=0.4)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_dpo_trainer_wpo() -> None:
    batch = Batch()
    aligned = (batch.per_token - batch.log_sum_sq) * batch.mask[:, 1:]
    weights = (aligned.sum(1) / batch.mask.sum(1)).exp().chunk(2)
    ours = batch.ours(loss_type="sigmoid", pair_weight=weights[0] * weights[1])
    theirs = trl_dpo_loss(batch, "sigmoid", "reverse_kl", 0.0, wpo=True)
    torch.testing.assert_close(ours, theirs, **CLOSE)


def test_dpo_trainer_ld() -> None:
    """Our sequences are packed, chosen and rejected of a pair beside each other."""
    batch, alpha = Batch(), 0.3
    order = torch.arange(2 * PAIRS).view(2, PAIRS).T.reshape(-1)
    mask = batch.mask[order, 1:].bool()
    offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
    packed = batch.per_token[order][mask]
    target = torch.zeros(len(packed), dtype=torch.int64)
    weight = tail_weight(target, offsets, -100, alpha, torch.float32)
    total = reference.sequence_reduce(packed * weight, target, offsets, mean=False)[0]
    ref = batch.reference.chunk(2)
    ours = preference_loss(total[0::2], total[1::2], *ref, beta=BETA).loss.mean()
    theirs = trl_dpo_loss(batch, "sigmoid", "reverse_kl", 0.0, ld_alpha=alpha)
    torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss_type", ["simpo", "cpo"])
def test_cpo_trainer(loss_type: str, smoothing: float) -> None:
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    batch, gamma = Batch(), 0.7
    means = loss_type == "simpo"
    trainer = SimpleNamespace(
        alpha=0.0,
        beta=BETA,
        simpo_gamma=gamma,
        label_smoothing=smoothing,
        loss_type="simpo" if means else "sigmoid",
        accelerator=SimpleNamespace(device="cpu"),
    )
    sequence = batch.per_token.sum(1) / (batch.mask.sum(1) if means else 1)
    losses, chosen_rewards, _ = CPOTrainer.cpo_loss(trainer, *sequence.chunk(2))
    # TRL adds cpo_alpha (1) times the mean cross-entropy of the chosen tokens outside of cpo_loss.
    nll = 0.0 if means else -batch.per_token[:PAIRS].sum() / batch.mask[:PAIRS].sum()
    ours = batch.ours(
        loss_type=loss_type, label_smoothing=smoothing, margin=gamma if means else 0.0
    )
    torch.testing.assert_close(ours, losses.mean() + nll, **CLOSE)
    torch.testing.assert_close(chosen_rewards, BETA * sequence[:PAIRS])


def test_orpo_trainer() -> None:
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    batch = Batch()
    trainer = SimpleNamespace(beta=BETA, accelerator=SimpleNamespace(device="cpu"))
    means = batch.per_token.sum(1) / batch.mask.sum(1)
    losses = ORPOTrainer.odds_ratio_loss(trainer, *means.chunk(2))[0]
    nll = -batch.per_token[:PAIRS].sum() / batch.mask[:PAIRS].sum()
    torch.testing.assert_close(batch.ours(loss_type="orpo"), nll - losses.mean(), **CLOSE)

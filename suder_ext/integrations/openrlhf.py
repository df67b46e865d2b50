"""OpenRLHF's losses and log-probabilities by ours: the classes and functions of its 0.11 by name.

import openrlhf.models.actor, openrlhf.trainer.ray.ppo_actor
from suder_ext.integrations import openrlhf as ours
openrlhf.models.actor.log_probs_from_logits = ours.log_probs_from_logits
openrlhf.trainer.ray.ppo_actor.PolicyLoss = ours.PolicyLoss
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from suder_ext.functional import logprob, policy_loss, preference_loss

NO_TARGET = -(2**63)  # OpenRLHF masks afterwards: it ignores no label
RATIOS = 20.0  # log-ratios count within [-20, 20]


def log_probs_from_logits(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(label), as `openrlhf.models.utils`'s; in float32, and the logits stay as they are.

    Args:
        logits: float `[..., V]`; labels: an integer dtype, `[...]`, each in `[0, V)`.
        temperature: above 0; the logits are divided by it.
    """
    return logprob(logits, labels, ignore_index=NO_TARGET, temperature=temperature)


class PolicyLoss(nn.Module):
    """`openrlhf.models.PolicyLoss` made of `suder_ext.policy_loss`.

    "ppo": the clipped ratio (arXiv 1707.06347, eq. 7), with dual_clip that of arXiv 1912.09729;
    "gspo": one ratio a sequence (arXiv 2507.18071). The correction of the engine's log p is a
    factor of each token, a constant: `exp(old - rollout)`, dropped or limited outside of the
    threshold, by a number of the token or of its sequence.

    Args:
        clip_eps_low, clip_eps_high: below and above 1.
        dual_clip: above 1 + clip_eps_high, the largest ratio for negative advantages, or None.
        token_level_loss: the mean over all tokens, else over each sequence's, then sequences.
        policy_loss_type: "ppo" or "gspo".
        is_correction_level: "off", "token" or "seq"; is_correction_mode: "mask" or "clip";
            is_correction_gating: "ratio", "binary_kl" or "tv", what is_correction_threshold limits.

    Raises:
        ValueError: an argument that is not taken.
    """

    def __init__(
        self,
        clip_eps_low: float = 0.2,
        clip_eps_high: float = 0.2,
        dual_clip: float | None = None,
        token_level_loss: bool = True,
        policy_loss_type: str = "ppo",
        is_correction_level: str = "off",
        is_correction_mode: str = "mask",
        is_correction_gating: str = "ratio",
        is_correction_threshold: Sequence[float] = (0.5, 5.0),
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("policy_loss_type", policy_loss_type, ("ppo", "gspo")),
            ("is_correction_level", is_correction_level, ("off", "token", "seq")),
            ("is_correction_mode", is_correction_mode, ("mask", "clip")),
            ("is_correction_gating", is_correction_gating, ("ratio", "binary_kl", "tv")),
        ):
            if value not in choices:
                raise ValueError(f"{name}: takes {', '.join(choices)}, got {value!r}")
        if dual_clip is not None and not dual_clip > 1 + clip_eps_high:
            raise ValueError(
                f"dual_clip: takes a number above 1 + clip_eps_high ({1 + clip_eps_high:g}), "
                f"got {dual_clip:g}"
            )
        limits_one = is_correction_level != "seq" and is_correction_gating == "ratio"
        if is_correction_mode == "clip" and not limits_one:
            raise ValueError("is_correction_mode: 'clip' limits each token's ratio, nothing else")
        gates = is_correction_level != "off" and is_correction_gating != "ratio"
        if gates and is_correction_threshold[0] > 0:
            raise ValueError(
                f"is_correction_threshold: {is_correction_gating!r} is limited from above only, "
                f"takes (0, limit), got {tuple(is_correction_threshold)}"
            )
        self.clip_eps_low, self.clip_eps_high = clip_eps_low, clip_eps_high
        self.dual_clip = dual_clip
        self.policy_loss_type = policy_loss_type
        self.token_level_loss = token_level_loss and policy_loss_type != "gspo"
        self.is_correction_level = is_correction_level
        self.is_correction_mode = is_correction_mode
        self.is_correction_gating = is_correction_gating
        self.is_correction_threshold = is_correction_threshold

    def forward(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        action_mask: Tensor | None = None,
        rollout_log_probs: Tensor | None = None,
        dp_size: int = 1,
        batch_num_tokens: float | None = None,
        global_batch_size: float | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """The loss, a float32 scalar; what part of the tokens was clipped; the mean of
        old - new log p; that of rollout - old, and what part the correction dropped or limited.

        Args:
            log_probs, old_log_probs, advantages, rollout_log_probs: float `[B, T]`.
            action_mask: `[B, T]`, 0 where no token counts; None: all do.
            dp_size, batch_num_tokens, global_batch_size: processes whose gradients are averaged,
                and the counts over all of them that the loss is divided by in place of its own.
        """
        mask = torch.ones_like(log_probs) if action_mask is None else action_mask
        kept = mask != 0
        gspo = self.policy_loss_type == "gspo"
        corrects = self.is_correction_level != "off"
        if corrects and rollout_log_probs is None:
            raise ValueError("rollout_log_probs: is_correction_level needs them, got None")
        factor = engine = filtered = None
        if corrects and rollout_log_probs is not None:
            if gspo:
                old_log_probs = rollout_log_probs
            else:
                factor, filtered = self._correction(old_log_probs, rollout_log_probs, kept)
                engine = (rollout_log_probs - old_log_probs)[kept].mean()
        items: float | Tensor | None = (
            batch_num_tokens if self.token_level_loss else global_batch_size
        )
        if items is None and not self.token_level_loss:
            items = kept.any(1).sum()  # ours counts sequences without a token, OpenRLHF's does not
        # Without a dual clip a ratio still ends at e^20, and its slope.
        last = math.exp(RATIOS) if self.dual_clip is None else self.dual_clip
        loss = policy_loss(
            log_probs,
            old_log_probs,
            advantages,
            kept,
            clip=self.clip_eps_low,
            clip_high=self.clip_eps_high,
            delta=last,
            level="sequence" if gspo else "token",
            reduction="token" if self.token_level_loss else "sequence",
            num_items=None if items is None else items / dp_size,
            token_weight=factor,
        )
        with torch.no_grad():
            difference = log_probs - old_log_probs
            ratio = _means(difference, kept) if gspo else difference
            ratio = ratio.expand_as(difference)[kept].exp()
            signed = advantages[kept]
            above = (ratio > 1 + self.clip_eps_high) & (signed > 0)
            below = (ratio < 1 - self.clip_eps_low) & (signed < 0)
            clipped = (above | below).float().mean()
            return loss, clipped, -difference[kept].mean(), engine, filtered

    @torch.no_grad()
    def _correction(self, old: Tensor, rollout: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Each token's factor, `[B, T]`, and the part of tokens or sequences out of bounds."""
        log_ratio = old - rollout
        if self.is_correction_gating == "ratio":
            judged = log_ratio
        else:  # of two coins: how likely the drawn token is, to the engine and to the trainer
            p, q = (x.exp().clamp(1e-6, 1 - 1e-6) for x in (rollout, old))
            if self.is_correction_gating == "tv":
                judged = (p - q).abs()
            else:
                judged = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        if self.is_correction_level == "seq":
            judged = _means(judged, kept)
        if self.is_correction_gating == "ratio":
            judged = judged.exp()
        least, most = self.is_correction_threshold
        out = (judged < least) | (judged > most)
        if self.is_correction_mode == "clip":
            factor = judged.clamp(least, most)
        else:
            factor = log_ratio.exp().masked_fill(out, 0.0)
        part = out.float().mean() if self.is_correction_level == "seq" else out[kept].float().mean()
        return factor, part


def _means(values: Tensor, kept: Tensor) -> Tensor:
    """Of each sequence's tokens, `[B, 1]`."""
    return (values * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


class DPOLoss(nn.Module):
    """`openrlhf.models.DPOLoss` made of `suder_ext.preference_loss`.

    Args:
        beta: above 0.
        label_smoothing: in `[0, 0.5)`: cDPO.
        ipo: IPO (arXiv 2310.12036, eq. 17) of the log-probabilities as they are given.
    """

    def __init__(self, beta: float, label_smoothing: float = 0.0, ipo: bool = False) -> None:
        super().__init__()
        self.beta, self.label_smoothing, self.ipo = beta, label_smoothing, ipo

    def forward(
        self,
        policy_chosen_logps: Tensor,
        policy_rejected_logps: Tensor,
        reference_chosen_logps: Tensor,
        reference_rejected_logps: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mean loss and the rewards of chosen and rejected, constants; all take float `[B]`."""
        logps = policy_chosen_logps, policy_rejected_logps
        references = reference_chosen_logps, reference_rejected_logps
        length = torch.ones_like(policy_chosen_logps, dtype=torch.int64) if self.ipo else None
        found = preference_loss(
            *logps,
            *references,
            loss_type="ipo" if self.ipo else "sigmoid",
            beta=self.beta,
            label_smoothing=0.0 if self.ipo else self.label_smoothing,
            chosen_length=length,  # 1: no mean is taken again
            rejected_length=length,
        )
        return found.loss.mean(), found.chosen_reward.detach(), found.rejected_reward.detach()

"""verl's losses and log-probabilities by ours, with its signatures; see `register`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from suder_ext.functional import linear_logprob_stats, logprob, policy_loss
from suder_ext.policy_options import TAKES_DELTA

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

MODES = (
    *("token-mean", "token-sum", "seq-mean-token-sum"),
    *("seq-mean-token-sum-norm", "seq-mean-token-mean"),
)
NO_TARGET = -(2**63)  # verl masks afterwards: it ignores no label

PolicyLossFn = Callable[..., tuple[Tensor, dict[str, float]]]


def register(name: str = "suder", **options: Any) -> None:
    """`actor.policy_loss.loss_mode=<name>` of verl 0.9 is `suder_ext.policy_loss` from here on.

    verl imports `model.external_lib` in each of its workers; a module of these lines there does it,
    and the last two put our head in the place of `model.use_fused_kernels`:

        from suder_ext.integrations import verl as ours
        ours.register("suder")
        import verl.utils.experimental.torch_functional as fused
        fused.FusedLinearForPPO = ours.FusedLinearForPPO

    Args:
        name: of verl's "vanilla" losses it takes the place if it is "vanilla".
        options: of `policy_loss_fn`.

    Raises:
        ImportError: there is no verl.
    """
    core = import_module("verl.trainer.ppo.core_algos")
    core.register_policy_loss(name)(policy_loss_fn(**options))


def policy_loss_fn(**options: Any) -> PolicyLossFn:
    """A policy loss with the arguments that verl gives, made of `suder_ext.policy_loss`.

    With no options it is verl's "vanilla": PPO's clip by `clip_ratio_low` and `clip_ratio_high`
    (without them `clip_ratio`), and the dual clip by `clip_ratio_c` (arXiv 1912.09729, eq. 5).

    Args:
        options: of `suder_ext.policy_loss`, which come before the config's: `level="sequence"`
            and `delta=None` for GSPO, `loss_type` for SAPO, CISPO and so on.
    """

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "token-mean",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """The loss, a float32 scalar, and verl's three metrics.

        Args:
            old_log_prob, log_prob, advantages, rollout_is_weights: float `[B, T]`.
            response_mask: `[B, T]`, 0 where no token counts.
            loss_agg_mode: one of verl's.
            config: verl's actor config, or what has its fields.

        Raises:
            ValueError: a mode or a clip that is not taken.
        """
        if config is None:
            raise ValueError("config: takes verl's actor config, got None")
        kept = response_mask != 0
        low, high, dual = _clips(config)
        reduction, num_items = _reduction(kept, loss_agg_mode, config.global_batch_info)
        chosen: dict[str, Any] = {"clip": low, "clip_high": high, "reduction": reduction}
        if options.get("loss_type", "grpo") in TAKES_DELTA:
            chosen["delta"] = dual
        found, metrics = policy_loss(
            log_prob,
            old_log_prob,
            advantages,
            kept,
            token_weight=rollout_is_weights,
            num_items=num_items,
            return_metrics=True,
            **(chosen | options),
        )
        with torch.no_grad():
            difference = (log_prob - old_log_prob)[kept].float()
            beyond = (difference.exp() > dual) & (advantages[kept] < 0)
        return found, {
            "actor/pg_clipfrac": (metrics.clip_low + metrics.clip_high).item(),
            "actor/ppo_kl": -difference.clamp(-20, 20).mean().item(),
            "actor/pg_clipfrac_lower": beyond.float().mean().item(),
        }

    return loss


def _clips(config: Any) -> tuple[float, float, float]:
    """Below and above 1, and the largest ratio that counts for negative advantages."""
    low, high = (
        config.clip_ratio if value is None else value
        for value in (config.clip_ratio_low, config.clip_ratio_high)
    )
    dual = config.get("clip_ratio_c", 3.0)
    if not dual > 1 + high:
        raise ValueError(
            f"clip_ratio_c: takes a number above 1 + clip_ratio_high ({1 + high:g}), got {dual:g}"
        )
    return low, high, dual


def _reduction(kept: Tensor, mode: str, batch: dict[str, Any]) -> tuple[str, float | Tensor | None]:
    """verl's aggregation as a reduction of ours, and what it divides by.

    A gradient is averaged over dp_size processes afterwards, which the divisor makes up for.
    """
    if mode not in MODES:
        raise ValueError(f"loss_agg_mode: takes {', '.join(MODES)}, got {mode!r}")
    processes = batch.get("dp_size", 1)
    name = "batch_num_tokens" if mode == "token-mean" else "global_batch_size"
    items = 1 if mode == "token-sum" else batch.get(name)
    if items is None:
        if processes > 1:
            raise ValueError(f"global_batch_info: {mode!r} on {processes} processes needs {name}")
        # Ours counts sequences without a token, verl does not.
        items = kept.sum() if mode == "token-mean" else kept.any(1).sum()
    items = items / processes
    if mode == "seq-mean-token-sum-norm":
        items = items * (batch.get("loss_scale_factor") or kept.shape[-1])
    return "sequence" if mode == "seq-mean-token-mean" else "token", items


def logprobs_from_logits(logits: Tensor, labels: Tensor, inplace_backward: bool = True) -> Tensor:
    """log p(label), as `verl.utils.torch_functional`'s; in float32 whatever the logits are.

    Args:
        logits: float `[..., V]`; labels: an integer dtype, `[...]`, each in `[0, V)`.
        inplace_backward: not read; the logits stay as they are.
    """
    return logprob(logits, labels, ignore_index=NO_TARGET)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    reduction: str = "none",
    dist_process_group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """log p(label) and entropy, as `verl.utils.kernel.linear_cross_entropy`'s.

    Args:
        hidden: float `[..., D]`; weight `[V, D]`, this rank's rows of it with a process group.
        labels: an integer dtype, `[...]`.
        reduction: "none", "mean" or "sum", of log p as of verl's kernel.

    Returns:
        Both float32 and flat: `[tokens]` each, log p a scalar if it is reduced.

    Raises:
        ValueError: a reduction that is not taken.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: takes none, mean or sum, got {reduction!r}")
    found = linear_logprob_stats(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        labels.reshape(-1),
        ignore_index=NO_TARGET,
        temperature=temperature,
        group=dist_process_group,
    )
    if reduction == "none":
        return found.logprob, found.entropy
    return getattr(found.logprob, reduction)(), found.entropy


class FusedLinearForPPO(nn.Module):
    """log p and entropy of a head, in the place of `verl.utils.experimental`'s class of that name:
    no logits are held, whatever chunk_size and impl_backend say.
    """

    def __init__(self, chunk_size: int = 512, impl_backend: str = "torch") -> None:
        super().__init__()

    def forward(
        self,
        hidden_states: Tensor,
        vocab_weights: Tensor,
        input_ids: Tensor,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Both float32 `[...]`; of hidden_states `[..., D]`, weights `[V, D]` and ids `[...]`."""
        found = linear_logprob_stats(
            hidden_states,
            vocab_weights,
            input_ids,
            ignore_index=NO_TARGET,
            temperature=float(temperature),
        )
        return found.logprob, found.entropy

"""Result types of the public functions, and the names their options take."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor

LossType = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
    "simpo",
    "cpo",
    "orpo",
]
FDivergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
SequenceReduction = Literal["mean", "sum"]
Normalization = Literal["std", "mean"]
PairReduction = Literal["none", "mean"]
PolicyReduction = Literal["sequence", "token", "constant", "sum"]
PolicyLevel = Literal["token", "sequence"]
PolicyLossType = Literal[
    "grpo", "bnpo", "dapo", "dr_grpo", "luspo", "cispo", "sapo", "vespo", "gmpo", "gpg"
]
KtoLossType = Literal["kto", "apo_zero_unpaired"]
KlEstimator = Literal["k1", "k2", "k3"]
SamplingMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]


class LogprobStats(NamedTuple):
    """Per-token statistics of a row of logits, each `[...]`, zero where the target is ignored."""

    logprob: Tensor
    """log p(target), never above 0."""
    lse: Tensor
    """log-sum-exp of the final logits (after bias, softcap and temperature)."""
    entropy: Tensor
    """Shannon entropy of the distribution, in nats."""


class RankedStats(NamedTuple):
    """`LogprobStats` and which entry is the most likely, each `[...]`; the last two constants."""

    logprob: Tensor
    lse: Tensor
    entropy: Tensor
    argmax: Tensor
    """int64: the first of the largest final logits; 0 where the target is ignored or log p NaN."""
    top1: Tensor
    """bool, whether that is the target; the mean over tokens is their accuracy. False where argmax
    means nothing."""


class Rewards(NamedTuple):
    """Dual self-rewards of B candidates in G groups."""

    reward: Tensor
    """`[B]` mean log p of the scored tokens; NaN where a candidate has none."""
    advantage: Tensor
    """`[B]` reward relative to its group; 0 where the reward is not finite."""
    best: Tensor
    """`[G]` int64 index into the B candidates of each group's highest reward, the first of equals;
    -1 where no reward of the group is finite."""
    worst: Tensor
    """`[G]` the same for the lowest reward; equal to `best` where the group has one distinct
    reward, that is, no preference."""


class SampledToken(NamedTuple):
    """One token of each row's distribution, each `[R]`."""

    token: Tensor
    """int64; 0 where the row has no distribution."""
    logprob: Tensor
    """log p(token) under the distribution drawn from; NaN where there is none."""
    entropy: Tensor
    """Shannon entropy of that distribution, in nats."""


class PreferenceLoss(NamedTuple):
    """Loss and implicit rewards of B preference pairs, each `[B]`; the loss may be their mean."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


class PolicyMetrics(NamedTuple):
    """Means over the tokens, of clips and ratios with `level="sequence"` over the sequences; each a
    scalar without gradient, NaN in a batch without tokens."""

    clip_low: Tensor
    """The part whose ratio is below the clip while its advantage is negative."""
    clip_high: Tensor
    """The part whose ratio is above the clip while its advantage is positive."""
    kl: Tensor
    """The KL estimate, 0 without a reference."""
    ratio: Tensor
    """The ratio of the new policy to the old."""


class PolicyLoss(NamedTuple):
    """A policy-gradient loss and what to log beside it."""

    loss: Tensor
    metrics: PolicyMetrics


class KtoLoss(NamedTuple):
    """Loss and implicit reward of B sequences that are each good or bad, each `[B]`."""

    loss: Tensor
    reward: Tensor

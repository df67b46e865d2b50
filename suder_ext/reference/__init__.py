"""The public functions in plain PyTorch: the oracle of the tests, the fallback without a build.

Everything here follows autograd and computes in float64 when any floating argument is float64,
else in float32. Logits are held in memory whole; the compiled operators never do that.
"""

from suder_ext.reference.cross_entropy import linear_cross_entropy
from suder_ext.reference.divergence import linear_kl
from suder_ext.reference.logprobs import (
    linear_logprob,
    linear_logprob_stats,
    logprob,
    logprob_stats,
)
from suder_ext.reference.pair_weights import wpo_weight
from suder_ext.reference.peers import selective_log_softmax
from suder_ext.reference.policy import policy_loss
from suder_ext.reference.preference import linear_preference_loss, preference_loss
from suder_ext.reference.sampling import linear_sample_token, sample_token
from suder_ext.reference.sequences import (
    dual_reward,
    group_advantage,
    linear_sequence_logprob,
    sequence_reduce,
)
from suder_ext.reference.unpaired import kto_loss

__all__ = [
    "dual_reward",
    "group_advantage",
    "kto_loss",
    "linear_cross_entropy",
    "linear_kl",
    "linear_logprob",
    "linear_logprob_stats",
    "linear_preference_loss",
    "linear_sample_token",
    "linear_sequence_logprob",
    "logprob",
    "logprob_stats",
    "policy_loss",
    "preference_loss",
    "sample_token",
    "selective_log_softmax",
    "sequence_reduce",
    "wpo_weight",
]

"""The public functions: check the arguments, flatten them, call a kernel or the reference."""

from suder_ext.functional.cross_entropy import linear_cross_entropy
from suder_ext.functional.divergence import linear_kl
from suder_ext.functional.linear_preference import linear_preference_loss
from suder_ext.functional.logprobs import (
    linear_logprob,
    linear_logprob_stats,
    logprob,
    logprob_stats,
)
from suder_ext.functional.padded import pack_padded
from suder_ext.functional.pair_weights import wpo_weight
from suder_ext.functional.peers import selective_log_softmax
from suder_ext.functional.policy import policy_loss
from suder_ext.functional.preference import preference_loss
from suder_ext.functional.sampling import linear_sample_token, sample_token
from suder_ext.functional.sequences import (
    dual_reward,
    group_advantage,
    linear_sequence_logprob,
    sequence_reduce,
)
from suder_ext.functional.unpaired import kto_loss

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
    "pack_padded",
    "policy_loss",
    "preference_loss",
    "sample_token",
    "selective_log_softmax",
    "sequence_reduce",
    "wpo_weight",
]

"""Schemas of torch.ops.suder: flat tensors, no defaults, every result a fresh tensor.

Matrices and gradients with respect to them are float32, bfloat16 or float16, all other floating
tensors float32, all integers int64. The public functions flatten and cast to that. Each backward is
an operator of its own, so that torch.compile and opcheck see it.

The slopes that a loss returns are saved for its backward and not differentiable. Its backward also
takes the inputs that they were computed from, unread: through them a second derivative reaches the
error that it deserves, and not a silent 0.
"""

from __future__ import annotations

import torch

# The logits convention, everywhere: z = hidden @ weight.T + bias; if a softcap is given,
# z = softcap * tanh(z / softcap); z = z / temperature. logprob, lse and entropy are of this z.
# Rows with target == ignore_index give logprob 0, and with_entropy also lse and entropy 0. argmax
# is int64, empty if it is not wanted: the first of the largest z, 0 of ignored rows.
SCHEMAS = {
    # logits: keep_logits floats in which the forward may leave what its backward would otherwise
    # compute again; the kernel's own layout, and no part of the result.
    "linear_logprob": (
        "(Tensor hidden, Tensor weight, Tensor? bias, Tensor target, int ignore_index, "
        "float temperature, float? softcap, bool with_entropy, int keep_logits, bool with_argmax) "
        "-> (Tensor logprob, Tensor lse, Tensor entropy, Tensor logits, Tensor argmax)"
    ),
    "linear_logprob_backward": (
        "(Tensor? grad_logprob, Tensor? grad_lse, Tensor? grad_entropy, Tensor hidden, "
        "Tensor weight, Tensor? bias, Tensor target, Tensor lse, Tensor entropy, Tensor logits, "
        "int ignore_index, float temperature, float? softcap, bool need_hidden, bool need_weight, "
        "bool need_bias) "
        "-> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias)"
    ),
    # needs: which of the six gradients. state: the log-sum-exps of both sides, in the backend's own
    # layout; logits: what keep_logits floats a side hold, as above.
    "linear_kl": (
        "(Tensor hidden, Tensor weight, Tensor? bias, Tensor ref_hidden, Tensor ref_weight, "
        "Tensor? ref_bias, Tensor target, int ignore_index, float temperature, float? softcap, "
        "int keep_logits) -> (Tensor kl, Tensor state, Tensor logits)"
    ),
    "linear_kl_backward": (
        "(Tensor grad_kl, Tensor hidden, Tensor weight, Tensor? bias, Tensor ref_hidden, "
        "Tensor ref_weight, Tensor? ref_bias, Tensor target, Tensor kl, Tensor state, "
        "Tensor logits, int ignore_index, float temperature, float? softcap, bool[] needs) -> "
        "(Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias, Tensor grad_ref_hidden, "
        "Tensor grad_ref_weight, Tensor grad_ref_bias)"
    ),
    "logprob": (
        "(Tensor logits, Tensor target, int ignore_index, float temperature, float? softcap, "
        "bool with_entropy) -> (Tensor logprob, Tensor lse, Tensor entropy)"
    ),
    "logprob_backward": (
        "(Tensor? grad_logprob, Tensor? grad_lse, Tensor? grad_entropy, Tensor logits, "
        "Tensor target, Tensor lse, Tensor entropy, int ignore_index, float temperature, "
        "float? softcap) -> Tensor grad_logits"
    ),
    "sequence_reduce": (
        "(Tensor logprob, Tensor target, Tensor cu_seqlens, bool mean, int ignore_index) "
        "-> (Tensor value, Tensor count)"
    ),
    "sequence_reduce_backward": (
        "(Tensor grad_value, Tensor target, Tensor cu_seqlens, Tensor count, bool mean, "
        "int ignore_index) -> Tensor grad_logprob"
    ),
    "group_advantage": (
        "(Tensor reward, int group_size, str normalize) "
        "-> (Tensor advantage, Tensor best, Tensor worst)"
    ),
    # uniform: float64 [R], None: greedy. top_k 0 and top_p 1: nothing is cut off.
    "sample_token": (
        "(Tensor logits, Tensor? uniform, float temperature, int top_k, float top_p) "
        "-> (Tensor token, Tensor logprob, Tensor entropy)"
    ),
    "linear_sample_token": (
        "(Tensor hidden, Tensor weight, Tensor? bias, Tensor? uniform, float temperature, "
        "int top_k, float top_p) -> (Tensor token, Tensor logprob, Tensor entropy)"
    ),
    # slope: d loss[i] / d chosen[i] and so on; partner: the pair whose rejected (aot: reference)
    # value has the rank of pair i, for the losses that sort, else empty.
    "preference_loss": (
        "(Tensor chosen, Tensor rejected, Tensor? ref_chosen, Tensor? ref_rejected, "
        "Tensor? chosen_length, Tensor? rejected_length, str loss_type, str f_divergence, "
        "float beta, float label_smoothing, float margin, float f_alpha, float discopop_tau, "
        "float likelihood_weight) -> (Tensor loss, Tensor chosen_reward, "
        "Tensor rejected_reward, Tensor chosen_slope, Tensor rejected_slope, Tensor partner)"
    ),
    "preference_loss_backward": (
        "(Tensor? grad_loss, Tensor? grad_chosen_reward, Tensor? grad_rejected_reward, "
        "Tensor chosen, Tensor rejected, Tensor chosen_slope, Tensor rejected_slope, "
        "Tensor partner, Tensor? chosen_length, Tensor? rejected_length, str loss_type, float beta,"
        " bool need_ref) -> (Tensor grad_chosen, Tensor grad_rejected, Tensor grad_ref_chosen, "
        "Tensor grad_ref_rejected)"
    ),
    # The mean over the pairs both of whose sequences have a scored token. cu_seqlens on the CPU;
    # count: each sequence's scored tokens; target: those of the other pairs must be ignored.
    # slopes: float32, of d loss; they only wait for its upstream gradient.
    "linear_preference_loss": (
        "(Tensor hidden, Tensor weight, Tensor? bias, Tensor target, Tensor cu_seqlens, "
        "Tensor count, Tensor? ref_logprob, str loss_type, str f_divergence, float beta, "
        "float label_smoothing, float margin, float f_alpha, float discopop_tau, "
        "float likelihood_weight, int ignore_index, float temperature, "
        "float? softcap, bool need_hidden, bool need_weight, bool need_bias) -> (Tensor loss, "
        "Tensor chosen_reward, Tensor rejected_reward, Tensor hidden_slope, Tensor weight_slope, "
        "Tensor bias_slope)"
    ),
    "linear_preference_loss_backward": (
        "(Tensor grad_loss, Tensor hidden, Tensor weight, Tensor? bias, Tensor hidden_slope, "
        "Tensor weight_slope, Tensor bias_slope) "
        "-> (Tensor grad_hidden, Tensor grad_weight, Tensor grad_bias)"
    ),
    # advantage: [B] or [T]; sampler_log_ratio: of VESPO, inside its ratio; delta infinity: none;
    # num_items 0: the batch's own; by_sign: for positive advantages and the others, SAPO's
    # temperature, VESPO's k and lambda. slopes: d loss / d (logprob - old_logprob),
    # d (logprob - ref_logprob), d logprob where it is not their sum, d advantage and
    # d token_weight; empty where there is none.
    "policy_loss": (
        "(Tensor logprob, Tensor old_logprob, Tensor? ref_logprob, Tensor advantage, "
        "Tensor? token_weight, Tensor? sampler_log_ratio, Tensor cu_seqlens, str surrogate, "
        "float clip_low, float clip_high, "
        "float delta, float kl_coef, str kl_estimator, bool kl_bias_correction, str reduction, "
        "str level, int max_length, float num_items, float[] by_sign, bool with_metrics) "
        "-> (Tensor loss, Tensor metrics, Tensor ratio_slope, Tensor kl_slope, "
        "Tensor logprob_slope, Tensor advantage_slope, Tensor weight_slope)"
    ),
    "policy_loss_backward": (
        "(Tensor grad_loss, Tensor logprob, Tensor old_logprob, Tensor ratio_slope, "
        "Tensor kl_slope, Tensor logprob_slope, Tensor advantage_slope, Tensor weight_slope) "
        "-> (Tensor grad_logprob, Tensor grad_old_logprob, Tensor grad_ref_logprob, "
        "Tensor grad_advantage, Tensor grad_token_weight)"
    ),
}

library = torch.library.Library("suder", "DEF")
for name, schema in SCHEMAS.items():
    library.define(name + schema)

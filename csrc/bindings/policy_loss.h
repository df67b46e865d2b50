// The struct of policy_loss from what Python passes, for _C and _C_cuda.
#pragma once

#include <pybind11/pybind11.h>

#include "bindings/module.h"
#include "suder/policy_loss.h"

namespace suder {

// A function object, so that both modules bind one list of arguments.
template <class... Last, class Run>
auto policy_loss_binding(Run run) {
  using Address = std::uintptr_t;
  using Int = std::int64_t;
  return [run](Address logprob, Address old_logprob, Address ref_logprob, Int tokens,
               Address advantage, bool advantage_per_token, Address token_weight,
               Address sampler_log_ratio, Address cu_seqlens, Int sequences, int surrogate,
               double clip_low, double clip_high, double delta, double kl_coef, int kl_estimator,
               bool kl_bias_correction, int reduction, int level, Int max_length, double num_items,
               double sapo_positive, double sapo_negative, double vespo_k_positive,
               double vespo_k_negative, double vespo_lambda_positive, double vespo_lambda_negative,
               Address loss, Address metrics, Address ratio_slope, Address kl_slope,
               Address logprob_slope, Address advantage_slope, Address weight_slope, Last... last) {
    PolicyLoss p;
    p.tokens = tokens;
    p.sequences = sequences;
    p.cu_seqlens = pointer<const Int>(cu_seqlens);
    p.logprob = pointer<const float>(logprob);
    p.old_logprob = pointer<const float>(old_logprob);
    p.ref_logprob = pointer<const float>(ref_logprob);
    p.advantage = pointer<const float>(advantage);
    p.advantage_per_token = advantage_per_token;
    p.token_weight = pointer<const float>(token_weight);
    p.sampler_log_ratio = pointer<const float>(sampler_log_ratio);
    p.surrogate = static_cast<PolicySurrogate>(surrogate);
    p.clip_low = clip_low;
    p.clip_high = clip_high;
    p.delta = delta;
    p.kl_coef = kl_coef;
    p.kl_estimator = static_cast<KlEstimator>(kl_estimator);
    p.kl_bias_correction = kl_bias_correction;
    p.reduction = static_cast<PolicyReduction>(reduction);
    p.level = static_cast<PolicyLevel>(level);
    p.max_length = max_length;
    p.num_items = num_items;
    p.sapo_temperature = {sapo_positive, sapo_negative};
    p.vespo_k = {vespo_k_positive, vespo_k_negative};
    p.vespo_lambda = {vespo_lambda_positive, vespo_lambda_negative};
    p.loss = pointer<float>(loss);
    p.metrics = pointer<float>(metrics);
    p.ratio_slope = pointer<float>(ratio_slope);
    p.kl_slope = pointer<float>(kl_slope);
    p.logprob_slope = pointer<float>(logprob_slope);
    p.advantage_slope = pointer<float>(advantage_slope);
    p.weight_slope = pointer<float>(weight_slope);
    pybind11::gil_scoped_release release;
    run(p, last...);
  };
}

}  // namespace suder

// preference_loss, its backward, policy_loss.
#include "bindings/cuda/module.h"
#include "bindings/policy_loss.h"
#include "cuda/ops.h"

namespace suder::cuda {
namespace {

using py::arg;

void preference(Address chosen, Address rejected, Address ref_chosen, Address ref_rejected,
                Int pairs, int loss_type, int f_divergence, double beta, double label_smoothing,
                double margin, double f_alpha, double discopop_tau, double likelihood_weight,
                Address chosen_length, Address rejected_length, Address ranks, Address loss,
                Address chosen_reward, Address rejected_reward, Address chosen_slope,
                Address rejected_slope, Address partner, Stream stream) {
  PreferenceLoss p;
  p.type = static_cast<PreferenceLossType>(loss_type);
  p.f_divergence = static_cast<FDivergence>(f_divergence);
  p.beta = beta;
  p.label_smoothing = label_smoothing;
  p.margin = margin;
  p.f_alpha = f_alpha;
  p.discopop_tau = discopop_tau;
  p.likelihood_weight = likelihood_weight;
  p.pairs = pairs;
  p.chosen = pointer<const float>(chosen);
  p.rejected = pointer<const float>(rejected);
  p.ref_chosen = pointer<const float>(ref_chosen);
  p.ref_rejected = pointer<const float>(ref_rejected);
  p.chosen_length = pointer<const Int>(chosen_length);
  p.rejected_length = pointer<const Int>(rejected_length);
  p.loss = pointer<float>(loss);
  p.chosen_reward = pointer<float>(chosen_reward);
  p.rejected_reward = pointer<float>(rejected_reward);
  p.chosen_slope = pointer<float>(chosen_slope);
  p.rejected_slope = pointer<float>(rejected_slope);
  p.partner = pointer<Int>(partner);
  py::gil_scoped_release release;
  preference_loss_forward(p, pointer<Int>(ranks), stream);
}

void preference_backward(Address grad_loss, Address grad_chosen_reward,
                         Address grad_rejected_reward, Int pairs, int loss_type, double beta,
                         Address chosen_length, Address rejected_length, Address chosen_slope,
                         Address rejected_slope, Address partner, Address grad_chosen,
                         Address grad_rejected, Address grad_ref_chosen, Address grad_ref_rejected,
                         Stream stream) {
  PreferenceLossBackward p;
  p.type = static_cast<PreferenceLossType>(loss_type);
  p.beta = beta;
  p.pairs = pairs;
  p.grad_loss = pointer<const float>(grad_loss);
  p.grad_chosen_reward = pointer<const float>(grad_chosen_reward);
  p.grad_rejected_reward = pointer<const float>(grad_rejected_reward);
  p.chosen_length = pointer<const Int>(chosen_length);
  p.rejected_length = pointer<const Int>(rejected_length);
  p.chosen_slope = pointer<const float>(chosen_slope);
  p.rejected_slope = pointer<const float>(rejected_slope);
  p.partner = pointer<const Int>(partner);
  p.grad_chosen = pointer<float>(grad_chosen);
  p.grad_rejected = pointer<float>(grad_rejected);
  p.grad_ref_chosen = pointer<float>(grad_ref_chosen);
  p.grad_ref_rejected = pointer<float>(grad_ref_rejected);
  py::gil_scoped_release release;
  preference_loss_backward(p, stream);
}

}  // namespace

void bind_losses(py::module_& module) {
  module.def("preference_loss", &preference, py::kw_only(), arg("chosen"), arg("rejected"),
             arg("ref_chosen"), arg("ref_rejected"), arg("pairs"), arg("loss_type"),
             arg("f_divergence"), arg("beta"), arg("label_smoothing"), arg("margin"),
             arg("f_alpha"), arg("discopop_tau"), arg("likelihood_weight"), arg("chosen_length"),
             arg("rejected_length"), arg("ranks"), arg("loss"), arg("chosen_reward"),
             arg("rejected_reward"), arg("chosen_slope"), arg("rejected_slope"), arg("partner"),
             arg("stream"));
  module.def("preference_loss_backward", &preference_backward, py::kw_only(), arg("grad_loss"),
             arg("grad_chosen_reward"), arg("grad_rejected_reward"), arg("pairs"), arg("loss_type"),
             arg("beta"), arg("chosen_length"), arg("rejected_length"), arg("chosen_slope"),
             arg("rejected_slope"), arg("partner"), arg("grad_chosen"), arg("grad_rejected"),
             arg("grad_ref_chosen"), arg("grad_ref_rejected"), arg("stream"));
  module.def(
      "policy_loss",
      policy_loss_binding<Address, Stream>([](const PolicyLoss& p, Address totals, Stream stream) {
        policy_loss(p, pointer<double>(totals), stream);
      }),
      py::kw_only(), arg("logprob"), arg("old_logprob"), arg("ref_logprob"), arg("tokens"),
      arg("advantage"), arg("advantage_per_token"), arg("token_weight"), arg("sampler_log_ratio"),
      arg("cu_seqlens"), arg("sequences"), arg("surrogate"), arg("clip_low"), arg("clip_high"),
      arg("delta"), arg("kl_coef"), arg("kl_estimator"), arg("kl_bias_correction"),
      arg("reduction"), arg("level"), arg("max_length"), arg("num_items"), arg("sapo_positive"),
      arg("sapo_negative"), arg("vespo_k_positive"), arg("vespo_k_negative"),
      arg("vespo_lambda_positive"), arg("vespo_lambda_negative"), arg("loss"), arg("metrics"),
      arg("ratio_slope"), arg("kl_slope"), arg("logprob_slope"), arg("advantage_slope"),
      arg("weight_slope"), arg("totals"), arg("stream"));
}

}  // namespace suder::cuda

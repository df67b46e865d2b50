// preference_loss, its backward, policy_loss.
#include "bindings/cuda/module.h"
#include "cuda/ops.h"

namespace suder::cuda {
namespace {

using py::arg;

void preference(Address chosen, Address rejected, Address ref_chosen, Address ref_rejected,
                Int pairs, int loss_type, int f_divergence, double beta, double label_smoothing,
                double margin, Address chosen_length, Address rejected_length, Address ranks,
                Address loss, Address chosen_reward, Address rejected_reward, Address chosen_slope,
                Address rejected_slope, Address partner, Stream stream) {
  PreferenceLoss p;
  p.type = static_cast<PreferenceLossType>(loss_type);
  p.f_divergence = static_cast<FDivergence>(f_divergence);
  p.beta = beta;
  p.label_smoothing = label_smoothing;
  p.margin = margin;
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

void policy(Address logprob, Address old_logprob, Address ref_logprob, Int tokens,
            Address advantage, Address cu_seqlens, Int sequences, double clip_low, double clip_high,
            double kl_coef, int reduction, int level, Int max_length, Address totals, Address loss,
            Address ratio_slope, Address kl_slope, Address advantage_slope, Stream stream) {
  PolicyLoss p;
  p.tokens = tokens;
  p.sequences = sequences;
  p.cu_seqlens = pointer<const Int>(cu_seqlens);
  p.logprob = pointer<const float>(logprob);
  p.old_logprob = pointer<const float>(old_logprob);
  p.ref_logprob = pointer<const float>(ref_logprob);
  p.advantage = pointer<const float>(advantage);
  p.clip_low = clip_low;
  p.clip_high = clip_high;
  p.kl_coef = kl_coef;
  p.reduction = static_cast<PolicyReduction>(reduction);
  p.level = static_cast<PolicyLevel>(level);
  p.max_length = max_length;
  p.loss = pointer<float>(loss);
  p.ratio_slope = pointer<float>(ratio_slope);
  p.kl_slope = pointer<float>(kl_slope);
  p.advantage_slope = pointer<float>(advantage_slope);
  py::gil_scoped_release release;
  policy_loss(p, pointer<double>(totals), stream);
}

}  // namespace

void bind_losses(py::module_& module) {
  module.def("preference_loss", &preference, py::kw_only(), arg("chosen"), arg("rejected"),
             arg("ref_chosen"), arg("ref_rejected"), arg("pairs"), arg("loss_type"),
             arg("f_divergence"), arg("beta"), arg("label_smoothing"), arg("margin"),
             arg("chosen_length"), arg("rejected_length"), arg("ranks"), arg("loss"),
             arg("chosen_reward"), arg("rejected_reward"), arg("chosen_slope"),
             arg("rejected_slope"), arg("partner"), arg("stream"));
  module.def("preference_loss_backward", &preference_backward, py::kw_only(), arg("grad_loss"),
             arg("grad_chosen_reward"), arg("grad_rejected_reward"), arg("pairs"), arg("loss_type"),
             arg("beta"), arg("chosen_length"), arg("rejected_length"), arg("chosen_slope"),
             arg("rejected_slope"), arg("partner"), arg("grad_chosen"), arg("grad_rejected"),
             arg("grad_ref_chosen"), arg("grad_ref_rejected"), arg("stream"));
  module.def("policy_loss", &policy, py::kw_only(), arg("logprob"), arg("old_logprob"),
             arg("ref_logprob"), arg("tokens"), arg("advantage"), arg("cu_seqlens"),
             arg("sequences"), arg("clip_low"), arg("clip_high"), arg("kl_coef"), arg("reduction"),
             arg("level"), arg("max_length"), arg("totals"), arg("loss"), arg("ratio_slope"),
             arg("kl_slope"), arg("advantage_slope"), arg("stream"));
}

}  // namespace suder::cuda

// _C.preference_loss and _C.preference_loss_backward.
//
// Called by position: names cost a small call more than its kernel. Tensors are addresses (0:
// absent), contiguous [pairs]: float32, but int64 for lengths and partner. loss_type and
// f_divergence: positions in LOSS_TYPES and F_DIVERGENCES of suder_ext/preference_options.py, which
// also checks the options. May be absent: ref_* (both), lengths where the loss needs none, partner
// except for "aot" and "aot_unpaired" (output of the first, input of the second), the forward's
// slopes (both, not wanted), and in the backward upstream gradients (zero) and grad_ref_* (not
// wanted). Every other output is written in full. Errors: ValueError (something needed is absent).
#include "suder/preference_loss.h"

#include "bindings/module.h"

namespace py = pybind11;

namespace suder {
namespace {

using Address = std::uintptr_t;
using Int = std::int64_t;

void forward(Address chosen, Address rejected, Address ref_chosen, Address ref_rejected, Int pairs,
             int loss_type, int f_divergence, double beta, double label_smoothing, double margin,
             double f_alpha, double discopop_tau, double likelihood_weight, Address chosen_length,
             Address rejected_length, int threads, Address loss, Address chosen_reward,
             Address rejected_reward, Address chosen_slope, Address rejected_slope,
             Address partner) {
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
  p.threads = threads;
  p.loss = pointer<float>(loss);
  p.chosen_reward = pointer<float>(chosen_reward);
  p.rejected_reward = pointer<float>(rejected_reward);
  p.chosen_slope = pointer<float>(chosen_slope);
  p.rejected_slope = pointer<float>(rejected_slope);
  p.partner = pointer<Int>(partner);
  py::gil_scoped_release release;
  preference_loss_forward(p);
}

void backward(Address grad_loss, Address grad_chosen_reward, Address grad_rejected_reward,
              Int pairs, int loss_type, double beta, Address chosen_length, Address rejected_length,
              Address chosen_slope, Address rejected_slope, Address partner, Address grad_chosen,
              Address grad_rejected, Address grad_ref_chosen, Address grad_ref_rejected) {
  PreferenceLossBackward p;
  p.type = static_cast<PreferenceLossType>(loss_type);
  p.beta = beta;
  p.pairs = pairs;
  p.grad_loss = pointer<const float>(grad_loss);
  p.grad_chosen_reward = pointer<const float>(grad_chosen_reward);
  p.grad_rejected_reward = pointer<const float>(grad_rejected_reward);
  p.chosen_slope = pointer<const float>(chosen_slope);
  p.rejected_slope = pointer<const float>(rejected_slope);
  p.partner = pointer<const Int>(partner);
  p.chosen_length = pointer<const Int>(chosen_length);
  p.rejected_length = pointer<const Int>(rejected_length);
  p.grad_chosen = pointer<float>(grad_chosen);
  p.grad_rejected = pointer<float>(grad_rejected);
  p.grad_ref_chosen = pointer<float>(grad_ref_chosen);
  p.grad_ref_rejected = pointer<float>(grad_ref_rejected);
  py::gil_scoped_release release;
  preference_loss_backward(p);
}

const Binding binding([](py::module_& module) {
  module.def("preference_loss", &forward, py::arg("chosen"), py::arg("rejected"),
             py::arg("ref_chosen"), py::arg("ref_rejected"), py::arg("pairs"), py::arg("loss_type"),
             py::arg("f_divergence"), py::arg("beta"), py::arg("label_smoothing"),
             py::arg("margin"), py::arg("f_alpha"), py::arg("discopop_tau"),
             py::arg("likelihood_weight"), py::arg("chosen_length"), py::arg("rejected_length"),
             py::arg("threads"), py::arg("loss"), py::arg("chosen_reward"),
             py::arg("rejected_reward"), py::arg("chosen_slope"), py::arg("rejected_slope"),
             py::arg("partner"));
  module.def("preference_loss_backward", &backward, py::arg("grad_loss"),
             py::arg("grad_chosen_reward"), py::arg("grad_rejected_reward"), py::arg("pairs"),
             py::arg("loss_type"), py::arg("beta"), py::arg("chosen_length"),
             py::arg("rejected_length"), py::arg("chosen_slope"), py::arg("rejected_slope"),
             py::arg("partner"), py::arg("grad_chosen"), py::arg("grad_rejected"),
             py::arg("grad_ref_chosen"), py::arg("grad_ref_rejected"));
});

}  // namespace
}  // namespace suder

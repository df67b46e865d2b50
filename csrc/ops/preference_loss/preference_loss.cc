// Checks, dispatch, and the two things that look at more than one pair: ranks and mean length.
#include "suder/preference_loss.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "cpu/isa.h"
#include "ops/preference_loss/formula.h"

namespace suder {

SUDER_DECLARE_ISA(void preference_loss_forward_cpu(const PreferenceLoss& params,
                                                   double likelihood_scale))
SUDER_DECLARE_ISA(void preference_loss_backward_cpu(const PreferenceLossBackward& params))

namespace {

template <class Params>
void check(const Params& p) {
  if (p.pairs == 0) return;  // tensors without elements have no address
  if (preference::averages_tokens(p.type) && (!p.chosen_length || !p.rejected_length)) {
    throw std::invalid_argument("preference_loss: this loss averages over tokens; give lengths");
  }
  if (preference::sorts(p.type) && !p.partner) {
    throw std::invalid_argument("preference_loss: a sorting loss needs partner");
  }
}

// Ascending, NaN last, equals in their order.
std::vector<std::int64_t> argsort(const std::vector<double>& value) {
  std::vector<std::int64_t> order(value.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return value[a] < value[b] || (std::isnan(value[b]) && !std::isnan(value[a]));
  });
  return order;
}

// partner[i]: the pair whose compared value has the rank that pair i's own value has.
void match_ranks(const PreferenceLoss& p) {
  std::vector<double> own(p.pairs), other(p.pairs);
  for (std::int64_t i = 0; i < p.pairs; ++i) {
    const preference::Compared value = preference::compared(p, i);
    own[i] = value.own;
    other[i] = value.other;
  }
  const auto own_order = argsort(own), other_order = argsort(other);
  for (std::int64_t k = 0; k < p.pairs; ++k) p.partner[own_order[k]] = other_order[k];
}

// With it, the mean over whole pairs of the likelihood term is the mean over their chosen tokens.
double likelihood_scale(const PreferenceLoss& p) {
  if (p.chosen_length == nullptr) return 1.0;
  std::int64_t tokens = 0, pairs = 0;
  for (std::int64_t i = 0; i < p.pairs; ++i) {
    if (!preference::whole(p, i)) continue;
    tokens += p.chosen_length[i];
    ++pairs;
  }
  return pairs == 0 ? 1.0 : static_cast<double>(pairs) / static_cast<double>(tokens);
}

}  // namespace

void preference_loss_forward(const PreferenceLoss& params) {
  check(params);
  if (preference::sorts(params.type)) match_ranks(params);
  const double scale = likelihood_scale(params) * params.likelihood_weight;
  SUDER_CALL_ISA(preference_loss_forward_cpu, params, scale);
}

void preference_loss_backward(const PreferenceLossBackward& params) {
  check(params);
  SUDER_CALL_ISA(preference_loss_backward_cpu, params);
}

}  // namespace suder

// In double: a pair is a handful of operations, and log-probabilities of long sequences cancel.
#include "common/dtype.h"
#include "cpu/parallel.h"
#include "ops/preference_loss/formula.h"
#include "suder/preference_loss.h"

namespace suder::SUDER_ISA {
namespace {

using namespace preference;

constexpr std::int64_t kPairsPerTask = 1024;  // about 0.1 ms, more than waking a thread costs

void forward_pair(const PreferenceLoss& p, std::int64_t i, double likelihood_scale) {
  const bool with_reference = p.ref_chosen && !reference_free(p.type);
  const double chosen = p.chosen[i] - (with_reference ? double{p.ref_chosen[i]} : 0.0);
  const double rejected = p.rejected[i] - (with_reference ? double{p.ref_rejected[i]} : 0.0);
  Pair pair{chosen, rejected, 1.0, 1.0, p.chosen[i], likelihood_scale};
  if (averages_tokens(p.type)) {
    pair.inverse_chosen_length = inverse_length(p.chosen_length, i);
    pair.inverse_rejected_length = inverse_length(p.rejected_length, i);
  }
  if (sorts(p.type)) {
    const std::int64_t j = p.partner[i];
    const double ref_chosen = p.ref_chosen ? p.ref_chosen[j] : 0.0;
    const double ref_rejected = p.ref_rejected ? p.ref_rejected[j] : 0.0;
    if (p.type == PreferenceLossType::kAot) {
      pair.chosen = p.chosen[i] - ref_chosen;
      pair.rejected = p.rejected[i] - ref_rejected;
    } else {
      pair.rejected = p.rejected[j] - ref_rejected;
    }
  }
  const PairLoss result = pair_loss(p, pair);
  p.loss[i] = static_cast<float>(result.loss);
  if (p.chosen_slope) p.chosen_slope[i] = static_cast<float>(result.chosen_slope);
  if (p.rejected_slope) p.rejected_slope[i] = static_cast<float>(result.rejected_slope);
  const bool mean = averages_rewards(p.type);
  p.chosen_reward[i] =
      static_cast<float>(p.beta * chosen * (mean ? pair.inverse_chosen_length : 1.0));
  p.rejected_reward[i] =
      static_cast<float>(p.beta * rejected * (mean ? pair.inverse_rejected_length : 1.0));
}

}  // namespace

void preference_loss_forward_cpu(const PreferenceLoss& p, double likelihood_scale) {
  const std::int64_t tasks = (p.pairs + kPairsPerTask - 1) / kPairsPerTask;
  cpu::parallel_for(p.threads, tasks, [&](std::int64_t task, int) {
    const std::int64_t begin = task * kPairsPerTask, end = begin + kPairsPerTask;
    for (std::int64_t i = begin; i < (end < p.pairs ? end : p.pairs); ++i) {
      forward_pair(p, i, likelihood_scale);
    }
  });
}

// Two passes, since a sorting loss sends part of pair i's gradient to pair partner[i].
void preference_loss_backward_cpu(const PreferenceLossBackward& p) {
  const bool mean = averages_rewards(p.type), free = reference_free(p.type);
  for (std::int64_t i = 0; i < p.pairs; ++i) {
    const double chosen_scale = mean ? inverse_length(p.chosen_length, i) : 1.0;
    const double rejected_scale = mean ? inverse_length(p.rejected_length, i) : 1.0;
    const double chosen =
        p.grad_chosen_reward ? p.beta * chosen_scale * p.grad_chosen_reward[i] : 0.0;
    const double rejected =
        p.grad_rejected_reward ? p.beta * rejected_scale * p.grad_rejected_reward[i] : 0.0;
    p.grad_chosen[i] = static_cast<float>(chosen);
    p.grad_rejected[i] = static_cast<float>(rejected);
    if (p.grad_ref_chosen) p.grad_ref_chosen[i] = static_cast<float>(free ? 0.0 : -chosen);
    if (p.grad_ref_rejected) p.grad_ref_rejected[i] = static_cast<float>(free ? 0.0 : -rejected);
  }
  if (!p.grad_loss) return;
  const bool to_reference = !free && p.type != PreferenceLossType::kSft && p.grad_ref_chosen;
  for (std::int64_t i = 0; i < p.pairs; ++i) {
    const float chosen = p.grad_loss[i] * p.chosen_slope[i];
    const float rejected = p.grad_loss[i] * p.rejected_slope[i];
    const std::int64_t other = sorts(p.type) ? p.partner[i] : i;
    const bool unpaired = p.type == PreferenceLossType::kAotUnpaired;
    p.grad_chosen[i] += chosen;
    p.grad_rejected[unpaired ? other : i] += rejected;
    if (to_reference) {
      p.grad_ref_chosen[unpaired ? i : other] -= chosen;
      p.grad_ref_rejected[other] -= rejected;
    }
  }
}

}  // namespace suder::SUDER_ISA

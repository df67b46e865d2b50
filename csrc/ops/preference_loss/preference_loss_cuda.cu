// Loss, rewards and both slopes of a pair in one thread of one launch. Float64, as on the CPU.
#include <stdexcept>

#include "cuda/launch.cuh"
#include "cuda/ops.h"
#include "cuda/sequences.cuh"
#include "ops/preference_loss/formula.h"

namespace suder::cuda {
namespace {

using namespace preference;

constexpr int kThreads = kSequenceThreads;

__device__ double at(const float* value, std::int64_t i) {
  return value != nullptr ? value[i] : 0.0;
}

// ---- the sorting losses: which pair's compared value has the rank of pair i's own value

// Ascending, NaN last, equals in their order.
__device__ bool before(double a, std::int64_t i, double b, std::int64_t j) {
  if (isnan(a) || isnan(b)) return isnan(a) == isnan(b) ? i < j : isnan(b);
  return a < b || (a == b && i < j);
}

// Every thread counts the values before its own: quadratic, and for the thousands of pairs of a
// batch shorter than a sort's launches. Ranks are a permutation, so no two threads write one place.
__global__ void __launch_bounds__(kThreads)
    ranks_kernel(const __grid_constant__ PreferenceLoss p, std::int64_t* own_rank,
                 std::int64_t* other_at_rank) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.pairs) return;
  const Compared mine = compared(p, i);
  std::int64_t own = 0, other = 0;
  for (std::int64_t j = 0; j < p.pairs; ++j) {
    const Compared theirs = compared(p, j);
    own += before(theirs.own, j, mine.own, i);
    other += before(theirs.other, j, mine.other, i);
  }
  own_rank[i] = own;
  other_at_rank[other] = i;
}

// ---- forward

__device__ double likelihood_scale(const PreferenceLoss& p) {
  if (p.chosen_length == nullptr) return 1.0;
  std::int64_t tokens = 0, pairs = 0;
  for (std::int64_t i = threadIdx.x; i < p.pairs; i += kThreads) {
    if (!whole(p, i)) continue;
    tokens += p.chosen_length[i];
    ++pairs;
  }
  tokens = sum_block(tokens);
  pairs = sum_block(pairs);
  return pairs == 0 ? 1.0 : static_cast<double>(pairs) / static_cast<double>(tokens);
}

__device__ Pair make_pair(const PreferenceLoss& p, std::int64_t i, std::int64_t partner,
                          double scale) {
  const bool with_reference = p.ref_chosen != nullptr && !reference_free(p.type);
  Pair pair = {p.chosen[i] - (with_reference ? at(p.ref_chosen, i) : 0.0),
               p.rejected[i] - (with_reference ? at(p.ref_rejected, i) : 0.0),
               1.0,
               1.0,
               p.chosen[i],
               scale};
  if (averages_tokens(p.type)) {
    pair.inverse_chosen_length = inverse_length(p.chosen_length, i);
    pair.inverse_rejected_length = inverse_length(p.rejected_length, i);
  }
  if (p.type == PreferenceLossType::kAot) {
    pair.chosen = p.chosen[i] - at(p.ref_chosen, partner);
    pair.rejected = p.rejected[i] - at(p.ref_rejected, partner);
  } else if (p.type == PreferenceLossType::kAotUnpaired) {
    pair.rejected = p.rejected[partner] - at(p.ref_rejected, partner);
  }
  return pair;
}

__global__ void __launch_bounds__(kThreads)
    forward_kernel(const __grid_constant__ PreferenceLoss p, const std::int64_t* own_rank,
                   const std::int64_t* other_at_rank) {
  const double scale =
      likelihood_scale(p) * p.likelihood_weight;  // has barriers: before any thread leaves
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.pairs) return;
  const std::int64_t partner = sorts(p.type) ? other_at_rank[own_rank[i]] : i;
  if (sorts(p.type)) p.partner[i] = partner;
  const PairLoss result = pair_loss(p, make_pair(p, i, partner, scale));
  p.loss[i] = static_cast<float>(result.loss);
  p.chosen_slope[i] = static_cast<float>(result.chosen_slope);
  p.rejected_slope[i] = static_cast<float>(result.rejected_slope);
  const bool free = reference_free(p.type), mean = averages_rewards(p.type);
  const double chosen = p.chosen[i] - (free ? 0.0 : at(p.ref_chosen, i));
  const double rejected = p.rejected[i] - (free ? 0.0 : at(p.ref_rejected, i));
  p.chosen_reward[i] =
      static_cast<float>(p.beta * chosen * (mean ? inverse_length(p.chosen_length, i) : 1.0));
  p.rejected_reward[i] =
      static_cast<float>(p.beta * rejected * (mean ? inverse_length(p.rejected_length, i) : 1.0));
}

// ---- backward

// The rewards' part of the gradients, which every pair keeps to itself.
__global__ void __launch_bounds__(kThreads)
    rewards_backward_kernel(const __grid_constant__ PreferenceLossBackward p) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.pairs) return;
  const bool mean = averages_rewards(p.type), free = reference_free(p.type);
  const double chosen =
      p.beta * (mean ? inverse_length(p.chosen_length, i) : 1.0) * at(p.grad_chosen_reward, i);
  const double rejected =
      p.beta * (mean ? inverse_length(p.rejected_length, i) : 1.0) * at(p.grad_rejected_reward, i);
  p.grad_chosen[i] = static_cast<float>(chosen);
  p.grad_rejected[i] = static_cast<float>(rejected);
  if (p.grad_ref_chosen == nullptr) return;
  p.grad_ref_chosen[i] = static_cast<float>(free ? 0.0 : -chosen);
  p.grad_ref_rejected[i] = static_cast<float>(free ? 0.0 : -rejected);
}

// The loss's part: for a sorting loss some of it goes to pair partner[i], hence a launch of its
// own. partner is a permutation: no two threads add to one place.
__global__ void __launch_bounds__(kThreads)
    loss_backward_kernel(const __grid_constant__ PreferenceLossBackward p) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= p.pairs) return;
  const float chosen = p.grad_loss[i] * p.chosen_slope[i];
  const float rejected = p.grad_loss[i] * p.rejected_slope[i];
  const std::int64_t other = sorts(p.type) ? p.partner[i] : i;
  const bool unpaired = p.type == PreferenceLossType::kAotUnpaired;
  p.grad_chosen[i] += chosen;
  p.grad_rejected[unpaired ? other : i] += rejected;
  if (p.grad_ref_chosen == nullptr || reference_free(p.type) ||
      p.type == PreferenceLossType::kSft) {
    return;
  }
  p.grad_ref_chosen[unpaired ? i : other] -= chosen;
  p.grad_ref_rejected[other] -= rejected;
}

template <class Params>
void check(const Params& p) {
  if (averages_tokens(p.type) && (!p.chosen_length || !p.rejected_length)) {
    throw std::invalid_argument("preference_loss: this loss averages over tokens; give lengths");
  }
  if (sorts(p.type) && !p.partner) {
    throw std::invalid_argument("preference_loss: a sorting loss needs partner");
  }
}

unsigned blocks(std::int64_t pairs) {
  return static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
}

}  // namespace

void preference_loss_forward(const PreferenceLoss& p, std::int64_t* ranks, Stream stream) {
  if (p.pairs == 0) return;
  check(p);
  if (sorts(p.type)) {
    if (ranks == nullptr) throw std::invalid_argument("preference_loss: ranks is absent");
    launch(ranks_kernel, {blocks(p.pairs)}, {kThreads}, 0, stream, p, ranks, ranks + p.pairs);
  }
  launch(forward_kernel, {blocks(p.pairs)}, {kThreads}, 0, stream, p, ranks, ranks + p.pairs);
}

void preference_loss_backward(const PreferenceLossBackward& p, Stream stream) {
  if (p.pairs == 0) return;
  check(p);
  launch(rewards_backward_kernel, {blocks(p.pairs)}, {kThreads}, 0, stream, p);
  if (p.grad_loss == nullptr) return;
  launch(loss_backward_kernel, {blocks(p.pairs)}, {kThreads}, 0, stream, p);
}

}  // namespace suder::cuda

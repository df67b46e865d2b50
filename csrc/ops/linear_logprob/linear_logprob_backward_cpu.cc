// The backward pass, one block of the vocabulary and one chunk of the tokens at a time:
//   1. the logits again, and from them their gradient G [vocabulary, tokens]
//   2. G packed as the left operand of both products
//   3. grad_hidden += G^T weight,  grad_weight += G hidden
// Each step is a parallel loop over independent pieces, and every sum runs in one fixed order.
#include "ops/linear_logprob/hidden_gradient.h"
#include "ops/linear_logprob/logit_gradient.h"
#include "ops/linear_logprob/weight_gradient.h"

namespace suder::SUDER_ISA {
namespace {

template <class T>
class Backward {
 public:
  explicit Backward(const LinearLogprobBackward& params)
      : p_(params),
        threads_(static_cast<int>(larger(1, params.threads))),
        block_(BackwardBlock::of<T>(params.hidden.rows, params.hidden.cols, params.weight.rows)),
        gradient_(params, block_),
        hidden_(params, block_),
        weight_(params, block_),
        scratch_(threads_ * TileScratch::kSize) {}

  void run();

 private:
  void run_block();

  const LinearLogprobBackward& p_;
  const int threads_;
  BackwardBlock block_;
  LogitGradient<T> gradient_;
  HiddenGradient<T> hidden_;
  WeightGradient<T> weight_;
  const cpu::Workspace scratch_;
};

template <class T>
void Backward<T>::run_block() {
  gradient_.make(threads_, scratch_.data());
  const std::int64_t panels = ceil_div(block_.rows, kRows);
  cpu::parallel_for(threads_, panels + hidden_.pack_tasks(), [&](std::int64_t task, int) {
    if (task >= panels) return hidden_.pack(gradient_.matrix(), task - panels);
    if (p_.grad_bias != nullptr) gradient_.bias().sum(task);
    weight_.pack(gradient_.matrix(), task);
  });
  const std::int64_t hidden_tasks = hidden_.tasks();
  cpu::parallel_for(threads_, hidden_tasks + weight_.tasks(), [&](std::int64_t task, int thread) {
    if (task < hidden_tasks) return hidden_.multiply(task);
    weight_.multiply(task - hidden_tasks, scratch_.data() + thread * TileScratch::kSize);
  });
}

template <class T>
void Backward<T>::run() {
  BackwardBlock& b = block_;
  for (b.first_row = 0; b.first_row < p_.weight.rows; b.first_row += b.max_rows) {
    b.rows = smaller(b.max_rows, p_.weight.rows - b.first_row);
    hidden_.pack_weight(threads_);
    for (b.first_token = 0; b.first_token < p_.hidden.rows; b.first_token += b.max_tokens) {
      b.tokens = smaller(b.max_tokens, p_.hidden.rows - b.first_token);
      if (!b.one_chunk || b.first_row == 0) {
        gradient_.pack_tokens(threads_);
        weight_.pack_hidden(threads_);
      }
      run_block();
    }
  }
  hidden_.finish(threads_);
}

// The gradients of a sum over no tokens.
template <class T>
void store_zeros(const LinearLogprobBackward& p) {
  for (std::int64_t v = 0; v < p.weight.rows; ++v) {
    if (p.grad_bias != nullptr) static_cast<T*>(p.grad_bias)[v] = from_float<T>(0.0f);
    if (p.grad_weight.data == nullptr) continue;
    T* row = static_cast<T*>(p.grad_weight.data) + v * p.grad_weight.stride;
    for (std::int64_t d = 0; d < p.weight.cols; ++d) row[d] = from_float<T>(0.0f);
  }
}

}  // namespace

void linear_logprob_backward_cpu(const LinearLogprobBackward& params) {
  dispatch_dtype(params.dtype, [&]<class T>() {
    if (params.hidden.rows == 0) {
      if (params.add) return;
      return params.float32_gradients ? store_zeros<float>(params) : store_zeros<T>(params);
    }
    Backward<T>(params).run();
  });
}

}  // namespace suder::SUDER_ISA

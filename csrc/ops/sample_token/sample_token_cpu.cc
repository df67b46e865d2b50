#include "common/dtype.h"
#include "cpu/workspace.h"
#include "ops/sample_token/cut_row.h"

namespace suder::SUDER_ISA {
namespace {

template <class T>
void sample(const SampleToken& p) {
  const std::int64_t rows = p.logits.rows, vocab = p.logits.cols;
  const bool cut = p.top_p < 1.0 || (p.top_k > 0 && p.top_k < vocab);
  const int threads = p.threads > 1 ? p.threads : 1;
  const std::int64_t room_of_one = cut ? cut_scratch(vocab) : whole_scratch(vocab);
  const cpu::Workspace scratch(threads * room_of_one);
  const std::int64_t per_task = vocab < kTaskLogits ? kTaskLogits / vocab : 1;
  cpu::parallel_for(threads, (rows + per_task - 1) / per_task, [&](std::int64_t task, int thread) {
    for (std::int64_t row = task * per_task; row < rows && row < (task + 1) * per_task; ++row) {
      const T* logits = static_cast<const T*>(p.logits.data) + row * p.logits.stride;
      const double* uniform = p.uniform == nullptr ? nullptr : p.uniform + row;
      float* room = scratch.data() + thread * room_of_one;
      write(p, row,
            cut ? draw_from_cut_row(logits, vocab, p.temperature, p, uniform, room)
                : draw_from_row(logits, vocab, p.temperature, uniform,
                                reinterpret_cast<double*>(room)));
    }
  });
}

}  // namespace

void sample_token_cpu(const SampleToken& params) {
  if (params.logits.rows == 0) return;
  dispatch_dtype(params.dtype, [&]<class T>() { sample<T>(params); });
}

}  // namespace suder::SUDER_ISA

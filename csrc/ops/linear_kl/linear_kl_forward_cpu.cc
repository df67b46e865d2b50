// The forward pass: every thread takes (some vocabulary) x (some tokens), a tile of both sides'
// logits at a time.
#include "ops/linear_kl/head_tiles.h"
#include "ops/linear_kl/tile_kl.h"
#include "suder/linear_kl.h"

namespace suder::SUDER_ISA {
namespace {

template <class T>
class KlForward {
 public:
  explicit KlForward(const LinearKlForward& params)
      : p_(params),
        tokens_(params.policy.hidden.rows),
        vocab_(params.policy.weight.rows),
        part_rows_(part_rows(vocab_)),
        parts_(ceil_div(vocab_, part_rows_)),
        chunk_(smaller(
            chunk_tokens<T>(larger(params.policy.hidden.cols, params.reference.hidden.cols)),
            round_up(tokens_, kColumns))),
        policy_(params.policy, chunk_, params.logits, params.logits_size),
        reference_(params.reference, chunk_,
                   params.logits == nullptr ? nullptr : params.logits + params.logits_size,
                   params.logits_size) {}

  void run();

 private:
  void run_tile(std::int64_t part, std::int64_t first_panel, float* scratch);
  float* place(const HeadTiles<T>& head, std::int64_t row, std::int64_t first_panel,
               TileScratch tile) const {
    const float* kept = head.kept(row, first_panel);
    return kept == nullptr ? tile.logits() : p_.logits + (kept - p_.logits);
  }
  void finish(std::int64_t token);

  const LinearKlForward& p_;
  const std::int64_t tokens_, vocab_, part_rows_, parts_, chunk_;
  HeadTiles<T> policy_, reference_;
  std::int64_t first_token_ = 0, chunk_end_ = 0;
  OnlineKl* partial_ = nullptr;  // [token of the chunk][part]
};

template <class T>
void KlForward<T>::run_tile(std::int64_t part, std::int64_t first_panel, float* scratch) {
  const TileScratch tile{scratch}, ref_tile{scratch + TileScratch::kSize};
  const std::int64_t begin = part * part_rows_, end = smaller(begin + part_rows_, vocab_);
  const std::int64_t first = first_panel * kColumns;
  const std::int64_t tokens = smaller(kTilePanels * kColumns, chunk_end_ - first_token_ - first);
  VectorKl states[kTilePanels * kVectors];
  for (std::int64_t row = begin; row < end; row += kTileRows) {
    const std::int64_t rows = smaller(kTileRows, end - row);
    float* logits = place(policy_, row, first_panel, tile);
    float* ref_logits = place(reference_, row, first_panel, ref_tile);
    policy_.multiply(row, rows, first_panel, tile, logits);
    reference_.multiply(row, rows, first_panel, ref_tile, ref_logits);
    for (std::int64_t t = 0; t < tokens; t += kWidth) {
      VectorKl& state = states[t / kWidth];
      float *column = column_of(logits, t), *ref_column = column_of(ref_logits, t);
      const Vec highest = policy_.finish(rows, tile, column, state.max);
      const Vec ref_highest = reference_.finish(rows, ref_tile, ref_column, state.ref_max);
      reduce_column(rows, column, ref_column, highest, ref_highest, state);
    }
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    partial_[(first + t) * parts_ + part] = states[t / kWidth].lane(static_cast<int>(t % kWidth));
  }
}

template <class T>
void KlForward<T>::finish(std::int64_t token) {
  OnlineKl all = partial_[token * parts_];
  for (std::int64_t part = 1; part < parts_; ++part) {
    all = merge(all, partial_[token * parts_ + part]);
  }
  const std::int64_t row = first_token_ + token;
  const bool ignored = p_.policy.target[row] == p_.policy.ignore_index;
  p_.kl[row] = ignored ? 0.0f : divergence(all);
  if (p_.state == nullptr) return;
  float* state = p_.state + row * kKlStateFloats;
  const float values[] = {all.max, std::log(all.sum), all.ref_max, std::log(all.ref_sum)};
  for (int i = 0; i < kKlStateFloats; ++i) state[i] = ignored ? 0.0f : values[i];
}

template <class T>
void KlForward<T>::run() {
  const int threads = static_cast<int>(larger(1, p_.policy.threads));
  const cpu::Workspace scratch(threads * 2 * TileScratch::kSize);
  const cpu::Workspace partial(chunk_ * parts_ * (sizeof(OnlineKl) / sizeof(float)));
  partial_ = reinterpret_cast<OnlineKl*>(partial.data());
  for (first_token_ = 0; first_token_ < tokens_; first_token_ += chunk_) {
    chunk_end_ = smaller(first_token_ + chunk_, tokens_);
    const std::int64_t tokens = chunk_end_ - first_token_;
    policy_.pack(threads, first_token_, tokens);
    reference_.pack(threads, first_token_, tokens);
    const std::int64_t blocks = ceil_div(tokens, kTilePanels * kColumns);
    cpu::parallel_for(threads, parts_ * blocks, [&](std::int64_t task, int thread) {
      run_tile(task / blocks, task % blocks * kTilePanels,
               scratch.data() + thread * 2 * TileScratch::kSize);
    });
    cpu::parallel_for(threads, ceil_div(tokens, 64), [&](std::int64_t task, int) {
      const std::int64_t end = smaller(tokens, task * 64 + 64);
      for (std::int64_t token = task * 64; token < end; ++token) finish(token);
    });
  }
}

}  // namespace

void linear_kl_forward_cpu(const LinearKlForward& params) {
  if (params.policy.hidden.rows == 0) return;
  dispatch_dtype(params.policy.dtype, [&]<class T>() { KlForward<T>(params).run(); });
}

}  // namespace suder::SUDER_ISA

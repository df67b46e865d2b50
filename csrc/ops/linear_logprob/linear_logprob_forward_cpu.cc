// The forward pass: every thread takes (some vocabulary) x (some tokens), and never holds more
// logits than a tile.
#include "common/online_lse.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/linear_logprob/logit_products.h"
#include "ops/linear_logprob/tile_lse.h"

namespace suder::SUDER_ISA {
namespace {

struct Best {
  float logit;
  std::int32_t row;
};

template <class T>
class Forward {
 public:
  explicit Forward(const LinearLogprobForward& params)
      : p_(params),
        map_(LogitMap::of<T>(params)),
        part_rows_(part_rows(params.weight.rows)),
        parts_(ceil_div(params.weight.rows, part_rows_)),
        kept_(KeptLogits::of(params.logits, params.logits_size, params.hidden.rows)) {}

  void run();

 private:
  void run_tile(std::int64_t part, std::int64_t first_panel, float* scratch);
  void reduce_tile(std::int64_t first_row, std::int64_t rows, std::int64_t first_panel,
                   std::int64_t panels, const float* bias, float* logits, VectorLse* states,
                   VectorBest* best, float* chosen);
  void finish(std::int64_t token);

  const LinearLogprobForward& p_;
  const LogitMap map_;
  const std::int64_t part_rows_, parts_;
  const KeptLogits kept_;
  PackedTokens<T> packed_{};
  std::int64_t first_token_ = 0;
  OnlineLse* partial_ = nullptr;  // [token of the chunk][part]
  float* chosen_ = nullptr;       // [token of the chunk]: the logit of its target
  Best* best_ = nullptr;          // [token of the chunk][part], or absent
};

template <class T>
void Forward<T>::reduce_tile(std::int64_t first_row, std::int64_t rows, std::int64_t first_panel,
                             std::int64_t panels, const float* bias, float* logits,
                             VectorLse* states, VectorBest* best, float* chosen) {
  const bool capped = map_.softcap > 0.0f, entropy = p_.entropy != nullptr;
  const auto reduce = capped ? (entropy ? reduce_column<true, true> : reduce_column<true, false>)
                             : (entropy ? reduce_column<false, true> : reduce_column<false, false>);
  const std::int64_t tokens = smaller(panels * kColumns, packed_.tokens - first_panel * kColumns);
  for (std::int64_t t = 0; t < tokens; t += kWidth) {
    reduce(map_, bias, rows, column_of(logits, t), states[t / kWidth]);
    if (best_ != nullptr) best_of_column(column_of(logits, t), first_row, rows, best[t / kWidth]);
  }
  const std::int64_t* target = p_.target + first_token_ + first_panel * kColumns;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int64_t row = target[t] - first_row;
    if (row < 0 || row >= rows || target[t] == p_.ignore_index) continue;
    chosen[t] = column_of(logits, t)[row * kColumns];
  }
}

template <class T>
void Forward<T>::run_tile(std::int64_t part, std::int64_t first_panel, float* scratch) {
  const TileScratch tile{scratch};
  const std::int64_t panels = smaller(kTilePanels, packed_.panels() - first_panel);
  const std::int64_t begin = part * part_rows_;
  const std::int64_t end = smaller(begin + part_rows_, p_.weight.rows);
  VectorLse states[kTilePanels * kVectors];
  for (VectorLse& state : states) state = {broadcast(-INFINITY), Vec{}, Vec{}};
  VectorBest best[kTilePanels * kVectors];
  for (VectorBest& each : best) each = {broadcast(-INFINITY), IntVec{}};
  float* chosen = chosen_ + first_panel * kColumns;
  for (std::int64_t row = begin; row < end; row += kTileRows) {
    const std::int64_t rows = smaller(kTileRows, end - row);
    load_tile_bias<T>(p_, map_, row, rows, tile.bias());
    const float* kept = kept_.tile(row, first_token_ + first_panel * kColumns);
    float* logits = kept == nullptr ? tile.logits() : p_.logits + (kept - kept_.data);
    multiply_logits<T>(p_, packed_, row, rows, first_panel, panels, tile.weight(), logits);
    reduce_tile(row, rows, first_panel, panels, tile.bias(), logits, states, best, chosen);
  }
  const std::int64_t tokens = smaller(panels * kColumns, packed_.tokens - first_panel * kColumns);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const VectorLse& state = states[t / kWidth];
    const int lane = static_cast<int>(t % kWidth);
    partial_[(first_panel * kColumns + t) * parts_ + part] = {state.max[lane], state.sum[lane],
                                                              state.weighted[lane]};
    if (best_ == nullptr) continue;
    const VectorBest& each = best[t / kWidth];
    best_[(first_panel * kColumns + t) * parts_ + part] = {each.logit[lane], each.row[lane]};
  }
}

template <class T>
void Forward<T>::finish(std::int64_t token) {
  OnlineLse all = partial_[token * parts_];
  for (std::int64_t part = 1; part < parts_; ++part) {
    all = merge(all, partial_[token * parts_ + part]);
  }
  const std::int64_t row = first_token_ + token;
  if (p_.partial != nullptr) {
    const double shift = static_cast<double>(map_.bias_shift) * map_.inverse_temperature;
    double* partial = p_.partial + row * 4;
    partial[0] = all.max + shift;
    partial[1] = all.sum;
    partial[2] = all.weighted;
    partial[3] = chosen_[token] + shift;
  }
  const bool ignored = p_.target[row] == p_.ignore_index;
  if (p_.lse != nullptr) p_.lse[row] = ignored ? 0.0f : lse(all) + map_.lse_shift();
  p_.logprob[row] = ignored ? 0.0f : log_probability(chosen_[token], all);
  if (p_.entropy != nullptr) p_.entropy[row] = ignored ? 0.0f : entropy(all);
  if (best_ == nullptr) return;
  Best best{-INFINITY, 0};
  for (std::int64_t part = 0; part < parts_; ++part) {
    const Best& other = best_[token * parts_ + part];
    if (other.logit > best.logit) best = other;
  }
  p_.argmax[row] = ignored ? 0 : best.row;
}

template <class T>
void Forward<T>::run() {
  const std::int64_t chunk =
      smaller(chunk_tokens<T>(p_.hidden.cols), round_up(p_.hidden.rows, kColumns));
  packed_ = {p_.hidden.cols, chunk, nullptr};
  const int threads = static_cast<int>(larger(1, p_.threads));
  const cpu::Workspace packed(packed_.size());
  const cpu::Workspace scratch(threads * TileScratch::kSize);
  const cpu::Workspace partial(chunk * parts_ * (sizeof(OnlineLse) / sizeof(float)));
  const cpu::Workspace chosen(chunk);
  const cpu::Workspace best(p_.argmax == nullptr ? 0 : chunk * parts_ * 2);
  packed_.data = packed.data();
  partial_ = reinterpret_cast<OnlineLse*>(partial.data());
  chosen_ = chosen.data();
  if (p_.argmax != nullptr) best_ = reinterpret_cast<Best*>(best.data());
  for (first_token_ = 0; first_token_ < p_.hidden.rows; first_token_ += chunk) {
    packed_.tokens = smaller(chunk, p_.hidden.rows - first_token_);
    cpu::parallel_for(threads, packed_.panels(), [&](std::int64_t panel, int) {
      packed_.pack(p_.hidden, first_token_, panel);
    });
    const std::int64_t blocks = ceil_div(packed_.panels(), kTilePanels);
    cpu::parallel_for(threads, parts_ * blocks, [&](std::int64_t task, int thread) {
      run_tile(task / blocks, task % blocks * kTilePanels,
               scratch.data() + thread * TileScratch::kSize);
    });
    cpu::parallel_for(threads, ceil_div(packed_.tokens, 64), [&](std::int64_t task, int) {
      const std::int64_t end = smaller(packed_.tokens, task * 64 + 64);
      for (std::int64_t token = task * 64; token < end; ++token) finish(token);
    });
  }
}

}  // namespace

void linear_logprob_forward_cpu(const LinearLogprobForward& params) {
  if (params.hidden.rows == 0) return;
  dispatch_dtype(params.dtype, [&]<class T>() { Forward<T>(params).run(); });
}

}  // namespace suder::SUDER_ISA

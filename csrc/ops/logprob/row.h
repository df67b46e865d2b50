// What forward and backward share: a row of logits, read once, a few vectors at a time.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/online_lse.h"
#include "cpu/parallel.h"
#include "cpu/vec_math.h"
#include "suder/logprob.h"

namespace suder {
inline namespace SUDER_ISA {

inline constexpr int kGroup = 4;  // vectors whose exponentials are computed together
inline constexpr int kGroupLogits = kGroup * kWidth;
// Threads take this many logits at a time; a call with fewer is not worth waking one.
inline constexpr std::int64_t kTaskLogits = 1 << 16;
// exp() of this is 0, and 0 times this is 0, which 0 times -inf is not.
inline constexpr float kNegligible = -105.0f;

// Calls body(row) for every row.
template <class F>
void for_each_row(const Logprob& p, F&& body) {
  const std::int64_t rows = p.logits.rows, width = p.logits.cols > 0 ? p.logits.cols : 1;
  const std::int64_t per_task = width < kTaskLogits ? kTaskLogits / width : 1;
  cpu::parallel_for(p.threads, (rows + per_task - 1) / per_task, [&](std::int64_t task, int) {
    const std::int64_t begin = task * per_task, end = begin + per_task;
    for (std::int64_t row = begin; row < (end < rows ? end : rows); ++row) body(row);
  });
}

template <bool kSoftcap>
Vec capped(Vec logit, float softcap) {
  return kSoftcap ? tanh(logit * (1.0f / softcap)) * softcap : logit;
}

// The first `count` logits of a vector, softcapped; the lanes beyond are -inf.
template <bool kSoftcap, class T>
Vec capped_some(const T* row, std::int64_t count, float softcap) {
  if (count >= kWidth) return capped<kSoftcap>(load_floats(row), softcap);
  T some[kWidth] = {};
  IntVec beyond{};
  for (int i = 0; i < kWidth; ++i) {
    if (i < count) {
      some[i] = row[i];
    } else {
      beyond[i] = -1;
    }
  }
  return beyond != 0 ? broadcast(-INFINITY) : capped<kSoftcap>(load_floats(some), softcap);
}

// Calls body(first, logits) for kGroup vectors of softcapped logits after another.
template <bool kSoftcap, class T, class F>
[[gnu::always_inline]] inline void for_each_group(const T* row, std::int64_t vocab, float softcap,
                                                  F&& body) {
  std::int64_t first = 0;
  Vec x[kGroup];
  for (; first + kGroupLogits <= vocab; first += kGroupLogits) {
    for (int j = 0; j < kGroup; ++j) {
      x[j] = capped<kSoftcap>(load_floats(row + first + j * kWidth), softcap);
    }
    body(first, x);
  }
  if (first == vocab) return;
  for (int j = 0; j < kGroup; ++j) {
    const std::int64_t begin = first + j * kWidth;
    x[j] = begin < vocab ? capped_some<kSoftcap>(row + begin, vocab - begin, softcap)
                         : broadcast(-INFINITY);
  }
  body(first, x);
}

// The log-sum-exp of a row of logits, with its maximum as the origin: under a large common offset
// only differences of logits keep their digits.
struct RowLse {
  OnlineLse state;  // of (logit - origin) / temperature
  float origin;
};

// Exponentials are taken relative to a `base` that follows the running maximum but loosely: to be
// up to kSlack above it costs no digits, and it seldom has to move. They add up in blocks, whose
// sums then do: a chain of additions as long as the row would lose digits.
template <bool kEntropy>
class RowSum {
 public:
  explicit RowSum(float temperature)
      : temperature_(temperature), inverse_(broadcast(1.0f / temperature)) {}

  [[gnu::always_inline]] void add(const Vec (&logits)[kGroup]) {
    for (const Vec& x : logits) highest_ = max(x, highest_);  // may pass over NaN; the sum will not
    if (any_greater(highest_, limit_)) move();
    Vec d[kGroup], e[kGroup];
    for (int j = 0; j < kGroup; ++j) d[j] = e[j] = (logits[j] - base_) * inverse_;
    exp(e);
    for (int j = 0; j < kGroup; ++j) {
      block_.sum += e[j];
      if constexpr (kEntropy) {
        block_.weighted = fma(e[j], max(broadcast(kNegligible), d[j]), block_.weighted);
      }
    }
    if (++groups_ % kBlockGroups == 0) end_block();
  }

  RowLse result() {
    end_block();
    const float highest = horizontal_max(highest_);
    Sums<float> sums{horizontal_sum(row_.sum), horizontal_sum(row_.weighted)};
    if (moved_) sums.shift((base_[0] - highest) * inverse_[0]);
    return {{0.0f, sums.sum, sums.weighted}, highest};
  }

 private:
  static constexpr float kSlack = 2.0f;
  static constexpr int kBlockGroups = 64;

  template <class V>
  struct Sums {
    V sum, weighted;
    void shift(float by) {
      const float scale = std::exp(by);
      weighted = (weighted + sum * by) * scale;
      sum = sum * scale;
    }
  };

  [[gnu::always_inline]] void end_block() {
    row_ = {row_.sum + block_.sum, row_.weighted + block_.weighted};
    block_ = {Vec{}, Vec{}};
  }

  [[gnu::always_inline]] void move() {
    const float base = horizontal_max(highest_);
    // Before the first finite logit sums are 0 or NaN, which no scale changes.
    if (moved_) {
      end_block();
      row_.shift((base_[0] - base) * inverse_[0]);
    }
    base_ = broadcast(base);
    limit_ = broadcast(base + kSlack * temperature_);
    moved_ = true;
  }

  const float temperature_;
  const Vec inverse_;
  Vec highest_ = broadcast(-INFINITY), limit_ = highest_, base_{};
  Sums<Vec> block_{}, row_{};
  int groups_ = 0;
  bool moved_ = false;
};

template <bool kSoftcap, bool kEntropy, class T>
RowLse row_lse(const Logprob& p, const T* row) {
  RowSum<kEntropy> sum(p.temperature);
  for_each_group<kSoftcap>(row, p.logits.cols, p.softcap,
                           [&](std::int64_t, const Vec(&logits)[kGroup]) { sum.add(logits); });
  return sum.result();
}

}  // namespace SUDER_ISA
}  // namespace suder

// What forward and backward share: a row of logits, read in blocks that stay in the first cache.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/online_lse.h"
#include "cpu/parallel.h"
#include "cpu/vec_math.h"
#include "suder/logprob.h"

namespace suder {
inline namespace SUDER_ISA {

inline constexpr std::int64_t kBlockLogits = 1024;
inline constexpr int kGroup = 4;  // vectors whose exponentials are computed together
// Threads take this many logits at a time; a call with fewer is not worth waking one.
inline constexpr std::int64_t kTaskLogits = 1 << 16;
// exp() of anything lower is 0, and 0 times this is 0, which 0 times -inf is not.
inline constexpr float kNegligible = -100.0f;

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

// One block as float32, softcapped, with the last group of vectors filled up by -inf.
struct Block {
  alignas(64) float logit[kBlockLogits];
  std::int64_t first, size;
  float highest;  // a NaN may be passed over

  template <bool kSoftcap, class T>
  void load_from(const T* row, std::int64_t begin, std::int64_t vocab, float softcap) {
    first = begin;
    size = vocab - begin < kBlockLogits ? vocab - begin : kBlockLogits;
    const T* source = row + begin;
    const float inverse = kSoftcap ? 1.0f / softcap : 0.0f;
    const auto cap = [&](Vec x) { return kSoftcap ? tanh(x * inverse) * softcap : x; };
    Vec high = broadcast(-INFINITY);
    std::int64_t i = 0;
    for (; i + kWidth <= size; i += kWidth) {
      const Vec x = cap(load_floats(source + i));
      store(logit + i, x);
      high = max(x, high);
    }
    if (i < size) {
      T tail[kWidth] = {};
      for (std::int64_t j = i; j < size; ++j) tail[j - i] = source[j];
      store(logit + i, cap(load_floats(tail)));
    }
    for (std::int64_t j = size; j % (kGroup * kWidth) != 0; ++j) logit[j] = -INFINITY;
    if (i < size) high = max(load(logit + i), high);
    highest = -INFINITY;
    for (int lane = 0; lane < kWidth; ++lane) highest = high[lane] > highest ? high[lane] : highest;
  }

  bool holds(std::int64_t index) const { return index >= first && index < first + size; }

  // The log-sum-exp of (logit - origin) * inverse_temperature. NaN may slip through the maximum,
  // but not through the sum.
  template <bool kEntropy>
  OnlineLse summarise(float origin, float inverse_temperature) const {
    const float from = highest == -INFINITY ? 0.0f : highest;
    const Vec negligible = broadcast(kNegligible);
    Vec sum{}, weighted{};
    for (std::int64_t i = 0; i < size; i += kGroup * kWidth) {
      Vec d[kGroup], e[kGroup];
      for (int j = 0; j < kGroup; ++j) {
        d[j] = e[j] = (load(logit + i + j * kWidth) - from) * inverse_temperature;
      }
      exp(e);
      for (int j = 0; j < kGroup; ++j) {
        sum += e[j];
        if constexpr (kEntropy) weighted = fma(e[j], max(negligible, d[j]), weighted);
      }
    }
    return {(highest - origin) * inverse_temperature, horizontal_sum(sum),
            kEntropy ? horizontal_sum(weighted) : 0.0f};
  }
};

// The log-sum-exp of a whole row, relative to `origin`, a logit of about the size of the largest:
// with a large common offset, only differences of logits keep their digits.
struct RowLse {
  OnlineLse state;
  float origin = 0.0f;
  float target_logit = NAN;
};

template <bool kSoftcap, bool kEntropy, class T>
RowLse row_lse(const Logprob& p, const T* row, std::int64_t target) {
  const float inverse_temperature = 1.0f / p.temperature;
  RowLse result;
  Block block;
  bool anchored = false;
  for (std::int64_t begin = 0; begin < p.logits.cols; begin += kBlockLogits) {
    block.load_from<kSoftcap>(row, begin, p.logits.cols, p.softcap);
    if (!anchored && std::isfinite(block.highest)) {  // no finite logit before: nothing to shift
      result.origin = block.highest;
      anchored = true;
    }
    result.state =
        merge(result.state, block.summarise<kEntropy>(result.origin, inverse_temperature));
    if (block.holds(target)) result.target_logit = block.logit[target - begin];
  }
  return result;
}

}  // namespace SUDER_ISA
}  // namespace suder

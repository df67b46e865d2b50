// How the fused kernels divide tokens and vocabulary among blocks, and what they ask of operands.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <limits>
#include <stdexcept>

#include "cuda/vec.cuh"
#include "suder/types.h"

namespace suder::cuda {

inline constexpr int kTileColumns = 256;
// Enough splits to fill a card with the tokens of one image; and how many blocks of tokens share a
// split's weights in L2.
inline constexpr std::int64_t kMostSplits = 128, kRowGroup = 16;

// The parts of the vocabulary: tiles in all, tiles of each part, parts.
struct Splits {
  std::int64_t tiles, tiles_each, count;
};

inline Splits splits_of(std::int64_t vocab) {
  const std::int64_t tiles = (vocab + kTileColumns - 1) / kTileColumns;
  const std::int64_t each = (tiles + kMostSplits - 1) / kMostSplits;
  return {tiles, each, (tiles + each - 1) / each};
}

// What a block computes in one go: the mainloop's kRows tokens, and tiles of one split.
struct BlockPart {
  std::int64_t first_row;
  int split, first_tile, end_tile;
};

// A part for every cluster of row blocks and split.
struct BlockParts {
  Splits splits;
  std::int64_t row_clusters, full_row_clusters;

  template <typename Mainloop>
  static BlockParts of(std::int64_t tokens, std::int64_t vocab) {
    static_assert(kTileColumns % Mainloop::kColumns == 0);
    constexpr std::int64_t rows = Mainloop::kCluster * Mainloop::kRows;
    const BlockParts parts = {splits_of(vocab), (tokens + rows - 1) / rows, tokens / rows};
    constexpr std::int64_t most = std::numeric_limits<int>::max();
    if (parts.count() > most || parts.splits.tiles > most) {
      throw std::invalid_argument("fused kernels: more than 2^31 parts or tiles");
    }
    return parts;
  }

  __host__ __device__ std::int64_t count() const { return row_clusters * splits.count; }

  // What the cluster's block `rank` does of a part; its rows may all lie past the end. Parts
  // computed at the same time share splits: row clusters of one group first, then splits, then
  // groups. A last cluster that is not full comes after all others: its parts may take half of the
  // time (wgmma_mainloop.cuh), and a wave of short ones ends sooner than short ones in every wave.
  // In 32 bits: a division of 64 is a call, with registers of its own.
  template <typename Mainloop>
  __device__ BlockPart part(std::int64_t index, int rank) const {
    constexpr unsigned most_rows = kRowGroup / Mainloop::kCluster;
    const auto count = static_cast<unsigned>(splits.count);
    const unsigned group = static_cast<unsigned>(index) / (most_rows * count);
    const unsigned within = static_cast<unsigned>(index) % (most_rows * count);
    const auto full = static_cast<unsigned>(full_row_clusters);
    const unsigned left = full - group * most_rows,
                   group_rows = left < most_rows ? left : most_rows;
    const bool last = static_cast<unsigned>(index) >= full * count;
    const unsigned row_cluster = last ? full : group * most_rows + within % group_rows;
    const unsigned split = last ? static_cast<unsigned>(index) - full * count : within / group_rows;
    const int first_tile = static_cast<int>(split * static_cast<unsigned>(splits.tiles_each));
    const int end_tile = first_tile + static_cast<int>(splits.tiles_each);
    const int tiles = static_cast<int>(splits.tiles);
    return {(std::int64_t{row_cluster} * Mainloop::kCluster + rank) * Mainloop::kRows,
            static_cast<int>(split), first_tile, end_tile < tiles ? end_tile : tiles};
  }
};

// A bias in float32 or in the operands' type, or absent.
struct Bias {
  const void* data;
  bool wide;  // float32

  static Bias of(const void* data, DType dtype, DType operands) {
    if (data != nullptr && dtype != DType::kFloat32 && dtype != operands) {
      throw std::invalid_argument("fused kernels: the bias is float32 or of the operands' type");
    }
    return {data, dtype == DType::kFloat32};
  }
};

// Calls f.operator()<T>() with the device type of operands for tensor cores.
template <typename F>
void dispatch_operands(DType dtype, F&& f) {
  if (dtype == DType::kBFloat16) return f.template operator()<__nv_bfloat16>();
  if (dtype == DType::kFloat16) return f.template operator()<__half>();
  throw std::invalid_argument("fused kernels: tensor cores take 16-bit inputs");
}

// Of hidden [N, D] and weight [V, D].
template <typename Mainloop, typename T>
typename Mainloop::Operands operands_of(const ConstMatrix& hidden, const ConstMatrix& weight) {
  if (hidden.cols % 8 != 0 || !aligned_rows<T>(hidden.data, hidden.stride) ||
      !aligned_rows<T>(weight.data, weight.stride)) {
    throw std::invalid_argument("fused kernels: rows must be 16-byte aligned, D a multiple of 8");
  }
  return Mainloop::operands(static_cast<const T*>(hidden.data), hidden.stride,
                            static_cast<const T*>(weight.data), weight.stride, hidden.rows,
                            weight.rows, hidden.cols);
}

}  // namespace suder::cuda

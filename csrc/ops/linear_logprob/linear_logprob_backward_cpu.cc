// The backward pass, one block of the vocabulary and one chunk of the tokens at a time:
//   1. the logits again, and from them their gradient G [vocabulary, tokens]
//   2. G packed as the left operand of both products
//   3. grad_hidden += G^T weight,  grad_weight += G hidden
// Each step is a parallel loop over independent pieces, and every sum runs in one fixed order.
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/linear_logprob/gradient_tile.h"

namespace suder::SUDER_ISA {
namespace {

constexpr std::int64_t kTileTokens = kTilePanels * kColumns;
constexpr std::int64_t kGroup = kTilePanels;  // panels of features in one task of step 3
constexpr std::int64_t kPackUnits = 32;  // rows packed in one task, so that they are read in order

// Sizes that keep the workspace under 32 MiB and depend on nothing but D and the type.
struct Blocks {
  std::int64_t rows;  // of the vocabulary
  std::int64_t tokens;

  template <class T>
  static Blocks of(std::int64_t features) {
    const std::int64_t row_bytes = larger(1, features) * 4;
    const std::int64_t token_bytes = larger(1, units<UnitsOf<T>>(features)) * 4;
    const std::int64_t row_tiles = (8 << 20) / (row_bytes * kTileRows);
    const std::int64_t token_tiles = (6 << 20) / (token_bytes * kTileTokens);
    return {larger(1, smaller(8, row_tiles)) * kTileRows,
            larger(1, smaller(4, token_tiles)) * kTileTokens};
  }
};

// Finished sums, rounded to the type of the result.
template <class T>
void store_rounded(const float* sums, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                   T* target, std::int64_t target_stride) {
  for (; rows > 0; --rows, sums += stride, target += target_stride) {
    std::int64_t d = 0;
    for (; d + kWidth <= columns; d += kWidth) store_floats(target + d, load(sums + d));
    for (; d < columns; ++d) target[d] = from_float<T>(sums[d]);
  }
}

template <class T>
class Backward {
 public:
  explicit Backward(const LinearLogprobBackward& params);
  void run();

 private:
  using Units = UnitsOf<T>;
  using Gradient = GradientOf<T>;

  void pack_rows(const ConstMatrix& matrix, std::int64_t first, std::int64_t rows,
                 const std::uint8_t* skip, float* panels);
  void pack_tokens();
  void make_gradients();
  void run_tile(std::int64_t tile_row, std::int64_t block, float* scratch);
  void pack_gradients();
  void sum_bias(std::int64_t panel);
  void multiply();
  void multiply_block(const float* a, std::int64_t first_row, std::int64_t rows, std::int64_t depth,
                      const float* b, std::int64_t group, float* c, std::int64_t c_stride,
                      bool accumulate);
  void multiply_hidden(std::int64_t first, std::int64_t group);
  void multiply_weight(std::int64_t first, std::int64_t group, float* scratch);

  std::int64_t features() const { return p_.hidden.cols; }
  std::int64_t feature_panels() const { return ceil_div(features(), kColumns); }
  bool direct() const { return std::is_same_v<T, float>; }  // sums go straight to the result

  const LinearLogprobBackward& p_;
  const LogitMap map_;
  const Blocks blocks_;
  const bool one_chunk_;
  const int threads_;
  const std::int64_t gradient_stride_;
  PackedTokens<T> packed_;
  std::int64_t first_row_ = 0, rows_ = 0, first_token_ = 0;  // of the block and chunk at hand

  const cpu::Workspace packed_memory_, scratch_, weight_panels_, hidden_panels_, gradients_,
      by_row_, by_token_, weight_sums_, hidden_sums_, bias_parts_, bias_sums_, skip_;
};

template <class T>
Backward<T>::Backward(const LinearLogprobBackward& p)
    : p_(p),
      map_(LogitMap::of<T>(p)),
      blocks_([&] {
        Blocks b = Blocks::of<T>(p.hidden.cols);
        b.rows = smaller(b.rows, round_up(p.weight.rows, kTileRows));
        b.tokens = smaller(b.tokens, round_up(p.hidden.rows, kTileTokens));
        return b;
      }()),
      one_chunk_(p.hidden.rows <= blocks_.tokens),
      threads_(static_cast<int>(larger(1, p.threads))),
      gradient_stride_(blocks_.tokens + kWidth),
      packed_{p.hidden.cols, blocks_.tokens, nullptr},
      packed_memory_(packed_.size()),
      scratch_(threads_ * TileScratch::kSize),
      weight_panels_(feature_panels() * b_panel_size(units<Units>(blocks_.rows))),
      hidden_panels_(feature_panels() * b_panel_size(units<Units>(blocks_.tokens))),
      gradients_(blocks_.rows * gradient_stride_),
      by_row_(ceil_div(blocks_.rows, kRows) * a_panel_size(units<Units>(blocks_.tokens))),
      by_token_(ceil_div(blocks_.tokens, kRows) * a_panel_size(units<Units>(blocks_.rows))),
      weight_sums_(direct() || one_chunk_ ? 0 : blocks_.rows * features()),
      hidden_sums_(direct() ? 0 : p.hidden.rows * features()),
      bias_parts_(ceil_div(blocks_.tokens, kTileTokens) * blocks_.rows),
      bias_sums_(blocks_.rows),
      skip_(ceil_div(blocks_.tokens, 4)) {
  packed_.data = packed_memory_.data();
}

// The B panels [panel][k][kColumns] of rows [first, first + rows).
template <class T>
void Backward<T>::pack_rows(const ConstMatrix& matrix, std::int64_t first, std::int64_t rows,
                            const std::uint8_t* skip, float* panels) {
  const std::int64_t depth = units<Units>(rows);
  cpu::parallel_for(threads_, ceil_div(depth, kPackUnits), [&](std::int64_t task, int) {
    const std::int64_t unit = task * kPackUnits, row = unit * Units::kElements;
    const std::int64_t some = smaller(kPackUnits * Units::kElements, rows - row);
    for (std::int64_t panel = 0; panel < feature_panels(); ++panel) {
      pack_b(row_of<T>(matrix, first + row) + panel * kColumns, matrix.stride,
             features() - panel * kColumns, some, skip == nullptr ? nullptr : skip + row,
             panels + panel * b_panel_size(depth) + unit * kColumns);
    }
  });
}

template <class T>
void Backward<T>::pack_tokens() {
  cpu::parallel_for(threads_, packed_.panels(),
                    [&](std::int64_t panel, int) { packed_.pack(p_.hidden, first_token_, panel); });
  if (p_.grad_weight.data == nullptr) return;
  std::uint8_t* skip = reinterpret_cast<std::uint8_t*>(skip_.data());
  for (std::int64_t t = 0; t < packed_.tokens; ++t) {
    skip[t] = p_.target[first_token_ + t] == p_.ignore_index;
  }
  pack_rows(p_.hidden, first_token_, packed_.tokens, skip, hidden_panels_.data());
}

template <class T>
void Backward<T>::run_tile(std::int64_t tile_row, std::int64_t block, float* scratch) {
  const TileScratch tile{scratch};
  const std::int64_t row = first_row_ + tile_row, first_panel = block * kTilePanels;
  const std::int64_t rows = smaller(kTileRows, rows_ - tile_row);
  const std::int64_t panels = smaller(kTilePanels, packed_.panels() - first_panel);
  load_tile_bias<T>(p_, map_, row, rows, tile.bias());
  multiply_logits<T>(p_, packed_, row, rows, first_panel, panels, tile);

  const bool with_bias = p_.grad_bias != nullptr;
  Vec row_sums[kTileRows] = {};
  const auto differentiate = map_.softcap > 0.0f ? differentiate_column<Gradient, true>
                                                 : differentiate_column<Gradient, false>;
  const std::int64_t first = first_panel * kColumns;
  const std::int64_t tokens = smaller(panels * kColumns, packed_.tokens - first);
  Gradient* gradient =
      reinterpret_cast<Gradient*>(gradients_.data()) + tile_row * gradient_stride_ + first;
  for (std::int64_t t = 0; t < tokens; t += kWidth) {
    const TokenTerms terms = TokenTerms::of(p_, map_, first_token_ + first + t, row);
    differentiate(map_, terms, p_.grad_entropy != nullptr, tile.bias(), rows,
                  tile.logits(t / kColumns) + t % kColumns, gradient + t, gradient_stride_,
                  with_bias ? row_sums : nullptr);
  }
  if (!with_bias) return;
  float* parts = bias_parts_.data() + block * blocks_.rows + tile_row;
  for (std::int64_t i = 0; i < rows; ++i) parts[i] = horizontal_sum(row_sums[i]);
}

template <class T>
void Backward<T>::make_gradients() {
  const std::int64_t blocks = ceil_div(packed_.panels(), kTilePanels);
  cpu::parallel_for(threads_, ceil_div(rows_, kTileRows) * blocks,
                    [&](std::int64_t task, int thread) {
                      run_tile(task / blocks * kTileRows, task % blocks,
                               scratch_.data() + thread * TileScratch::kSize);
                    });
}

// Adds this chunk's part of the bias gradient for the rows of one panel.
template <class T>
void Backward<T>::sum_bias(std::int64_t panel) {
  const std::int64_t blocks = ceil_div(packed_.panels(), kTilePanels);
  const std::int64_t end = smaller(rows_, (panel + 1) * kRows);
  for (std::int64_t i = panel * kRows; i < end; ++i) {
    float sum = first_token_ == 0 ? 0.0f : bias_sums_.data()[i];
    for (std::int64_t b = 0; b < blocks; ++b) sum += bias_parts_.data()[b * blocks_.rows + i];
    bias_sums_.data()[i] = sum;
    static_cast<T*>(p_.grad_bias)[first_row_ + i] = from_float<T>(sum);
  }
}

template <class T>
void Backward<T>::pack_gradients() {
  const Gradient* gradients = reinterpret_cast<const Gradient*>(gradients_.data());
  const std::int64_t row_panels = ceil_div(rows_, kRows);
  const std::int64_t token_panels =
      p_.grad_hidden.data == nullptr ? 0 : ceil_div(packed_.tokens, kRows);
  cpu::parallel_for(threads_, row_panels + token_panels, [&](std::int64_t task, int) {
    if (task >= row_panels) {
      const std::int64_t panel = task - row_panels;
      return pack_a_transposed(gradients + panel * kRows, gradient_stride_, rows_,
                               by_token_.data() + panel * a_panel_size(units<Units>(rows_)));
    }
    if (p_.grad_bias != nullptr) sum_bias(task);
    if (p_.grad_weight.data == nullptr) return;
    pack_a(gradients + task * kRows * gradient_stride_, gradient_stride_,
           smaller(kRows, rows_ - task * kRows), packed_.tokens,
           by_row_.data() + task * a_panel_size(units<Units>(packed_.tokens)));
  });
}

// C (+)= A B for kTileRows rows from first_row on and the features of a group; C begins at both.
template <class T>
void Backward<T>::multiply_block(const float* a, std::int64_t first_row, std::int64_t rows,
                                 std::int64_t depth, const float* b, std::int64_t group, float* c,
                                 std::int64_t c_stride, bool accumulate) {
  const std::int64_t end = smaller(first_row + kTileRows, rows);
  const std::int64_t end_panel = smaller((group + 1) * kGroup, feature_panels());
  for (std::int64_t k = 0; k < depth; k += kBlock) {
    for (std::int64_t i = first_row; i < end; i += kRows) {
      const float* a_panel = a + i / kRows * a_panel_size(depth) + k * kRows;
      float* c_row = c + (i - first_row) * c_stride;
      for (std::int64_t panel = group * kGroup; panel < end_panel; ++panel, c_row += kColumns) {
        multiply_panels<Units>(a_panel, b + panel * b_panel_size(depth) + k * kColumns,
                               smaller(kBlock, depth - k),
                               static_cast<int>(smaller(kRows, end - i)),
                               static_cast<int>(smaller(kColumns, features() - panel * kColumns)),
                               c_row, c_stride, accumulate || k > 0);
      }
    }
  }
}

template <class T>
void Backward<T>::multiply() {
  const std::int64_t groups = ceil_div(feature_panels(), kGroup);
  const std::int64_t hidden_tasks =
      p_.grad_hidden.data == nullptr ? 0 : ceil_div(packed_.tokens, kTileRows) * groups;
  const std::int64_t weight_tasks =
      p_.grad_weight.data == nullptr ? 0 : ceil_div(rows_, kTileRows) * groups;
  cpu::parallel_for(threads_, hidden_tasks + weight_tasks, [&](std::int64_t task, int thread) {
    if (task < hidden_tasks) {
      multiply_hidden(task / groups * kTileRows, task % groups);
    } else {
      multiply_weight((task - hidden_tasks) / groups * kTileRows, (task - hidden_tasks) % groups,
                      scratch_.data() + thread * TileScratch::kSize);
    }
  });
}

template <class T>
void Backward<T>::multiply_hidden(std::int64_t first, std::int64_t group) {
  const std::int64_t stride = direct() ? p_.grad_hidden.stride : features();
  float* sums = direct() ? static_cast<float*>(p_.grad_hidden.data) : hidden_sums_.data();
  multiply_block(
      by_token_.data(), first, packed_.tokens, units<Units>(rows_), weight_panels_.data(), group,
      sums + (first_token_ + first) * stride + group * kGroup * kColumns, stride, first_row_ > 0);
}

template <class T>
void Backward<T>::multiply_weight(std::int64_t first, std::int64_t group, float* scratch) {
  const std::int64_t column = group * kGroup * kColumns;
  const std::int64_t depth = units<Units>(packed_.tokens);
  if (direct()) {
    const std::int64_t stride = p_.grad_weight.stride;
    float* target = static_cast<float*>(p_.grad_weight.data) + (first_row_ + first) * stride;
    return multiply_block(by_row_.data(), first, rows_, depth, hidden_panels_.data(), group,
                          target + column, stride, first_token_ > 0);
  }
  // 16-bit results: sums of all tokens are rounded once, while they are still in this task's cache
  // if one chunk holds all tokens.
  float* sums = one_chunk_ ? scratch : weight_sums_.data() + first * features() + column;
  const std::int64_t stride = one_chunk_ ? kGroup * kColumns : features();
  multiply_block(by_row_.data(), first, rows_, depth, hidden_panels_.data(), group, sums, stride,
                 first_token_ > 0);
  if (first_token_ + packed_.tokens < p_.hidden.rows) return;
  T* target = static_cast<T*>(p_.grad_weight.data) + (first_row_ + first) * p_.grad_weight.stride;
  store_rounded(sums, stride, smaller(kTileRows, rows_ - first),
                smaller(kGroup * kColumns, features() - column), target + column,
                p_.grad_weight.stride);
}

template <class T>
void Backward<T>::run() {
  for (first_row_ = 0; first_row_ < p_.weight.rows; first_row_ += blocks_.rows) {
    rows_ = smaller(blocks_.rows, p_.weight.rows - first_row_);
    if (p_.grad_hidden.data != nullptr) {
      pack_rows(p_.weight, first_row_, rows_, nullptr, weight_panels_.data());
    }
    for (first_token_ = 0; first_token_ < p_.hidden.rows; first_token_ += blocks_.tokens) {
      packed_.tokens = smaller(blocks_.tokens, p_.hidden.rows - first_token_);
      if (!one_chunk_ || first_row_ == 0) pack_tokens();
      make_gradients();
      pack_gradients();
      multiply();
    }
  }
  if (p_.grad_hidden.data == nullptr || direct()) return;
  cpu::parallel_for(threads_, p_.hidden.rows, [&](std::int64_t row, int) {
    T* target = static_cast<T*>(p_.grad_hidden.data) + row * p_.grad_hidden.stride;
    store_rounded(hidden_sums_.data() + row * features(), features(), 1, features(), target, 0);
  });
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
    if (params.hidden.rows == 0) return store_zeros<T>(params);
    Backward<T>(params).run();
  });
}

}  // namespace suder::SUDER_ISA

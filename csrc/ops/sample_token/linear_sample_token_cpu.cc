// From hidden states: the log-sum-exp of every tile of the vocabulary, then, for each token, the
// logits of the one tile that its uniform number falls into once more, with the same bits. What
// top_k and top_p ask for needs whole rows, of as many tokens as the workspace holds.
#include "common/online_lse.h"
#include "cpu/parallel.h"
#include "cpu/workspace.h"
#include "ops/linear_logprob/logit_products.h"
#include "ops/linear_logprob/tile_lse.h"
#include "ops/sample_token/cut_row.h"

namespace suder::SUDER_ISA {
namespace {

constexpr std::int64_t kChunkTokens = kTilePanels * kColumns;  // read the weight once for so many
constexpr std::int64_t kMostRowFloats = 4 << 20;               // of whole rows of logits

template <class T>
class LinearSample {
 public:
  explicit LinearSample(const LinearSampleToken& p)
      : p_(p),
        head_(p.head),
        map_(LogitMap::of<T>(p.head)),
        vocab_(p.head.weight.rows),
        tiles_(ceil_div(vocab_, kTileRows)),
        cut_(p.top_p < 1.0 || (p.top_k > 0 && p.top_k < vocab_)),
        threads_(static_cast<int>(larger(1, p.head.threads))) {}

  void run();

 private:
  std::int64_t chunk_tokens() const {
    const std::int64_t room = cut_ ? larger(1, kMostRowFloats / vocab_) : kChunkTokens;
    return smaller(smaller(room, kChunkTokens), head_.hidden.rows);
  }
  std::int64_t rows_of(std::int64_t tile) const {
    return smaller(kTileRows, vocab_ - tile * kTileRows);
  }
  void multiply(const PackedTokens<T>& tokens, std::int64_t tile, const TileScratch& scratch) const;
  void reduce_tile(std::int64_t tile, const TileScratch& scratch);
  void write_rows(std::int64_t tile, const TileScratch& scratch);
  Drawn draw(std::int64_t token, float* scratch) const;

  const LinearSampleToken& p_;
  const LinearLogprob& head_;
  const LogitMap map_;
  const std::int64_t vocab_, tiles_;
  const bool cut_;
  const int threads_;
  PackedTokens<T> packed_{};
  std::int64_t first_token_ = 0;
  OnlineLse* states_ = nullptr;  // [token of the chunk][tile]
  float* logits_ = nullptr;      // [token of the chunk][V], if they are cut
};

template <class T>
void LinearSample<T>::multiply(const PackedTokens<T>& tokens, std::int64_t tile,
                               const TileScratch& scratch) const {
  const std::int64_t row = tile * kTileRows;
  load_tile_bias<T>(head_, map_, row, rows_of(tile), scratch.bias());
  multiply_logits<T>(head_, tokens, row, rows_of(tile), 0, tokens.panels(), scratch.weight(),
                     scratch.logits());
}

template <class T>
void LinearSample<T>::reduce_tile(std::int64_t tile, const TileScratch& scratch) {
  multiply(packed_, tile, scratch);
  for (std::int64_t t = 0; t < packed_.tokens; t += kWidth) {
    VectorLse state{broadcast(-INFINITY), Vec{}, Vec{}};
    reduce_column<false, true>(map_, scratch.bias(), rows_of(tile), column_of(scratch.logits(), t),
                               state);
    for (int lane = 0; lane < kWidth && t + lane < packed_.tokens; ++lane) {
      states_[(t + lane) * tiles_ + tile] = {state.max[lane], state.sum[lane],
                                             state.weighted[lane]};
    }
  }
}

template <class T>
void LinearSample<T>::write_rows(std::int64_t tile, const TileScratch& scratch) {
  multiply(packed_, tile, scratch);
  for (std::int64_t t = 0; t < packed_.tokens; ++t) {
    const float* column = column_of(scratch.logits(), t);
    float* row = logits_ + t * vocab_ + tile * kTileRows;
    for (std::int64_t i = 0; i < rows_of(tile); ++i) {
      row[i] = (column[i * kColumns] + scratch.bias()[i]) * map_.inverse_temperature;
    }
  }
}

template <class T>
Drawn LinearSample<T>::draw(std::int64_t token, float* scratch) const {
  const OnlineLse* states = states_ + token * tiles_;
  OnlineLse all = states[0];
  for (std::int64_t tile = 1; tile < tiles_; ++tile) all = merge(all, states[tile]);
  if (!(all.sum > 0.0f) || !(all.max < INFINITY)) return kNoDistribution;  // NaN as well
  const double* uniform = p_.uniform == nullptr ? nullptr : p_.uniform + first_token_ + token;
  // First the tile, then the token in it; a tile counts as the sum of its weights.
  const auto weight = [&](float z, double sum) {
    if (uniform == nullptr) return z == all.max ? 1.0 : 0.0;
    return sum * std::exp(static_cast<double>(z) - all.max);
  };
  double total = 0.0;
  for (std::int64_t tile = 0; tile < tiles_; ++tile) {
    total += weight(states[tile].max, states[tile].sum);
  }
  const double level = uniform == nullptr ? 0.0 : *uniform * total;
  Crossing tile_crossing(level);
  double before = 0.0;
  for (std::int64_t tile = 0; tile < tiles_ && !tile_crossing.found(); ++tile) {
    const double sum = weight(states[tile].max, states[tile].sum);
    tile_crossing.add(sum, tile);
    if (!tile_crossing.found()) before += sum;
  }
  const std::int64_t tile = tile_crossing.place();
  const TileScratch room{scratch};
  PackedTokens<T> one{head_.hidden.cols, 1, scratch + TileScratch::kSize};
  one.pack(head_.hidden, first_token_ + token, 0);
  multiply(one, tile, room);
  Crossing crossing(tile_crossing.found() ? level - before : INFINITY);
  for (std::int64_t i = 0; i < rows_of(tile) && !crossing.found(); ++i) {
    float& z = room.logits()[i * kColumns];
    z = (z + room.bias()[i]) * map_.inverse_temperature;
    crossing.add(weight(z, 1.0), i);
  }
  const std::int64_t place = crossing.place();
  return {tile * kTileRows + place, log_probability(room.logits()[place * kColumns], all),
          entropy(all)};
}

template <class T>
void LinearSample<T>::run() {
  const std::int64_t chunk = chunk_tokens();
  packed_ = {head_.hidden.cols, chunk, nullptr};
  const PackedTokens<T> one{head_.hidden.cols, 1, nullptr};
  const std::int64_t tile_scratch = round_up(TileScratch::kSize + one.size(), 16);
  const std::int64_t per_thread = larger(tile_scratch, cut_ ? cut_scratch(vocab_) : 0);
  const cpu::Workspace packed(packed_.size());
  const cpu::Workspace scratch(threads_ * per_thread);
  const cpu::Workspace kept(
      chunk * (cut_ ? vocab_ : tiles_ * static_cast<std::int64_t>(sizeof(OnlineLse) / 4)));
  packed_.data = packed.data();
  states_ = reinterpret_cast<OnlineLse*>(kept.data());
  logits_ = kept.data();
  for (first_token_ = 0; first_token_ < head_.hidden.rows; first_token_ += chunk) {
    packed_.tokens = smaller(chunk, head_.hidden.rows - first_token_);
    cpu::parallel_for(threads_, packed_.panels(), [&](std::int64_t panel, int) {
      packed_.pack(head_.hidden, first_token_, panel);
    });
    cpu::parallel_for(threads_, tiles_, [&](std::int64_t tile, int thread) {
      const TileScratch room{scratch.data() + thread * per_thread};
      cut_ ? write_rows(tile, room) : reduce_tile(tile, room);
    });
    cpu::parallel_for(threads_, packed_.tokens, [&](std::int64_t token, int thread) {
      float* room = scratch.data() + thread * per_thread;
      const std::int64_t row = first_token_ + token;
      const double* uniform = p_.uniform == nullptr ? nullptr : p_.uniform + row;
      write(p_, row,
            cut_ ? draw_from_cut_row(logits_ + token * vocab_, vocab_, 1.0f, p_, uniform, room)
                 : draw(token, room));
    });
  }
}

}  // namespace

void linear_sample_token_cpu(const LinearSampleToken& params) {
  if (params.head.hidden.rows == 0) return;
  dispatch_dtype(params.head.dtype, [&]<class T>() { LinearSample<T>(params).run(); });
}

}  // namespace suder::SUDER_ISA

// The backward pass, one block of the vocabulary and one chunk of the tokens at a time, as that of
// linear_logprob, but of two heads: their logits again, the gradients of those, and the products
// that each side asks for.
#include "ops/linear_kl/kl_side.h"

namespace suder::SUDER_ISA {
namespace {

template <class T>
class KlBackward {
 public:
  explicit KlBackward(const LinearKlBackward& params)
      : p_(params),
        threads_(static_cast<int>(larger(1, params.policy.threads))),
        block_(BackwardBlock::of<T>(params.policy.hidden.rows,
                                    larger(params.policy.hidden.cols, params.reference.hidden.cols),
                                    params.policy.weight.rows)),
        policy_(params.policy, block_),
        reference_(params.reference, block_),
        scratch_(threads_ * 2 * TileScratch::kSize) {}

  void run();

 private:
  float* scratch_of(int thread) const { return scratch_.data() + thread * 2 * TileScratch::kSize; }
  void differentiate(std::int64_t tile_row, std::int64_t token_tile, float* scratch);
  void run_block();

  const LinearKlBackward& p_;
  const int threads_;
  BackwardBlock block_;
  KlSide<T> policy_, reference_;
  const cpu::Workspace scratch_;
};

template <class T>
void KlBackward<T>::differentiate(std::int64_t tile_row, std::int64_t token_tile, float* scratch) {
  const TileScratch tile{scratch}, ref_tile{scratch + TileScratch::kSize};
  const std::int64_t rows = smaller(kTileRows, block_.rows - tile_row);
  const std::int64_t first = token_tile * kTileTokens;
  const std::int64_t tokens = smaller(kTileTokens, block_.tokens - first);
  const float* logits = policy_.logits(tile_row, token_tile, rows, tile);
  const float* ref_logits = reference_.logits(tile_row, token_tile, rows, ref_tile);
  Vec row_sums[kTileRows] = {}, ref_row_sums[kTileRows] = {};
  const LogitMap& map = policy_.map();  // its slope is the reference's, too
  const auto column = map.softcap > 0.0f ? differentiate_kl<GradientOf<T>, true>
                                         : differentiate_kl<GradientOf<T>, false>;
  for (std::int64_t t = 0; t < tokens; t += kWidth) {
    column(map, KlTerms::of(p_, block_.first_token + first + t), rows, column_of(logits, t),
           column_of(ref_logits, t), policy_.column(tile_row, first + t, row_sums),
           reference_.column(tile_row, first + t, ref_row_sums));
  }
  policy_.add_tile(tile_row, token_tile, row_sums, rows);
  reference_.add_tile(tile_row, token_tile, ref_row_sums, rows);
}

template <class T>
void KlBackward<T>::run_block() {
  const std::int64_t tiles = ceil_div(block_.tokens, kTileTokens);
  cpu::parallel_for(threads_, ceil_div(block_.rows, kTileRows) * tiles,
                    [&](std::int64_t task, int thread) {
                      differentiate(task / tiles * kTileRows, task % tiles, scratch_of(thread));
                    });
  const std::int64_t packs = policy_.pack_tasks();
  cpu::parallel_for(threads_, packs + reference_.pack_tasks(), [&](std::int64_t task, int) {
    task < packs ? policy_.pack(task) : reference_.pack(task - packs);
  });
  const std::int64_t products = policy_.tasks();
  cpu::parallel_for(threads_, products + reference_.tasks(), [&](std::int64_t task, int thread) {
    float* scratch = scratch_of(thread);
    task < products ? policy_.multiply(task, scratch)
                    : reference_.multiply(task - products, scratch);
  });
}

template <class T>
void KlBackward<T>::run() {
  BackwardBlock& b = block_;
  for (b.first_row = 0; b.first_row < p_.policy.weight.rows; b.first_row += b.max_rows) {
    b.rows = smaller(b.max_rows, p_.policy.weight.rows - b.first_row);
    policy_.pack_weight(threads_);
    reference_.pack_weight(threads_);
    for (b.first_token = 0; b.first_token < p_.policy.hidden.rows; b.first_token += b.max_tokens) {
      b.tokens = smaller(b.max_tokens, p_.policy.hidden.rows - b.first_token);
      if (!b.one_chunk || b.first_row == 0) {
        policy_.pack_tokens(threads_);
        reference_.pack_tokens(threads_);
      }
      run_block();
    }
  }
  policy_.finish(threads_);
  reference_.finish(threads_);
}

}  // namespace

void linear_kl_backward_cpu(const LinearKlBackward& params) {
  if (params.policy.hidden.rows == 0) return;  // the caller's sums over no tokens
  dispatch_dtype(params.policy.dtype, [&]<class T>() { KlBackward<T>(params).run(); });
}

}  // namespace suder::SUDER_ISA

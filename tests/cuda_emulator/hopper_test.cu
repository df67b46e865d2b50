// The emulator's mbarriers, TMA loads and wgmma: a small pipeline is right, and each way in which
// one can be wrong is caught, or shows in its result.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <vector>

#include "cuda/mbarrier.cuh"
#include "cuda/shared_address.cuh"
#include "cuda/tma.cuh"
#include "cuda/wgmma.cuh"
#include "test_support.h"

namespace {

using namespace suder::cuda;

enum class Bug {
  kNone,
  kNobodyWaitsForCopy,
  kOneThreadWaitsForCopy,
  kWrongParity,
  kLoaderDoesNotWait,
  kReleasedBeforeProductsEnd,
  kOneWarpReleases,
  kTooFewBytes,
  kTooManyBytes,
  kTooManyArrivals,
  kBarriersNotShown,
  kBarriersNotMade,
  kNoFence,
  kSumsUsedEarly,
  kProductsNotWaitedFor,
  kCopyNotWaitedFor,
  kLanesDisagree,
  kOneWarpMissing,
  kWrongStride,
  kWrongSwizzle,
  kWrongStart,
  kMisalignedTile,
};

constexpr int kRows = 64, kColumns = 256, kStage = (kRows + kColumns) * 128;

struct Pipeline {
  TensorMap a, b;
  int steps;
  Bug bug;
};

__device__ std::uint64_t operand(const unsigned char* place, Bug bug) {
  if (bug == Bug::kWrongStart && threadIdx.x < 128) place += 16;
  if (bug == Bug::kLanesDisagree && threadIdx.x == 5) place += 1024;
  return matrix_descriptor(shared_address(place), 16, bug == Bug::kWrongStride ? 512 : 1024,
                           bug == Bug::kWrongSwizzle ? Swizzle::k64Bytes : Swizzle::k128Bytes);
}

__device__ void load(const Pipeline& p, unsigned char* shared, std::uint64_t* full,
                     std::uint64_t* empty, int step) {
  if (p.bug != Bug::kLoaderDoesNotWait) {
    mbarrier_wait(empty, static_cast<unsigned>(step + 1) % 2);
  }
  const int wrong = p.bug == Bug::kTooFewBytes ? -kColumns * 128 : p.bug == Bug::kTooManyBytes;
  mbarrier_arrive_expect(full, static_cast<unsigned>(kStage + wrong));
  tma_load(shared + (p.bug == Bug::kMisalignedTile ? 128 : 0), &p.a, full, 0, step * 64);
  tma_load(shared + kRows * 128, &p.b, full, 0, step * 64);
}

__device__ void wait_for_copy(Bug bug, std::uint64_t* full, int step) {
  if (bug == Bug::kNobodyWaitsForCopy || bug == Bug::kCopyNotWaitedFor) return;
  if (bug == Bug::kOneThreadWaitsForCopy && threadIdx.x != 0) return;
  mbarrier_wait(full, static_cast<unsigned>(step + (bug == Bug::kWrongParity)) % 2);
}

// One warp group, one stage: c = a b for 64 rows, 256 columns.
template <typename T>
__global__ void pipeline(const __grid_constant__ Pipeline p, float* c) {
  unsigned char* shared = dynamic_shared();
  auto* full = reinterpret_cast<std::uint64_t*>(shared + kStage);
  std::uint64_t* empty = full + 1;
  const Bug bug = p.bug;
  if (threadIdx.x == 0 && bug != Bug::kBarriersNotMade) {
    mbarrier_init(full, 1);
    mbarrier_init(empty, bug == Bug::kOneWarpReleases ? 1 : 4);
    mbarrier_fence_init();
  }
  if (bug != Bug::kBarriersNotShown) __syncthreads();
  WgmmaSums sums;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int step = 0; step < p.steps; ++step) {
    if (threadIdx.x == 0) load(p, shared, full, empty, step);
    wait_for_copy(bug, full, step);
    if (bug == Bug::kCopyNotWaitedFor) return;
    const std::uint64_t a = operand(shared, bug), b = operand(shared + kRows * 128, bug);
    if (bug != Bug::kNoFence) wgmma_fence();
    for (unsigned k = 0; k < 128 && !(bug == Bug::kOneWarpMissing && warp == 2); k += 32) {
      wgmma_64x256x16<T>(sums, advance(a, k), advance(b, k), step > 0 || k > 0);
    }
    wgmma_commit();
    if (bug == Bug::kReleasedBeforeProductsEnd && lane == 0) mbarrier_arrive(empty);
    if (bug == Bug::kSumsUsedEarly) c[0] = sums[0][0];
    if (bug == Bug::kProductsNotWaitedFor) return;
    wgmma_wait<0>();
    if (bug == Bug::kReleasedBeforeProductsEnd) continue;
    if (bug == Bug::kTooManyArrivals && threadIdx.x == 1) mbarrier_arrive(empty);
    if (lane == 0 && (warp == 0 || bug != Bug::kOneWarpReleases)) mbarrier_arrive(empty);
  }
  if (bug == Bug::kSumsUsedEarly) return;
  for (unsigned n = 0; n < 32; ++n) {
    for (unsigned i = 0; i < 4; ++i) {
      c[(warp * 16 + lane / 4 + i / 2 * 8) * kColumns + n * 8 + lane % 4 * 2 + i % 2] = sums[n][i];
    }
  }
}

struct Outcome {
  std::string message;
  std::vector<float> c;
  int wrong;  // elements that differ from the product
};

template <typename T, typename Convert>
Outcome run(Convert convert, int rows, int columns, int depth, Bug bug) {
  const int stride = (depth + 7) / 8 * 8 + 8;
  std::vector<T> a(static_cast<std::size_t>(rows * stride), convert(NAN));
  std::vector<T> b(static_cast<std::size_t>(columns * stride), convert(NAN));
  for (int k = 0; k < depth; ++k) {
    for (int i = 0; i < rows; ++i)
      a[static_cast<std::size_t>(i * stride + k)] = convert(value_a(i, k));
    for (int j = 0; j < columns; ++j) {
      b[static_cast<std::size_t>(j * stride + k)] = convert(value_b(j, k));
    }
  }
  const Pipeline p = {tensor_map(a.data(), rows, depth, stride, kRows, 64),
                      tensor_map(b.data(), columns, depth, stride, kColumns, 64), (depth + 63) / 64,
                      bug};
  Outcome outcome = {"", std::vector<float>(kRows * kColumns, -1.0f), 0};
  outcome.message = report(pipeline<T>, {1}, {128}, kStage + 16, p, outcome.c.data());
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kColumns; ++j) {
      float sum = 0;
      for (int k = 0; k < depth && i < rows && j < columns; ++k)
        sum += value_a(i, k) * value_b(j, k);
      outcome.wrong += outcome.c[static_cast<std::size_t>(i * kColumns + j)] != sum;
    }
  }
  return outcome;
}

Outcome run_bug(Bug bug) {
  return run<__nv_bfloat16>([](float x) { return __float2bfloat16_rn(x); }, 64, 256, 192, bug);
}

void test_features() {
  const auto bf16 = [](float x) { return __float2bfloat16_rn(x); };
  const auto half = [](float x) { return __float2half_rn(x); };
  for (const Outcome& outcome :
       {run<__nv_bfloat16>(bf16, 64, 256, 192, Bug::kNone),
        run<__half>(half, 64, 256, 64, Bug::kNone), run<__half>(half, 37, 201, 72, Bug::kNone)}) {
    expect_report(outcome.message + "clean", "clean", "a pipeline of TMA and wgmma");
    expect(outcome.message.empty() && outcome.wrong == 0, "a pipeline's product is right");
  }
}

void test_planted_bugs() {
  const struct {
    Bug bug;
    const char *words, *what;
  } reported[] = {
      {Bug::kNobodyWaitsForCopy, "has not waited for", "operands read before their copy's end"},
      {Bug::kOneThreadWaitsForCopy, "has not waited for", "one thread waits for all"},
      {Bug::kWrongParity, "has not waited for", "the wrong phase waited for"},
      {Bug::kLoaderDoesNotWait, "overwrites an operand", "a stage overwritten while it is read"},
      {Bug::kReleasedBeforeProductsEnd, "overwrites an operand", "a stage released too early"},
      {Bug::kOneWarpReleases, "overwrites an operand", "a stage released for other warps"},
      {Bug::kTooFewBytes, "fewer bytes were announced", "too few bytes announced"},
      {Bug::kTooManyBytes, "deadlock", "too many bytes announced"},
      {Bug::kTooManyArrivals, "overwrites an operand", "a phase ended by too many arrivals"},
      {Bug::kBarriersNotShown, "before a block barrier", "barriers used before __syncthreads"},
      {Bug::kBarriersNotMade, "never initialised", "barriers not initialised"},
      {Bug::kNoFence, "without wgmma.fence", "no fence"},
      {Bug::kProductsNotWaitedFor, "with products under way", "products not waited for"},
      {Bug::kCopyNotWaitedFor, "with a bulk copy under way", "a copy not waited for"},
      {Bug::kLanesDisagree, "different operands", "lanes with different descriptors"},
      {Bug::kOneWarpMissing, "started different products", "a warp that does not multiply"},
      {Bug::kMisalignedTile, "not aligned to 1024", "a tile across the swizzle's period"},
  };
  for (const auto& plant : reported) {
    expect_report(run_bug(plant.bug).message, plant.words, plant.what);
  }
  for (const Bug bug : {Bug::kWrongStride, Bug::kWrongSwizzle, Bug::kWrongStart}) {
    const Outcome outcome = run_bug(bug);
    expect(!outcome.message.empty() || outcome.wrong > 1000, "a wrong descriptor, a wrong result");
  }
  expect(std::isnan(run_bug(Bug::kSumsUsedEarly).c[0]), "sums read before their products' end");
}

}  // namespace

void test_hopper() {
  test_features();
  test_planted_bugs();
}

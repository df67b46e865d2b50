// First version: one row after another, in double. The tiled kernel takes its place.
#include <cmath>

#include "common/dtype.h"
#include "cpu/parallel.h"
#include "suder/linear_logprob.h"

namespace suder::SUDER_ISA {
namespace {

template <class T>
void forward_row(const LinearLogprobForward& p, std::int64_t row) {
  const T* h = static_cast<const T*>(p.hidden.data) + row * p.hidden.stride;
  double max = -INFINITY, sum = 0.0, weighted = 0.0, chosen = 0.0;
  for (std::int64_t v = 0; v < p.weight.rows; ++v) {
    const T* w = static_cast<const T*>(p.weight.data) + v * p.weight.stride;
    double z = p.bias ? to_float(static_cast<const T*>(p.bias)[v]) : 0.0;
    for (std::int64_t d = 0; d < p.hidden.cols; ++d) z += double(to_float(h[d])) * to_float(w[d]);
    if (p.softcap > 0.0f) z = p.softcap * std::tanh(z / p.softcap);
    z /= p.temperature;
    const double larger = std::fmax(max, z), scale = std::exp(max - larger);
    const double e = std::exp(z - larger);
    sum = sum * scale + e;
    weighted = (scale == 0.0 ? 0.0 : weighted * scale) + e * z;
    max = larger;
    if (v == p.target[row]) chosen = z;
  }
  const double lse = max + std::log(sum);
  p.lse[row] = static_cast<float>(lse);
  p.logprob[row] = p.target[row] == p.ignore_index ? 0.0f : static_cast<float>(chosen - lse);
  if (p.entropy) p.entropy[row] = static_cast<float>(lse - weighted / sum);
}

}  // namespace

void linear_logprob_forward_cpu(const LinearLogprobForward& params) {
  dispatch_dtype(params.dtype, [&]<class T>() {
    cpu::parallel_for(params.threads, params.hidden.rows,
                      [&](std::int64_t row, int) { forward_row<T>(params, row); });
  });
}

void linear_logprob_backward_cpu(const LinearLogprobBackward&) {}

}  // namespace suder::SUDER_ISA

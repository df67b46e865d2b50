// The merge rule: any way of cutting a set gives its log-sum-exp and entropy; the empty set, -inf
// and NaN keep their meaning.
#include <cmath>
#include <vector>

#include "check.h"
#include "common/online_lse.h"

using suder::OnlineLse;

OnlineLse of(float z) { return {z, z == -INFINITY ? 0.0f : 1.0f, 0.0f}; }

// Merged as a left chain or as a balanced tree.
OnlineLse merge_range(const std::vector<float>& z, std::size_t begin, std::size_t end, bool tree) {
  if (begin == end) return {};
  if (begin + 1 == end) return of(z[begin]);
  const std::size_t cut = tree ? (begin + end) / 2 : end - 1;
  return merge(merge_range(z, begin, cut, tree), merge_range(z, cut, end, tree));
}

void check_set(const std::vector<float>& z) {
  double highest = -INFINITY, sum = 0.0, weighted = 0.0;
  for (float x : z) highest = std::fmax(highest, x);
  for (float x : z) sum += std::exp(x - highest);
  for (float x : z) {
    const double d = x - highest;
    if (std::isfinite(d)) weighted += std::exp(d) * d;
  }
  const double lse = highest + std::log(sum), entropy = std::log(sum) - weighted / sum;
  for (bool tree : {false, true}) {
    const OnlineLse all = merge_range(z, 0, z.size(), tree);
    CHECK(std::fabs(suder::lse(all) - lse) <= 1e-6 * std::fmax(1.0, std::fabs(lse)), "%g %g",
          suder::lse(all), lse);
    CHECK(std::fabs(suder::entropy(all) - entropy) <= 2e-6, "%g %g", suder::entropy(all), entropy);
    for (float x : z) CHECK(!(suder::log_probability(x, all) > 0.0f), "log p above 0");
  }
}

int main() {
  std::vector<float> wave, offset, negative;
  for (int i = 0; i < 100; ++i) {
    wave.push_back(5.0f * std::sin(0.7f * static_cast<float>(i)));
    offset.push_back(1e4f + wave.back());
    negative.push_back(-200.0f + wave.back());
  }
  check_set(wave);
  check_set(offset);
  check_set(negative);
  check_set({0.0f});
  check_set({-INFINITY, 1.0f, -INFINITY, 2.0f});
  check_set({300.0f, -300.0f});

  const OnlineLse nothing, some = merge(of(1.0f), of(2.0f));
  CHECK(suder::lse(merge(nothing, some)) == suder::lse(some), "empty left");
  CHECK(suder::lse(merge(some, nothing)) == suder::lse(some), "empty right");
  CHECK(suder::lse(merge(nothing, nothing)) == -INFINITY, "both empty");
  const OnlineLse broken{-INFINITY, NAN, NAN};
  CHECK(std::isnan(suder::lse(merge(broken, some))), "NaN left");
  CHECK(std::isnan(suder::lse(merge(some, broken))), "NaN right");
  CHECK(std::isnan(suder::log_probability(NAN, some)), "NaN logit");
  return failures();
}

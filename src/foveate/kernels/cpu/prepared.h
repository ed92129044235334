// Operations whose arguments after x are kept for many calls, under a number.
#pragma once

#include <functional>

#include "torch_tensors.h"

namespace foveate {

// What surrounds the gates, as the arguments of an operation.
struct Around {
  int64_t before;
  double before_slope;
  Maybe shortcut;
  int64_t activation;
  double slope;
};

// Overwrites x, a map (N, C, H, W) on the CPU; returns false, with x as it was, where it does not take the map.
using Run = std::function<bool(Tensor& x, const Around& around)>;

// Keeps an operation for maps with these channels, and returns its number.
int64_t keep(int64_t channels, Run run);

// Whether a weight is absent, or on the CPU with the type of x.
inline bool alike(const Tensor& x, const Tensor& weight) {
  return weight.is_cpu() && weight.scalar_type() == x.scalar_type();
}
inline bool alike(const Tensor& x, const Maybe& weight) { return !weight || alike(x, *weight); }

}  // namespace foveate

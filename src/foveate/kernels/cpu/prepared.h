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

// Overwrites x, a map (N, C, H, W) on the CPU; returns false, with x as it was, where the weights have another type.
using Prepared = std::function<bool(Tensor& x, const Around& around)>;

// Keeps an operation for maps with these channels, and returns its number.
int64_t keep(int64_t channels, Prepared prepared);

// Whether each given weight has the type of x.
bool same_type(const Tensor& x, std::initializer_list<const Maybe*> weights);

}  // namespace foveate

// The common parts of the operations on torch's side: tensors of maps, weights and gradients, threads, and kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace foveate {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

const Kernels& kernels();
Threads threads();

inline Tensor floats(std::vector<int64_t> size, const Tensor& like) {
  return torch::stable::new_empty(like, size, ScalarType::Float);
}
inline float* data(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

// Memory for the values between two steps of one call: that of this thread, which its next call takes again, or more.
// An allocation through torch takes as long as a small map.
class Scratch {
 public:
  float* at;

  Scratch(int64_t count, const Tensor& like);

 private:
  Maybe allocated_;
};

// The given feature map where it is dense, else a dense copy.
struct Map {
  Tensor x;
  Shape shape;

  explicit Map(const Tensor& given);

  // Another map of this shape in the memory layout of this one.
  Tensor like(const Tensor& other) const;
};

bool same_shape(const Tensor& a, const Tensor& b);  // and the same type

// What surrounds the gates, from the arguments of an operation; keeps a copy of the shortcut in another memory layout.
class DenseFinish {
 public:
  Finish finish;

  DenseFinish(const Map& map, int64_t before, double before_slope, const Maybe& shortcut, int64_t activation,
              double slope);

 private:
  Maybe dense_;
};

// Raises unless dy has the shape and type of x, and `kept` the number of floats that forward kept.
void check_backward(const Tensor& dy, const Tensor& kept, const Tensor& x, int64_t count);

// Weights as floats, null where absent; keeps the copies alive.
class Weights {
 public:
  const float* operator()(const Maybe& given, int64_t count);

 private:
  std::vector<Tensor> copies_;
  std::vector<std::vector<float>> converted_;
};

// A gradient of the shape of each weight, empty where there is none.
struct Gradients {
  std::vector<Tensor> tensors;
  std::vector<float*> at;  // null where there is none

  Gradients(std::initializer_list<Maybe> weights, const Tensor& like);
};

}  // namespace foveate

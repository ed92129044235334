// The six forms of foveate::coordinate.
#include "prepared.h"

namespace foveate {
namespace {

#define REST                                                                                                 \
  Tensor squeeze, Maybe squeeze_bias, Tensor norm_weight, Tensor norm_bias, Maybe norm_mean, Maybe norm_var, \
      Tensor row, Maybe row_bias, Tensor column, Maybe column_bias, double scale, double eps, bool training, \
      bool hardswish
#define COORDINATE Tensor x, REST
#define REST_VALUES                                                                                                   \
  squeeze, squeeze_bias, norm_weight, norm_bias, norm_mean, norm_var, row, row_bias, column, column_bias, scale, eps, \
      training, hardswish
#define COORDINATE_VALUES x, REST_VALUES

Coordinate arguments(const Map& map, Weights& w, COORDINATE) {
  const Shape& s = map.shape;
  const int64_t C = s.channels, M = squeeze.size(0);
  STD_TORCH_CHECK(x.size(1) == C && (training || (norm_mean && norm_var)), "Expected: running statistics.");
  STD_TORCH_CHECK(!training || s.samples * (s.height + s.width) > 1,
                  "Expected: more than 1 value per channel when training.");
  STD_TORCH_CHECK(M > 0, "Expected: hidden units. Received: none.");
  Coordinate a{};
  a.shape = s, a.hidden = M;
  a.squeeze = w(squeeze, M * C), a.squeeze_bias = w(squeeze_bias, M), a.norm_weight = w(norm_weight, M),
  a.norm_bias = w(norm_bias, M);
  if (!training) a.norm_mean = w(norm_mean, M), a.norm_var = w(norm_var, M);
  a.row = w(row, C * M), a.row_bias = w(row_bias, C);
  a.column = w(column, C * M), a.column_bias = w(column_bias, C);
  a.scale = static_cast<float>(scale), a.eps = static_cast<float>(eps), a.training = training, a.hardswish = hardswish;
  return a;
}

int64_t kept_size(const Coordinate& a) { return a.shape.samples * a.hidden * (a.shape.height + a.shape.width); }

// Runs forward only for its result: y may be x, or null for only the gates.
void forward(const Map& map, const Coordinate& a, void* y, void* row, void* column) {
  const int64_t work = kernels().coordinate_work(threads(), a, false);
  const Scratch scratch(work + kept_size(a), map.x);
  kernels().coordinate(threads(), a, map.x.const_data_ptr(), y, row, column, scratch.at + work, nullptr, scratch.at);
}

std::tuple<Tensor, Tensor, Tensor> coordinate(COORDINATE) {
  const Map map(x);
  Weights w;
  const Coordinate a = arguments(map, w, COORDINATE_VALUES);
  const Tensor y = torch::stable::empty_like(map.x), kept = floats({kept_size(a)}, map.x),
               statistics = floats({2, a.training ? a.hidden : 0}, map.x);
  const Scratch work(kernels().coordinate_work(threads(), a, false), map.x);
  kernels().coordinate(threads(), a, map.x.const_data_ptr(), y.mutable_data_ptr(), nullptr, nullptr, data(kept),
                       data(statistics), work.at);
  return {y, kept, statistics};
}

// Overwrites x with the result, through the map where that is a copy.
void overwrite(Tensor& x, const Map& map, const Coordinate& a) {
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics in place.");
  forward(map, a, map.x.mutable_data_ptr(), nullptr, nullptr);
  if (map.x.const_data_ptr() != x.const_data_ptr()) torch::stable::copy_(x, map.x);
}

void coordinate_(COORDINATE) {
  const Map map(x);
  Weights w;
  overwrite(x, map, arguments(map, w, COORDINATE_VALUES));
}

void coordinate_finish_(Tensor x, int64_t before, double before_slope, Maybe shortcut, int64_t activation, double slope,
                        REST) {
  const Map map(x);
  Weights w;
  Coordinate a = arguments(map, w, COORDINATE_VALUES);
  const DenseFinish finish(map, before, before_slope, shortcut, activation, slope);
  a.finish = finish.finish;
  overwrite(x, map, a);
}

int64_t coordinate_prepare(int64_t channels, REST) {
  return keep(channels, [=](Tensor& x, const Around& around) {
    if (!alike(x, squeeze) || !alike(x, row) || !alike(x, column)) return false;
    coordinate_finish_(x, around.before, around.before_slope, around.shortcut, around.activation, around.slope,
                       REST_VALUES);
    return true;
  });
}

std::tuple<Tensor, Tensor> coordinate_gates(COORDINATE) {
  const Map map(x);
  Weights w;
  const Coordinate a = arguments(map, w, COORDINATE_VALUES);
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics for the gates alone.");
  const Shape& s = map.shape;
  const Tensor rows = torch::stable::new_empty(x, {s.samples, s.channels, s.height, 1});
  const Tensor columns = torch::stable::new_empty(x, {s.samples, s.channels, 1, s.width});
  forward(map, a, nullptr, rows.mutable_data_ptr(), columns.mutable_data_ptr());
  return {rows, columns};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> coordinate_backward(Tensor dy,
                                                                                                       Tensor kept,
                                                                                                       COORDINATE) {
  const Map map(x);
  Weights w;
  const Coordinate a = arguments(map, w, COORDINATE_VALUES);
  check_backward(dy, kept, x, kept_size(a));
  const Tensor dx = torch::stable::empty_like(map.x), from = map.like(dy);
  const Gradients g({squeeze, squeeze_bias, norm_weight, norm_bias, row, row_bias, column, column_bias}, x);
  const auto& at = g.at;
  const Scratch work(kernels().coordinate_work(threads(), a, true), x);
  kernels().coordinate_backward(threads(), a, from.const_data_ptr(), map.x.const_data_ptr(),
                                static_cast<const float*>(kept.const_data_ptr()), dx.mutable_data_ptr(),
                                {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]}, work.at);
  const auto& d = g.tensors;
  return {dx, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]};
}

#define REST_OF_COORDINATE                                                                                            \
  "Tensor squeeze, Tensor? squeeze_bias, Tensor norm_weight, Tensor norm_bias, Tensor? norm_mean, Tensor? norm_var, " \
  "Tensor row, "                                                                                                      \
  "Tensor? row_bias, Tensor column, Tensor? column_bias, float scale, float eps, bool training, bool hardswish"

}  // namespace
}  // namespace foveate

STABLE_TORCH_LIBRARY_FRAGMENT(foveate, m) {
  m.def("coordinate(Tensor x, " REST_OF_COORDINATE ") -> (Tensor y, Tensor kept, Tensor statistics)");
  m.def("coordinate_(Tensor(a!) x, " REST_OF_COORDINATE ") -> ()");
  m.def(
      "coordinate_finish_(Tensor(a!) x, int before, float before_slope, Tensor? shortcut, int activation, float "
      "slope, " REST_OF_COORDINATE ") -> ()");
  m.def("coordinate_prepare(int channels, " REST_OF_COORDINATE ") -> int number");
  m.def("coordinate_gates(Tensor x, " REST_OF_COORDINATE ") -> (Tensor row, Tensor column)");
  m.def("coordinate_backward(Tensor dy, Tensor kept, Tensor x, " REST_OF_COORDINATE
        ") -> (Tensor dx, Tensor d_squeeze, Tensor d_squeeze_bias, Tensor d_norm_weight, Tensor d_norm_bias, Tensor "
        "d_row, Tensor d_row_bias, "
        "Tensor d_column, Tensor d_column_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CPU, m) {
  m.impl("coordinate", TORCH_BOX(&foveate::coordinate));
  m.impl("coordinate_", TORCH_BOX(&foveate::coordinate_));
  m.impl("coordinate_finish_", TORCH_BOX(&foveate::coordinate_finish_));
  m.impl("coordinate_gates", TORCH_BOX(&foveate::coordinate_gates));
  m.impl("coordinate_backward", TORCH_BOX(&foveate::coordinate_backward));
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CompositeExplicitAutograd, m) {
  m.impl("coordinate_prepare", TORCH_BOX(&foveate::coordinate_prepare));
}

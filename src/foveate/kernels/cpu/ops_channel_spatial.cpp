// The four forms of foveate::channel_spatial.
#include "torch_tensors.h"

namespace foveate {
namespace {

#define CHANNEL_SPATIAL                                                                                               \
  Tensor x, Maybe reduce, Maybe reduce_bias, Maybe expand, Maybe expand_bias, bool average, bool maximum,             \
      double scale, Maybe conv, Maybe conv_bias, Maybe norm_weight, Maybe norm_bias, Maybe norm_mean, Maybe norm_var, \
      double eps, bool training, bool parallel
#define CHANNEL_SPATIAL_VALUES                                                                                   \
  x, reduce, reduce_bias, expand, expand_bias, average, maximum, scale, conv, conv_bias, norm_weight, norm_bias, \
      norm_mean, norm_var, eps, training, parallel

ChannelSpatial arguments(const Map& map, Weights& w, CHANNEL_SPATIAL) {
  STD_TORCH_CHECK(x.size(1) == map.shape.channels && (reduce || conv), "Expected: at least one gate.");
  ChannelSpatial a{};
  a.shape = map.shape;
  if (reduce) {
    const int64_t C = map.shape.channels, R = expand ? reduce->size(0) : reduce->numel();
    STD_TORCH_CHECK(average || maximum, "Expected: at least one pool.");
    STD_TORCH_CHECK(expand || (average && !maximum && R % 2 == 1 && !reduce_bias),
                    "Expected: the mean and an odd kernel, without a bias, along the channels.");
    STD_TORCH_CHECK(R > 0, "Expected: hidden units. Received: none.");
    a.hidden = R, a.average = average, a.maximum = maximum;
    a.reduce = w(reduce, expand ? R * C : R), a.reduce_bias = w(reduce_bias, R);
    a.expand = w(expand, C * R), a.expand_bias = w(expand_bias, C);
  }
  if (conv) {
    STD_TORCH_CHECK(conv->dim() == 4 && conv->size(2) % 2 == 1, "Expected: conv (1, 2, k, k), k odd.");
    a.kernel_size = conv->size(2);
    a.conv = w(conv, 2 * a.kernel_size * a.kernel_size), a.conv_bias = w(conv_bias, 1);
    a.norm_weight = w(norm_weight, 1), a.norm_bias = w(norm_bias, 1);
    a.training = training && norm_weight;
    if (!a.training) a.norm_mean = w(norm_mean, 1), a.norm_var = w(norm_var, 1);
    STD_TORCH_CHECK(!norm_weight || (norm_bias && (a.training || (norm_mean && norm_var))), "Expected: a whole norm.");
    STD_TORCH_CHECK(!a.training || map.shape.samples * map.shape.positions() > 1,
                    "Expected: more than 1 value per channel when training.");
  }
  a.scale = static_cast<float>(scale), a.eps = static_cast<float>(eps), a.parallel = parallel;
  return a;
}

int64_t kept_size(const ChannelSpatial& a) {
  const int64_t N = a.shape.samples, C = a.reduce ? a.shape.channels : 0;
  return N * (a.pools() * C + (a.expand ? a.pools() * a.hidden : 0) + C + (a.conv ? 3 * a.shape.positions() : 0));
}

// Runs forward only for its result: y may be x, or null for only the gates. It allocates once, because each allocation
// through torch costs time.
void forward(const Map& map, const ChannelSpatial& a, void* y, void* channel, void* spatial) {
  const int64_t work = kernels().channel_spatial_work(a, false);
  const Tensor scratch = floats({work + kept_size(a)}, map.x);
  kernels().channel_spatial(threads(), a, map.x.const_data_ptr(), y, channel, spatial, data(scratch) + work, nullptr,
                            data(scratch));
}

std::tuple<Tensor, Tensor, Tensor> channel_spatial(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  const Tensor y = torch::stable::empty_like(map.x), kept = floats({kept_size(a)}, map.x),
               statistics = floats({2, a.training ? 1 : 0}, map.x);
  const Tensor work = floats({kernels().channel_spatial_work(a, false)}, map.x);
  kernels().channel_spatial(threads(), a, map.x.const_data_ptr(), y.mutable_data_ptr(), nullptr, nullptr, data(kept),
                            data(statistics), data(work));
  return {y, kept, statistics};
}

void channel_spatial_(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics in place.");
  forward(map, a, map.x.mutable_data_ptr(), nullptr, nullptr);
  if (map.x.const_data_ptr() != x.const_data_ptr()) torch::stable::copy_(x, map.x);
}

std::tuple<Tensor, Tensor> channel_spatial_gates(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics for the gates alone.");
  const Shape& s = map.shape;
  const Tensor channel =
      torch::stable::new_empty(x, reduce ? std::vector<int64_t>{s.samples, s.channels, 1, 1} : std::vector<int64_t>{0});
  const Tensor spatial = torch::stable::new_empty(
      x, conv ? std::vector<int64_t>{s.samples, 1, s.height, s.width} : std::vector<int64_t>{0});
  forward(map, a, nullptr, reduce ? channel.mutable_data_ptr() : nullptr, conv ? spatial.mutable_data_ptr() : nullptr);
  return {channel, spatial};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> channel_spatial_backward(
    Tensor dy, Tensor kept, CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  check_backward(dy, kept, x, kept_size(a));
  const Tensor dx = torch::stable::empty_like(map.x), from = map.like(dy);
  const Gradients g({reduce, reduce_bias, expand, expand_bias, conv, conv_bias, norm_weight, norm_bias}, x);
  const auto& at = g.at;
  const Tensor work = floats({kernels().channel_spatial_work(a, true)}, x);
  kernels().channel_spatial_backward(threads(), a, from.const_data_ptr(), map.x.const_data_ptr(),
                                     static_cast<const float*>(kept.const_data_ptr()), dx.mutable_data_ptr(),
                                     {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]}, data(work));
  const auto& d = g.tensors;
  return {dx, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]};
}

#define REST_OF_CHANNEL_SPATIAL                                                                                  \
  "Tensor? reduce, Tensor? reduce_bias, Tensor? expand, Tensor? expand_bias, bool average, bool maximum, float " \
  "scale, Tensor? conv=None, "                                                                                   \
  "Tensor? conv_bias=None, Tensor? norm_weight=None, Tensor? norm_bias=None, Tensor? norm_mean=None, Tensor? "   \
  "norm_var=None, "                                                                                              \
  "float eps=0., bool training=False, bool parallel=False"

}  // namespace
}  // namespace foveate

STABLE_TORCH_LIBRARY_FRAGMENT(foveate, m) {
  m.def("channel_spatial(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor y, Tensor kept, Tensor statistics)");
  m.def("channel_spatial_(Tensor(a!) x, " REST_OF_CHANNEL_SPATIAL ") -> ()");
  m.def("channel_spatial_gates(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor channel, Tensor spatial)");
  m.def("channel_spatial_backward(Tensor dy, Tensor kept, Tensor x, " REST_OF_CHANNEL_SPATIAL
        ") -> (Tensor dx, Tensor d_reduce, Tensor d_reduce_bias, Tensor d_expand, Tensor d_expand_bias, Tensor d_conv, "
        "Tensor d_conv_bias, Tensor d_norm_weight, Tensor d_norm_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CPU, m) {
  m.impl("channel_spatial", TORCH_BOX(&foveate::channel_spatial));
  m.impl("channel_spatial_", TORCH_BOX(&foveate::channel_spatial_));
  m.impl("channel_spatial_gates", TORCH_BOX(&foveate::channel_spatial_gates));
  m.impl("channel_spatial_backward", TORCH_BOX(&foveate::channel_spatial_backward));
}

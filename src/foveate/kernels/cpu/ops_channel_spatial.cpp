// The six forms of foveate::channel_spatial.
#include "prepared.h"

namespace foveate {
namespace {

#define REST                                                                                                       \
  Maybe reduce, Maybe reduce_bias, Maybe expand, Maybe expand_bias, bool average, bool maximum, double scale,      \
      bool hard, Maybe conv, Maybe conv_bias, Maybe norm_weight, Maybe norm_bias, Maybe norm_mean, Maybe norm_var, \
      double eps, bool training, bool parallel, bool euclidean, bool deviation, double pool_eps, bool greater,     \
      bool full
#define CHANNEL_SPATIAL Tensor x, REST
#define REST_VALUES                                                                                                 \
  reduce, reduce_bias, expand, expand_bias, average, maximum, scale, hard, conv, conv_bias, norm_weight, norm_bias, \
      norm_mean, norm_var, eps, training, parallel, euclidean, deviation, pool_eps, greater, full
#define CHANNEL_SPATIAL_VALUES x, REST_VALUES

ChannelSpatial arguments(const Map& map, Weights& w, CHANNEL_SPATIAL) {
  STD_TORCH_CHECK(x.size(1) == map.shape.channels && (reduce || expand || conv || full), "Expected: a gate.");
  ChannelSpatial a{};
  a.shape = map.shape;
  if (reduce || expand) {
    a.logits = euclidean   ? Logits::competing
               : deviation ? Logits::own
               : !reduce   ? Logits::one_layer
               : !expand   ? Logits::along_channels
                           : Logits::two_layers;
    const int64_t C = map.shape.channels;
    a.hidden = C, a.average = average, a.maximum = maximum, a.euclidean = euclidean, a.deviation = deviation;
    a.hard = hard, a.pool_eps = static_cast<float>(pool_eps);
    int64_t reduced = 0, expanded = 0;  // the numbers of weights
    switch (a.logits) {
      case Logits::none:
        break;
      case Logits::two_layers:
        STD_TORCH_CHECK(average || maximum, "Expected: at least one pool.");
        a.hidden = reduce->size(0), reduced = expanded = a.hidden * C;
        STD_TORCH_CHECK(a.hidden > 0, "Expected: hidden units. Received: none.");
        break;
      case Logits::one_layer:
        STD_TORCH_CHECK(average && !maximum, "Expected: the mean for one layer.");
        expanded = C * C;
        break;
      case Logits::along_channels:
        a.hidden = reduced = reduce->numel();
        STD_TORCH_CHECK(average && !maximum && a.hidden % 2 == 1, "Expected: the mean and an odd kernel.");
        break;
      case Logits::competing:
        STD_TORCH_CHECK(!average && !maximum && !deviation && reduce && expand && expand_bias,
                        "Expected: one pool, two factors and a summand for channels in competition.");
        reduced = expanded = C;
        break;
      case Logits::own:
        STD_TORCH_CHECK(average && !maximum && !euclidean && reduce && !expand && !conv,
                        "Expected: the mean and the deviation, and one weight for each.");
        reduced = 2 * C;
    }
    STD_TORCH_CHECK(a.logits == Logits::two_layers || !reduce_bias, "Expected: a first bias in two layers only.");
    STD_TORCH_CHECK(expand || !expand_bias, "Expected: no bias without its layer.");
    a.reduce = w(reduce, reduced), a.reduce_bias = w(reduce_bias, a.hidden);
    a.expand = w(expand, expanded), a.expand_bias = w(expand_bias, C);
  }
  if (conv) {
    STD_TORCH_CHECK(conv->dim() == 4 && conv->size(2) % 2 == 1, "Expected: conv (1, 2, k, k), k odd.");
    a.kernel_size = conv->size(2);
    a.conv = w(conv, greater ? map.shape.channels : 2 * a.kernel_size * a.kernel_size), a.conv_bias = w(conv_bias, 1);
  }
  if (norm_weight) {
    STD_TORCH_CHECK(conv || a.logits == Logits::own, "Expected: a norm after the convolution, or after the deviation.");
    const int64_t channels = conv ? 1 : map.shape.channels, values = conv ? map.shape.positions() : 1;
    a.norm_weight = w(norm_weight, channels), a.norm_bias = w(norm_bias, channels), a.training = training;
    if (!a.training) a.norm_mean = w(norm_mean, channels), a.norm_var = w(norm_var, channels);
    STD_TORCH_CHECK(norm_bias && (a.training || (norm_mean && norm_var)), "Expected: a whole norm.");
    STD_TORCH_CHECK(!a.training || map.shape.samples * values > 1,
                    "Expected: more than 1 value per channel when training.");
  }
  a.scale = static_cast<float>(scale), a.eps = static_cast<float>(eps), a.parallel = parallel;
  STD_TORCH_CHECK(!greater || (conv && !norm_weight && a.logits == Logits::two_layers && !maximum),
                  "Expected: the mean, two layers and a layer over the channels, without a norm.");
  if (greater) a.scaling = Scaling::greater;
  if (full) {
    STD_TORCH_CHECK(a.logits == Logits::none && !conv && average && deviation && !maximum && !euclidean,
                    "Expected: the mean and the deviation alone for a gate of each value.");
    a.scaling = Scaling::each_value, a.average = a.deviation = true, a.pool_eps = static_cast<float>(pool_eps);
  }
  return a;
}

// Runs forward only for its result: y may be x, or null for only the gates.
void forward(const Map& map, const ChannelSpatial& a, void* y, void* channel, void* spatial) {
  const int64_t work = kernels().channel_spatial_work(threads(), a, false);
  const Scratch scratch(work + a.kept(), map.x);
  kernels().channel_spatial(threads(), a, map.x.const_data_ptr(), y, channel, spatial, scratch.at + work, nullptr,
                            scratch.at);
}

std::tuple<Tensor, Tensor, Tensor> channel_spatial(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  const Tensor y = torch::stable::empty_like(map.x), kept = floats({a.kept()}, map.x),
               statistics = floats({2, a.training ? a.normed() : 0}, map.x);
  const Scratch work(kernels().channel_spatial_work(threads(), a, false), map.x);
  kernels().channel_spatial(threads(), a, map.x.const_data_ptr(), y.mutable_data_ptr(), nullptr, nullptr, data(kept),
                            data(statistics), work.at);
  return {y, kept, statistics};
}

// Overwrites x with the result, through the map where that is a copy.
void overwrite(Tensor& x, const Map& map, const ChannelSpatial& a) {
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics in place.");
  forward(map, a, map.x.mutable_data_ptr(), nullptr, nullptr);
  if (map.x.const_data_ptr() != x.const_data_ptr()) torch::stable::copy_(x, map.x);
}

void channel_spatial_(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  overwrite(x, map, arguments(map, w, CHANNEL_SPATIAL_VALUES));
}

void channel_spatial_finish_(Tensor x, int64_t before, double before_slope, Maybe shortcut, int64_t activation,
                             double slope, REST) {
  const Map map(x);
  Weights w;
  ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  const DenseFinish finish(map, before, before_slope, shortcut, activation, slope);
  a.finish = finish.finish;
  overwrite(x, map, a);
}

int64_t channel_spatial_prepare(int64_t channels, REST) {
  return keep(channels, [=](Tensor& x, const Around& around) {
    if (!alike(x, reduce) || !alike(x, expand) || !alike(x, conv)) return false;
    channel_spatial_finish_(x, around.before, around.before_slope, around.shortcut, around.activation, around.slope,
                            REST_VALUES);
    return true;
  });
}

void finish_(Tensor x, Maybe shortcut, int64_t activation, double slope) {
  const Map map(x);
  const DenseFinish finish(map, 0, 0, shortcut, activation, slope);
  ChannelSpatial a{};
  a.shape = map.shape, a.scale = 1, a.finish = finish.finish;
  overwrite(x, map, a);
}

std::tuple<Tensor, Tensor> channel_spatial_gates(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  STD_TORCH_CHECK(!a.training, "Expected: no batch statistics for the gates alone.");
  const Shape& s = map.shape;
  using Size = std::vector<int64_t>;
  const Tensor channel =
                   torch::stable::new_empty(x, a.has_channel_gate() ? Size{s.samples, s.channels, 1, 1} : Size{0}),
               spatial = torch::stable::new_empty(x, conv ? Size{s.samples, 1, s.height, s.width} : Size{0});
  forward(map, a, nullptr, a.has_channel_gate() ? channel.mutable_data_ptr() : nullptr,
          conv ? spatial.mutable_data_ptr() : nullptr);
  return {channel, spatial};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> channel_spatial_backward(
    Tensor dy, Tensor kept, CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  check_backward(dy, kept, x, a.kept());
  const Tensor dx = torch::stable::empty_like(map.x), from = map.like(dy);
  const Gradients g({reduce, reduce_bias, expand, expand_bias, conv, conv_bias, norm_weight, norm_bias}, x);
  const auto& at = g.at;
  const Scratch work(kernels().channel_spatial_work(threads(), a, true), x);
  kernels().channel_spatial_backward(threads(), a, from.const_data_ptr(), map.x.const_data_ptr(),
                                     static_cast<const float*>(kept.const_data_ptr()), dx.mutable_data_ptr(),
                                     {at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7]}, work.at);
  const auto& d = g.tensors;
  return {dx, d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]};
}

#define REST_OF_CHANNEL_SPATIAL                                                                                  \
  "Tensor? reduce, Tensor? reduce_bias, Tensor? expand, Tensor? expand_bias, bool average, bool maximum, float " \
  "scale, bool hard=False, Tensor? conv=None, Tensor? conv_bias=None, Tensor? norm_weight=None, Tensor? "        \
  "norm_bias=None, Tensor? norm_mean=None, Tensor? norm_var=None, float eps=0., bool training=False, bool "      \
  "parallel=False, bool euclidean=False, bool deviation=False, float pool_eps=0., bool greater=False, bool "     \
  "full=False"

}  // namespace
}  // namespace foveate

STABLE_TORCH_LIBRARY_FRAGMENT(foveate, m) {
  m.def("channel_spatial(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor y, Tensor kept, Tensor statistics)");
  m.def("channel_spatial_(Tensor(a!) x, " REST_OF_CHANNEL_SPATIAL ") -> ()");
  m.def(
      "channel_spatial_finish_(Tensor(a!) x, int before, float before_slope, Tensor? shortcut, int activation, float "
      "slope, " REST_OF_CHANNEL_SPATIAL ") -> ()");
  m.def("channel_spatial_prepare(int channels, " REST_OF_CHANNEL_SPATIAL ") -> int number");
  m.def("finish_(Tensor(a!) x, Tensor? shortcut, int activation, float slope) -> ()");
  m.def("channel_spatial_gates(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor channel, Tensor spatial)");
  m.def("channel_spatial_backward(Tensor dy, Tensor kept, Tensor x, " REST_OF_CHANNEL_SPATIAL
        ") -> (Tensor dx, Tensor d_reduce, Tensor d_reduce_bias, Tensor d_expand, Tensor d_expand_bias, Tensor d_conv, "
        "Tensor d_conv_bias, Tensor d_norm_weight, Tensor d_norm_bias)");
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CPU, m) {
  m.impl("channel_spatial", TORCH_BOX(&foveate::channel_spatial));
  m.impl("channel_spatial_", TORCH_BOX(&foveate::channel_spatial_));
  m.impl("channel_spatial_finish_", TORCH_BOX(&foveate::channel_spatial_finish_));
  m.impl("finish_", TORCH_BOX(&foveate::finish_));
  m.impl("channel_spatial_gates", TORCH_BOX(&foveate::channel_spatial_gates));
  m.impl("channel_spatial_backward", TORCH_BOX(&foveate::channel_spatial_backward));
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CompositeExplicitAutograd, m) {
  m.impl("channel_spatial_prepare", TORCH_BOX(&foveate::channel_spatial_prepare));
}

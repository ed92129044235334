// The interface between the kernels and their callers: plain pointers and sizes, no torch.
#pragma once

#include <cstdint>

namespace foveate {

// A dense feature map of float or, when `half`, of bfloat16, in NCHW or channels_last order.
struct Shape {
  int64_t samples, channels, height, width;
  bool channels_last, half;

  int64_t positions() const { return height * width; }
};

// The threads: `run` calls body(context, begin, end) on parts of 0..count, where possible of at least `grain`.
struct Threads {
  int count;
  void (*run)(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end), void* context);
};

// How the logits of the channels follow from their pooled values:
enum class Logits {
  none,            // there is no channel gate
  two_layers,      // with `hidden` units, of SE and CBAM
  one_layer,       // `expand` alone, of eSE
  along_channels,  // a convolution with the weights `reduce` and the kernel size `hidden`, of ECA
  competing,       // GCT: 2 (expand e / |e| + expand_bias), where e = reduce * length, and |e| is over the channels
  own,             // SRM: each channel's values times `reduce` (C, pools), then the norm
};

// How x is scaled:
enum class Scaling {
  product,     // by all gates
  greater,     // scSE: to the greater of x * gc and x * gs, where `conv` is a layer over the channels
  each_value,  // SimAM: by a gate for each value, sigmoid(z^2 + 1/2), where z = (x - mean) / (2 deviation)
};

enum class Activation { none, relu, relu6, leaky_relu, silu, hardswish };

// What surrounds the gates in the same passes: x = before(x), then y = activation(x * gates + shortcut). The shortcut
// is a map of x's shape, type and memory layout, or null; a slope is that of a leaky ReLU. With `before`, y must be the
// memory of x.
struct Finish {
  const void* shortcut;
  Activation activation;
  float slope;
  Activation before;
  float before_slope;
};

// A gate is scale * sigmoid(logits), or with `hard` scale * hard sigmoid(logits). Absent weights are null. There is a
// spatial gate when `conv` is present; the norm is its norm, else that of the channels.
struct ChannelSpatial {
  Shape shape;
  Logits logits;
  Scaling scaling;
  const float *reduce, *reduce_bias, *expand, *expand_bias;
  int64_t hidden;
  bool average, maximum, euclidean, deviation, hard;
  const float *conv, *conv_bias, *norm_weight, *norm_bias, *norm_mean, *norm_var;
  int64_t kernel_size;
  float scale, eps, pool_eps;
  bool training, parallel;
  Finish finish;

  bool has_channel_gate() const { return logits != Logits::none; }
  int64_t pools() const { return average + maximum + euclidean + deviation; }
  int64_t normed() const { return !norm_weight ? 0 : conv ? 1 : shape.channels; }  // the channels of the norm
  // The mean and the maximum of each position.
  int64_t maps() const { return conv && scaling == Scaling::product ? 2 : 0; }
  int64_t kept() const {  // the floats that forward keeps for backward
    const int64_t C = shape.channels, R = logits == Logits::two_layers ? hidden : 0;
    const int64_t channel = pools() * (C + R) + (has_channel_gate() ? C : 0);
    return shape.samples * (channel + (conv ? (maps() + 1) * shape.positions() : 0));
  }
};

// Gradients of the weights, null where the weight is null.
struct ChannelSpatialGradients {
  float *reduce, *reduce_bias, *expand, *expand_bias, *conv, *conv_bias, *norm_weight, *norm_bias;
};

struct Coordinate {
  Shape shape;
  const float *squeeze, *squeeze_bias, *norm_weight, *norm_bias, *norm_mean, *norm_var, *row, *row_bias, *column,
      *column_bias;
  int64_t hidden;
  float scale, eps;
  bool training, hardswish;
  Finish finish;
};

struct CoordinateGradients {
  float *squeeze, *squeeze_bias, *norm_weight, *norm_bias, *row, *row_bias, *column, *column_bias;
};

// The kernels of one instruction set. `kept` holds the values that backward needs, `statistics` the batch mean and
// unbiased variance (only in training). `work` has as many floats as the *_work function returns. Forward with a null y
// writes only the gates, in the type of x, where their pointers are not null.
struct Kernels {
  const char* name;
  void (*channel_spatial)(const Threads&, const ChannelSpatial&, const void* x, void* y, void* channel, void* spatial,
                          float* kept, float* statistics, float* work);
  void (*channel_spatial_backward)(const Threads&, const ChannelSpatial&, const void* dy, const void* x,
                                   const float* kept, void* dx, const ChannelSpatialGradients&, float* work);
  int64_t (*channel_spatial_work)(const Threads&, const ChannelSpatial&, bool backward);
  void (*coordinate)(const Threads&, const Coordinate&, const void* x, void* y, void* row, void* column, float* kept,
                     float* statistics, float* work);
  void (*coordinate_backward)(const Threads&, const Coordinate&, const void* dy, const void* x, const float* kept,
                              void* dx, const CoordinateGradients&, float* work);
  int64_t (*coordinate_work)(const Threads&, const Coordinate&, bool backward);
};

extern const Kernels baseline_kernels, avx2_kernels, avx512_kernels, avx512_bf16_kernels, neon_kernels;

}  // namespace foveate

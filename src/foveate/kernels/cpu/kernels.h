// The border between the kernels and whoever calls them: plain pointers and sizes, no torch.
#pragma once

#include <cstdint>

namespace foveate {

// A feature map of float or, when `half`, of bfloat16; dense, NCHW or channels_last.
struct Shape {
  int64_t samples, channels, height, width;
  bool channels_last, half;

  int64_t positions() const { return height * width; }
};

// Who shares work out: `run` calls body(context, begin, end) over parts of 0..count, none smaller than `grain` where it can choose.
struct Threads {
  int count;
  void (*run)(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end), void* context);
};

// A gate is scale * sigmoid(logits). Weights are null where absent, except that a channel gate is present when `reduce` is and a spatial gate when `conv` is.
// ECA has `reduce` alone: `hidden` is then its kernel size.
struct ChannelSpatial {
  Shape shape;
  const float *reduce, *reduce_bias, *expand, *expand_bias;
  int64_t hidden;
  bool average, maximum;
  const float *conv, *conv_bias, *norm_weight, *norm_bias, *norm_mean, *norm_var;
  int64_t kernel_size;
  float scale, eps;
  bool training, parallel;

  int64_t pools() const { return average + maximum; }
};

// Gradients of the weights, null where the weight is.
struct ChannelSpatialGradients {
  float *reduce, *reduce_bias, *expand, *expand_bias, *conv, *conv_bias, *norm_weight, *norm_bias;
};

struct Coordinate {
  Shape shape;
  const float *squeeze, *squeeze_bias, *norm_weight, *norm_bias, *norm_mean, *norm_var, *row, *row_bias, *column, *column_bias;
  int64_t hidden;
  float scale, eps;
  bool training, hardswish;
};

struct CoordinateGradients {
  float *squeeze, *squeeze_bias, *norm_weight, *norm_bias, *row, *row_bias, *column, *column_bias;
};

// One set for each instruction set. `kept` is what backward needs; `statistics` the batch mean and unbiased variance (training only);
// `work` holds as many floats as the *_work function says. Forward with y null writes the gates alone, in x's type, where gate pointers are given.
struct Kernels {
  const char* name;
  void (*channel_spatial)(const Threads&, const ChannelSpatial&, const void* x, void* y, void* channel, void* spatial, float* kept,
                          float* statistics, float* work);
  void (*channel_spatial_backward)(const Threads&, const ChannelSpatial&, const void* dy, const void* x, const float* kept, void* dx,
                                   const ChannelSpatialGradients&, float* work);
  int64_t (*channel_spatial_work)(const ChannelSpatial&, bool backward);
  void (*coordinate)(const Threads&, const Coordinate&, const void* x, void* y, void* row, void* column, float* kept, float* statistics,
                     float* work);
  void (*coordinate_backward)(const Threads&, const Coordinate&, const void* dy, const void* x, const float* kept, void* dx,
                              const CoordinateGradients&, float* work);
  int64_t (*coordinate_work)(const Coordinate&, bool backward);
};

extern const Kernels baseline_kernels, avx2_kernels, avx512_kernels;

}  // namespace foveate

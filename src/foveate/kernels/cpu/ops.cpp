// The operations as torch sees them: allocation, layouts, dtypes, threads and the choice of instruction set.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace {

using foveate::ChannelSpatial;
using foveate::Kernels;
using foveate::Shape;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

const Kernels& choose() {
  const char* wish = std::getenv("FOVEATE_CPU_ISA");
  const auto allowed = [&](const Kernels& kernels) { return !wish || !*wish || std::strcmp(wish, kernels.name) == 0; };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
  if (avx512 && allowed(foveate::avx512_kernels)) return foveate::avx512_kernels;
  if (avx2 && allowed(foveate::avx2_kernels)) return foveate::avx2_kernels;
#endif
  return foveate::baseline_kernels;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

std::string info() { return kernels().name; }

foveate::Threads threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

// Whether x lies in memory without gaps in the order of the dimensions given.
bool dense(const Tensor& x, const int (&order)[4]) {
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) {
    if (x.size(order[i]) != 1 && x.stride(order[i]) != stride) return false;
    stride *= x.size(order[i]);
  }
  return true;
}

bool is_nchw(const Tensor& x) { return dense(x, {0, 1, 2, 3}); }
bool is_nhwc(const Tensor& x) { return dense(x, {0, 2, 3, 1}); }

struct Map {
  Tensor x;
  Shape shape;

  explicit Map(const Tensor& given) : x(given) {
    STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.numel() > 0, "Expected: a non-empty CPU map (N, C, H, W).");
    const auto dtype = x.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, "Expected: float32 or bfloat16.");
    const bool nchw = is_nchw(x), nhwc = !nchw && is_nhwc(x);
    const bool last = nhwc || (!nchw && x.stride(1) < x.stride(3));
    if (!nchw && !nhwc) x = torch::stable::contiguous(x, last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
    shape = {x.size(0), x.size(1), x.size(2), x.size(3), last, dtype == ScalarType::BFloat16};
  }

  // Another map of this shape, laid out as this one is.
  Tensor like(const Tensor& other) const {
    if (shape.channels_last ? is_nhwc(other) : is_nchw(other)) return other;
    return torch::stable::contiguous(other, shape.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  }
};

Tensor floats(std::vector<int64_t> size, const Tensor& like) { return torch::stable::new_empty(like, size, ScalarType::Float); }
float* data(const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); }

// Weights as floats; keeps alive what had to be converted.
class Weights {
 public:
  const float* operator()(const Maybe& given) {
    if (!given) return nullptr;
    STD_TORCH_CHECK(given->is_contiguous(), "Expected: contiguous weights.");
    if (given->scalar_type() == ScalarType::Float) return static_cast<const float*>(given->const_data_ptr());
    STD_TORCH_CHECK(given->scalar_type() == ScalarType::BFloat16, "Expected: float32 or bfloat16 weights.");
    const uint16_t* from = static_cast<const uint16_t*>(given->const_data_ptr());
    std::vector<float> to(given->numel());
    for (size_t i = 0; i < to.size(); i++) {
      const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
      std::memcpy(&to[i], &bits, sizeof bits);
    }
    converted_.push_back(std::move(to));
    return converted_.back().data();
  }

 private:
  std::vector<std::vector<float>> converted_;
};

// A gradient of the shape of its weight, empty where there is none.
Tensor gradient(const Maybe& weight, const Tensor& like) {
  if (!weight) return floats({0}, like);
  std::vector<int64_t> size;
  for (int64_t i = 0; i < weight->dim(); i++) size.push_back(weight->size(i));
  return floats(size, like);
}
float* pointer(const Tensor& gradient, const Maybe& weight) { return weight ? data(gradient) : nullptr; }

#define CHANNEL_SPATIAL                                                                                                                     \
  Tensor x, Maybe reduce, Maybe reduce_bias, Maybe expand, Maybe expand_bias, Maybe channel_blend, bool average, bool maximum, Maybe conv,  \
      Maybe conv_bias, Maybe norm_weight, Maybe norm_bias, Maybe norm_mean, Maybe norm_var, Maybe spatial_blend, double eps, bool training, \
      bool parallel
#define CHANNEL_SPATIAL_VALUES                                                                                                         \
  x, reduce, reduce_bias, expand, expand_bias, channel_blend, average, maximum, conv, conv_bias, norm_weight, norm_bias, norm_mean,    \
      norm_var, spatial_blend, eps, training, parallel

ChannelSpatial arguments(const Map& map, Weights& w, CHANNEL_SPATIAL) {
  STD_TORCH_CHECK(x.size(1) == map.shape.channels && (reduce || conv), "Expected: at least one gate.");
  ChannelSpatial a{};
  a.shape = map.shape;
  a.reduce = w(reduce), a.reduce_bias = w(reduce_bias), a.expand = w(expand), a.expand_bias = w(expand_bias), a.channel_blend = w(channel_blend);
  if (reduce) {
    const int64_t C = map.shape.channels;
    a.hidden = expand ? reduce->size(0) : reduce->numel();
    STD_TORCH_CHECK(average || maximum, "Expected: at least one pool.");
    STD_TORCH_CHECK(!expand || (reduce->numel() == a.hidden * C && expand->numel() == a.hidden * C), "Expected: reduce (R, C, 1, 1), expand (C, R, 1, 1).");
    STD_TORCH_CHECK(expand || (average && !maximum), "Expected: the mean alone before a convolution along the channels.");
    a.average = average, a.maximum = maximum;
  }
  if (conv) {
    a.conv = w(conv), a.conv_bias = w(conv_bias), a.norm_weight = w(norm_weight), a.norm_bias = w(norm_bias), a.spatial_blend = w(spatial_blend);
    a.training = training && norm_weight;
    if (!a.training) a.norm_mean = w(norm_mean), a.norm_var = w(norm_var);
    a.kernel_size = conv->size(2);
    STD_TORCH_CHECK(conv->numel() == 2 * a.kernel_size * a.kernel_size && a.kernel_size % 2 == 1, "Expected: conv (1, 2, k, k), k odd.");
    STD_TORCH_CHECK(!norm_weight || (norm_bias && (a.training || (norm_mean && norm_var))), "Expected: a whole norm.");
    STD_TORCH_CHECK(!a.training || map.shape.samples * map.shape.positions() > 1, "Expected: more than 1 value per channel when training.");
  }
  a.eps = static_cast<float>(eps), a.parallel = parallel;
  return a;
}

int64_t kept_size(const ChannelSpatial& a) {
  const int64_t N = a.shape.samples, C = a.reduce ? a.shape.channels : 0;
  return N * (a.pools() * C + (a.expand ? a.pools() * a.hidden : 0) + C + (a.conv ? 3 * a.shape.positions() : 0));
}

// Runs forward; y may be x, or null for the gates alone.
std::tuple<Tensor, Tensor> forward(const Map& map, const ChannelSpatial& a, void* y, void* channel, void* spatial) {
  const Tensor kept = floats({kept_size(a)}, map.x), statistics = floats({2, a.training ? 1 : 0}, map.x);
  const Tensor work = floats({kernels().channel_spatial_work(a, false)}, map.x);
  kernels().channel_spatial(threads(), a, map.x.const_data_ptr(), y, channel, spatial, data(kept), data(statistics), data(work));
  return {kept, statistics};
}

std::tuple<Tensor, Tensor, Tensor> channel_spatial(CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  const Tensor y = torch::stable::empty_like(map.x);
  const auto [kept, statistics] = forward(map, a, y.mutable_data_ptr(), nullptr, nullptr);
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
  const Tensor channel = torch::stable::new_empty(x, reduce ? std::vector<int64_t>{s.samples, s.channels, 1, 1} : std::vector<int64_t>{0});
  const Tensor spatial = torch::stable::new_empty(x, conv ? std::vector<int64_t>{s.samples, 1, s.height, s.width} : std::vector<int64_t>{0});
  forward(map, a, nullptr, reduce ? channel.mutable_data_ptr() : nullptr, conv ? spatial.mutable_data_ptr() : nullptr);
  return {channel, spatial};
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients channel_spatial_backward(Tensor dy, Tensor kept, CHANNEL_SPATIAL) {
  const Map map(x);
  Weights w;
  const ChannelSpatial a = arguments(map, w, CHANNEL_SPATIAL_VALUES);
  STD_TORCH_CHECK(kept.numel() == kept_size(a) && dy.scalar_type() == x.scalar_type() && dy.numel() == x.numel(), "Expected: dy like x, and what forward kept.");
  const Tensor dx = torch::stable::empty_like(map.x), from = map.like(dy);
  const Maybe weights[] = {reduce, reduce_bias, expand, expand_bias, channel_blend, conv, conv_bias, norm_weight, norm_bias, spatial_blend};
  std::vector<Tensor> g;
  std::vector<float*> to;
  for (const Maybe& weight : weights) {
    g.push_back(gradient(weight, x));
    to.push_back(pointer(g.back(), weight));
  }
  const Tensor work = floats({kernels().channel_spatial_work(a, true)}, x);
  kernels().channel_spatial_backward(threads(), a, from.const_data_ptr(), map.x.const_data_ptr(), static_cast<const float*>(kept.const_data_ptr()),
                                     dx.mutable_data_ptr(), {to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7], to[8], to[9]}, data(work));
  return {dx, g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], g[8], g[9]};
}

#define REST_OF_CHANNEL_SPATIAL                                                                                                             \
  "Tensor? reduce, Tensor? reduce_bias, Tensor? expand, Tensor? expand_bias, Tensor? channel_blend, bool average, bool maximum, "           \
  "Tensor? conv, Tensor? conv_bias, Tensor? norm_weight, Tensor? norm_bias, Tensor? norm_mean, Tensor? norm_var, Tensor? spatial_blend, "   \
  "float eps, bool training, bool parallel"

}  // namespace

STABLE_TORCH_LIBRARY(foveate, m) {
  m.def("info() -> str");
  m.def("channel_spatial(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor y, Tensor kept, Tensor statistics)");
  m.def("channel_spatial_(Tensor(a!) x, " REST_OF_CHANNEL_SPATIAL ") -> ()");
  m.def("channel_spatial_gates(Tensor x, " REST_OF_CHANNEL_SPATIAL ") -> (Tensor channel, Tensor spatial)");
  m.def("channel_spatial_backward(Tensor dy, Tensor kept, Tensor x, " REST_OF_CHANNEL_SPATIAL
        ") -> (Tensor dx, Tensor d_reduce, Tensor d_reduce_bias, Tensor d_expand, Tensor d_expand_bias, Tensor d_channel_blend, Tensor d_conv, "
        "Tensor d_conv_bias, Tensor d_norm_weight, Tensor d_norm_bias, Tensor d_spatial_blend)");
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CompositeExplicitAutograd, m) { m.impl("info", TORCH_BOX(&info)); }

STABLE_TORCH_LIBRARY_IMPL(foveate, CPU, m) {
  m.impl("channel_spatial", TORCH_BOX(&channel_spatial));
  m.impl("channel_spatial_", TORCH_BOX(&channel_spatial_));
  m.impl("channel_spatial_gates", TORCH_BOX(&channel_spatial_gates));
  m.impl("channel_spatial_backward", TORCH_BOX(&channel_spatial_backward));
}

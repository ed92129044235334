// Convert tensors to the form that the kernels take.
#include "torch_tensors.h"

namespace foveate {

namespace {

// Whether x is dense in memory, with its dimensions in the given order.
bool dense(const Tensor& x, const int (&order)[4]) {
  const auto sizes = x.sizes(), strides = x.strides();
  int64_t stride = 1;
  for (int i = 3; i >= 0; i--) {
    if (sizes[order[i]] != 1 && strides[order[i]] != stride) return false;
    stride *= sizes[order[i]];
  }
  return true;
}

bool is_nchw(const Tensor& x) { return dense(x, {0, 1, 2, 3}); }
bool is_nhwc(const Tensor& x) { return dense(x, {0, 2, 3, 1}); }

float widened(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// `count` values as floats; `at` is the place of each in memory.
template <class At>
std::vector<float> values(const Tensor& weight, int64_t count, At at) {
  std::vector<float> to(count);
  const void* from = weight.const_data_ptr();
  if (weight.scalar_type() == ScalarType::Float)
    for (int64_t i = 0; i < count; i++) to[i] = static_cast<const float*>(from)[at(i)];
  else
    for (int64_t i = 0; i < count; i++) to[i] = widened(static_cast<const uint16_t*>(from)[at(i)]);
  return to;
}

}  // namespace

bool same_shape(const Tensor& a, const Tensor& b) {
  bool same = a.scalar_type() == b.scalar_type() && a.dim() == b.dim();
  for (int64_t i = 0; same && i < b.dim(); i++) same = a.size(i) == b.size(i);
  return same;
}

Scratch::Scratch(int64_t count, const Tensor& like) {
  constexpr int64_t KEPT = 1 << 17;
  alignas(64) static thread_local float kept[KEPT];
  if (count > KEPT) allocated_ = floats({count}, like);
  at = allocated_ ? data(*allocated_) : kept;
}

Map::Map(const Tensor& given) : x(given) {
  STD_TORCH_CHECK(x.dim() == 4 && x.is_cpu() && x.numel() > 0, "Expected: a non-empty CPU map (N, C, H, W).");
  const auto dtype = x.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::BFloat16, "Expected: float32 or bfloat16.");
  const bool nchw = is_nchw(x), nhwc = !nchw && is_nhwc(x);
  const bool last = nhwc || (!nchw && x.stride(1) < x.stride(3));
  if (!nchw && !nhwc) x = torch::stable::contiguous(x, last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
  const auto sizes = x.sizes();
  shape = {sizes[0], sizes[1], sizes[2], sizes[3], last, dtype == ScalarType::BFloat16};
}

Tensor Map::like(const Tensor& other) const {
  if (shape.channels_last ? is_nhwc(other) : is_nchw(other)) return other;
  return torch::stable::contiguous(other, shape.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

DenseFinish::DenseFinish(const Map& map, int64_t before, double before_slope, const Maybe& shortcut, int64_t activation,
                         double slope)
    : finish{nullptr, static_cast<Activation>(activation), static_cast<float>(slope), static_cast<Activation>(before),
             static_cast<float>(before_slope)} {
  for (const int64_t number : {before, activation})
    STD_TORCH_CHECK(0 <= number && number <= static_cast<int64_t>(Activation::hardswish),
                    "Expected: the number of an activation. Received: ", number, ".");
  if (!shortcut) return;
  STD_TORCH_CHECK(shortcut->is_cpu() && same_shape(*shortcut, map.x),
                  "Expected: a shortcut of the shape and type of x.");
  dense_ = map.like(*shortcut);
  finish.shortcut = dense_->const_data_ptr();
}

void check_backward(const Tensor& dy, const Tensor& kept, const Tensor& x, int64_t count) {
  STD_TORCH_CHECK(
      kept.is_cpu() && kept.scalar_type() == ScalarType::Float && kept.is_contiguous() && kept.numel() == count,
      "Expected: the ", count, " floats that forward kept. Received: ", kept.numel(), " values.");
  STD_TORCH_CHECK(dy.is_cpu() && same_shape(dy, x), "Expected: dy of the shape and type of x. Received: ", dy.numel(),
                  " values for ", x.numel(), ".");
}

const float* Weights::operator()(const Maybe& given, int64_t count) {
  constexpr int64_t SMALL = 1024;  // as many values are copied here in less time than torch's copy takes to begin
  if (!given) return nullptr;
  STD_TORCH_CHECK(given->is_cpu() && given->numel() == count, "Expected: a CPU weight of ", count, " values.");
  const ScalarType type = given->scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, "Expected: float32 or bfloat16 weights.");
  if (const bool dense = given->is_contiguous(); dense || count > SMALL) {
    if (!dense) copies_.push_back(torch::stable::contiguous(*given));
    const Tensor& weight = dense ? *given : copies_.back();
    if (type == ScalarType::Float) return static_cast<const float*>(weight.const_data_ptr());
    converted_.push_back(values(weight, count, [](int64_t i) { return i; }));
  } else {
    const auto sizes = given->sizes(), strides = given->strides();
    converted_.push_back(values(*given, count, [&](int64_t i) {
      int64_t at = 0;
      for (int64_t axis = given->dim() - 1; axis >= 0; axis--) at += i % sizes[axis] * strides[axis], i /= sizes[axis];
      return at;
    }));
  }
  return converted_.back().data();
}

Gradients::Gradients(std::initializer_list<Maybe> weights, const Tensor& like) {
  for (const Maybe& weight : weights) {
    std::vector<int64_t> size;
    for (int64_t i = 0; weight && i < weight->dim(); i++) size.push_back(weight->size(i));
    tensors.push_back(floats(weight ? size : std::vector<int64_t>{0}, like));
    at.push_back(weight ? data(tensors.back()) : nullptr);
  }
}

}  // namespace foveate

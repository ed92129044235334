// The kernels for one instruction set.
// Each file of an instruction set includes it, with its own FOVEATE_ISA and FOVEATE_WIDTH. Code that other files share,
// such as the templates of the standard library, is included before the instruction set is switched on, and everything
// here is static. Otherwise the linker could choose code for a wider instruction set in a narrower one.

namespace foveate {
namespace FOVEATE_ISA {
namespace {

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

#include "simd.h"
//
#include "repeat.h"
//
#include "matmul.h"
#include "passes.h"
#include "phases.h"
//
#include "maps.h"
//
#include "gates.h"
#include "backward_passes.h"
//
#include "channel_spatial.h"
#include "channel_spatial_backward.h"
//
#include "transpose.h"
//
#include "lines.h"
//
#include "coordinate_nchw.h"
#include "coordinate_nhwc.h"
//
#include "coordinate.h"
#include "coordinate_backward.h"

template <class T>
const T* in(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
T* out(void* p) {
  return static_cast<T*>(p);
}

void channel_spatial(const Threads& threads, const ChannelSpatial& a, const void* x, void* y, void* channel,
                     void* spatial, float* kept, float* statistics, float* work) {
  const auto as = [&](auto type) {
    using T = decltype(type);
    forward(threads, a, in<T>(x), out<T>(y), out<T>(channel), out<T>(spatial), kept, statistics, work);
  };
  a.shape.half ? as(bfloat16{}) : as(float{});
}

void channel_spatial_backward(const Threads& threads, const ChannelSpatial& a, const void* dy, const void* x,
                              const float* kept, void* dx, const ChannelSpatialGradients& gradients, float* work) {
  const auto as = [&](auto type) {
    using T = decltype(type);
    backward(threads, a, in<T>(dy), in<T>(x), kept, out<T>(dx), gradients, work);
  };
  a.shape.half ? as(bfloat16{}) : as(float{});
}

int64_t channel_spatial_work(const Threads& threads, const ChannelSpatial& a, bool backward) {
  Arena count{nullptr};
  if (backward) Backward(a, nullptr, count);
  else Forward(threads, a, nullptr, count);
  return count.used;
}

void coordinate(const Threads& threads, const Coordinate& a, const void* x, void* y, void* row, void* column,
                float* kept, float* statistics, float* work) {
  const auto as = [&](auto type) {
    using T = decltype(type);
    forward(threads, a, in<T>(x), out<T>(y), out<T>(row), out<T>(column), kept, statistics, work);
  };
  a.shape.half ? as(bfloat16{}) : as(float{});
}

void coordinate_backward(const Threads& threads, const Coordinate& a, const void* dy, const void* x, const float* kept,
                         void* dx, const CoordinateGradients& gradients, float* work) {
  const auto as = [&](auto type) {
    using T = decltype(type);
    backward(threads, a, in<T>(dy), in<T>(x), kept, out<T>(dx), gradients, work);
  };
  a.shape.half ? as(bfloat16{}) : as(float{});
}

int64_t coordinate_work(const Threads& threads, const Coordinate& a, bool backward) {
  Arena count{nullptr};
  if (backward) CoordinateBackward(a, {}, nullptr, count);
  else CoordinateForward(threads, a, nullptr, count);
  return count.used;
}

}  // namespace
}  // namespace FOVEATE_ISA
}  // namespace foveate

// Runs the kernels that KERNELS names on unusual shapes under a sanitizer.
// Other tests check the numbers. Here all memory holds NaN at first, and the written values must be finite, inside
// their buffer, and the same for every order of the threads.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"
#include "memory.h"

using namespace foveate;

namespace {

using Buffers = std::vector<Buffer>;

std::string running;
std::mt19937 generator{0};

// Planted mistakes that must be found: `missing` values of y have no memory; with `racing`, each thread does all the
// work.
int64_t missing = 0;
bool racing = false;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s\n", running.c_str(), what);
  std::exit(1);
}

Buffer floats(int64_t count) { return Buffer(count * 4); }

Buffer values(const Shape& s, int64_t count) { return Buffer(count * (s.half ? 2 : 4)); }

int64_t size(const Shape& s) { return s.samples * s.channels * s.positions(); }

// A third of the values is exactly zero, as after a ReLU, so that maxima tie.
Buffer feature_map(const Shape& s) {
  Buffer map = values(s, size(s));
  std::normal_distribution<float> normal;
  for (int64_t i = 0; i < size(s); i++) {
    const float value = i % 3 ? normal(generator) : 0.f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    if (s.half) map.as<uint16_t>()[i] = static_cast<uint16_t>(bits >> 16);
    else map.as<float>()[i] = value;
  }
  return map;
}

bool finite(const Buffer& buffer, bool half) {
  const size_t count = buffer.bytes() / (half ? 2 : 4);
  for (size_t i = 0; i < count; i++)
    if (half ? (buffer.as<uint16_t>()[i] & 0x7f80) == 0x7f80 : !std::isfinite(buffer.as<float>()[i])) return false;
  return true;
}

// How work is shared: one thread; three threads of which one does all the work; or threads as torch divides it.
using Body = void (*)(void*, int64_t, int64_t);

void by_one(int64_t count, int64_t, Body body, void* context) { body(context, 0, count); }

template <bool LAST_FIRST>
void by_three(int64_t count, int64_t grain, Body body, void* context) {
  const int64_t part = std::max((count + 2) / 3, std::max<int64_t>(1, grain));
  std::vector<std::thread> threads;
  for (int64_t begin = 0; begin < count; begin += part) {
    const int64_t from = LAST_FIRST ? (count - 1) / part * part - begin : begin;
    threads.emplace_back(body, context, racing ? 0 : from, std::min(from + part, count));
    if (LAST_FIRST) threads.back().join();
  }
  for (std::thread& thread : threads)
    if (thread.joinable()) thread.join();
}

constexpr Threads ALONE{1, by_one}, BUSY{3, by_one}, THREE{3, by_three<false>}, BACKWARDS{3, by_three<true>};

// The weights of a task, and memory for their gradients in the same order.
struct Weights {
  Buffers held;
  std::normal_distribution<float> normal;

  const float* add(bool present, int64_t count, float centre = 0) {
    if (!present) return nullptr;
    Buffer weight = floats(count);
    for (int64_t i = 0; i < count; i++) weight.as<float>()[i] = centre + 0.25f * normal(generator);
    held.push_back(std::move(weight).frozen());
    return held.back().as<float>();
  }
  const float* positive(bool present, int64_t count) { return add(present, count, 2); }
};

struct Gradients {
  Buffers held;

  float* add(const float* weight, int64_t count) {
    if (!weight) return nullptr;
    held.push_back(floats(count));
    return held.back().as<float>();
  }
};

struct Gate {
  const char* name;
  Logits logits;
  int64_t hidden;  // hidden units of the two layers, or the kernel size along the channels
  bool average, maximum;
  int64_t kernel_size;  // 0: no spatial gate
  bool norm, parallel, extras;  // extras: biases, and a scale of 2
  Scaling scaling = Scaling::product;
};

using L = Logits;
constexpr Gate GATES[] = {
    {"se", L::two_layers, 1, true, false, 0, false, false, true},
    {"se without biases", L::two_layers, 5, true, false, 0, false, false, false},
    {"channel", L::two_layers, 9, true, true, 0, false, false, true},
    {"channel by maximum", L::two_layers, 4, false, true, 0, false, false, false},
    {"ese", L::one_layer, 0, true, false, 0, false, false, true},
    {"gct", L::competing, 0, false, false, 0, false, false, true},
    {"srm", L::own, 0, true, false, 0, true, false, true},
    {"eca 1", L::along_channels, 1, true, false, 0, false, false, false},
    {"eca 7", L::along_channels, 7, true, false, 0, false, false, true},
    {"spatial 7", L::none, 0, false, false, 7, true, false, false},
    {"spatial 3", L::none, 0, false, false, 3, false, false, true},
    {"scse", L::two_layers, 5, true, false, 0, false, false, true, Scaling::greater},
    {"simam", L::none, 0, true, false, 0, false, false, false, Scaling::each_value},
    {"cbam", L::two_layers, 3, true, true, 7, true, false, true},
    {"cbam in parallel", L::two_layers, 17, true, true, 3, true, true, true},
    {"cbam by average", L::two_layers, 2, true, false, 1, false, false, false},
};

// The numbers of weights of the channel gate.
int64_t reduced(const ChannelSpatial& t) {
  const int64_t C = t.shape.channels;
  return t.logits == L::two_layers       ? t.hidden * C
         : t.logits == L::along_channels ? t.hidden
         : t.logits == L::competing      ? C
         : t.logits == L::own            ? 2 * C
                                         : 0;
}
int64_t expanded(const ChannelSpatial& t) {
  const int64_t C = t.shape.channels;
  return t.logits == L::two_layers || t.logits == L::one_layer ? C * t.hidden : t.logits == L::competing ? C : 0;
}

ChannelSpatial task(const Gate& gate, const Shape& s, bool training, Weights& w) {
  const int64_t C = s.channels, K = gate.kernel_size;
  const bool running = gate.norm && !training;
  ChannelSpatial t{};
  t.shape = s, t.logits = gate.logits, t.hidden = gate.hidden ? gate.hidden : C;
  t.average = gate.average, t.maximum = gate.maximum;
  t.euclidean = gate.logits == L::competing, t.deviation = gate.logits == L::own || gate.scaling == Scaling::each_value, t.hard = gate.logits == L::one_layer;
  t.reduce = w.add(reduced(t), reduced(t));
  t.reduce_bias = w.add(gate.logits == L::two_layers && gate.extras, gate.hidden);
  t.expand = w.add(expanded(t), expanded(t));
  t.expand_bias = w.add(expanded(t) && gate.extras, C);
  const bool greater = gate.scaling == Scaling::greater;
  t.conv = w.add(K || greater, greater ? C : 2 * K * K), t.scaling = gate.scaling;
  t.conv_bias = w.add((K || greater) && gate.extras, 1);
  const int64_t normed = K ? 1 : C;
  t.norm_weight = w.positive(gate.norm, normed), t.norm_bias = w.add(gate.norm, normed);
  t.norm_mean = w.add(running, normed), t.norm_var = w.positive(running, normed);
  t.kernel_size = K, t.scale = gate.extras ? 2.f : 1.f, t.eps = t.pool_eps = 1e-5f, t.training = training, t.parallel = gate.parallel;
  return t;
}

Coordinate task(int64_t hidden, bool extras, const Shape& s, bool training, Weights& w) {
  const int64_t C = s.channels;
  Coordinate t{};
  t.shape = s;
  t.squeeze = w.add(true, hidden * C), t.squeeze_bias = w.add(extras, hidden);
  t.norm_weight = w.positive(true, hidden), t.norm_bias = w.add(true, hidden);
  t.norm_mean = w.add(!training, hidden), t.norm_var = w.positive(!training, hidden);
  t.row = w.add(true, C * hidden), t.row_bias = w.add(extras, C);
  t.column = w.add(true, C * hidden), t.column_bias = w.add(extras, C);
  t.hidden = hidden, t.scale = extras ? 2.f : 1.f, t.eps = 1e-5f, t.training = training, t.hardswish = extras;
  return t;
}

int64_t statistics_size(const ChannelSpatial& t) { return t.training ? 2 * t.normed() : 0; }
int64_t statistics_size(const Coordinate& t) { return t.training ? 2 * t.hidden : 0; }

int64_t kept_size(const ChannelSpatial& t) { return t.kept(); }
int64_t kept_size(const Coordinate& t) { return t.shape.samples * t.hidden * (t.shape.height + t.shape.width); }

// The sizes of the two gates, 0 where there is none.
std::pair<int64_t, int64_t> gate_sizes(const ChannelSpatial& t) {
  return {t.has_channel_gate() ? t.shape.samples * t.shape.channels : 0, t.conv ? t.shape.samples * t.shape.positions() : 0};
}
std::pair<int64_t, int64_t> gate_sizes(const Coordinate& t) {
  const int64_t maps = t.shape.samples * t.shape.channels;
  return {maps * t.shape.height, maps * t.shape.width};
}

int64_t work_size(const Kernels& k, const Threads& threads, const ChannelSpatial& t, bool backward) {
  return k.channel_spatial_work(threads, t, backward);
}
int64_t work_size(const Kernels& k, const Threads& threads, const Coordinate& t, bool backward) {
  return k.coordinate_work(threads, t, backward);
}

template <class... A>
void forward(const Kernels& k, const Threads& threads, const ChannelSpatial& t, A... rest) {
  k.channel_spatial(threads, t, rest...);
}
template <class... A>
void forward(const Kernels& k, const Threads& threads, const Coordinate& t, A... rest) {
  k.coordinate(threads, t, rest...);
}

void backward(const Kernels& k, const Threads& threads, const ChannelSpatial& t, const Buffer& dy, const Buffer& x, const Buffer& kept,
              const Buffer& dx, Gradients& g, const Buffer& work) {
  const int64_t C = t.shape.channels, K = t.kernel_size;
  ChannelSpatialGradients to{};
  to.reduce = g.add(t.reduce, reduced(t)), to.reduce_bias = g.add(t.reduce_bias, t.hidden);
  to.expand = g.add(t.expand, expanded(t)), to.expand_bias = g.add(t.expand_bias, C);
  to.conv = g.add(t.conv, t.scaling == Scaling::greater ? C : 2 * K * K), to.conv_bias = g.add(t.conv_bias, 1);
  to.norm_weight = g.add(t.norm_weight, t.normed()), to.norm_bias = g.add(t.norm_bias, t.normed());
  k.channel_spatial_backward(threads, t, dy.as<void>(), x.as<void>(), kept.as<float>(), dx.as<void>(), to, work.as<float>());
}
void backward(const Kernels& k, const Threads& threads, const Coordinate& t, const Buffer& dy, const Buffer& x, const Buffer& kept,
              const Buffer& dx, Gradients& g, const Buffer& work) {
  const int64_t C = t.shape.channels, M = t.hidden;
  CoordinateGradients to{};
  to.squeeze = g.add(t.squeeze, M * C), to.squeeze_bias = g.add(t.squeeze_bias, M);
  to.norm_weight = g.add(t.norm_weight, M), to.norm_bias = g.add(t.norm_bias, M);
  to.row = g.add(t.row, C * M), to.row_bias = g.add(t.row_bias, C);
  to.column = g.add(t.column, C * M), to.column_bias = g.add(t.column_bias, C);
  k.coordinate_backward(threads, t, dy.as<void>(), x.as<void>(), kept.as<float>(), dx.as<void>(), to, work.as<float>());
}

// Returns y, the kept values, the statistics, dx and the gradients of the weights; also checks that the two other forms
// of forward agree with the first.
template <class Task>
Buffers step(const Kernels& k, const Threads& threads, const Task& t, const Buffer& x, const Buffer& dy) {
  const Shape& s = t.shape;
  const auto [first, second] = gate_sizes(t);
  Buffer y = values(s, size(s) - missing), dx = values(s, size(s)), kept = floats(kept_size(t)), statistics = floats(statistics_size(t));
  const Buffer work = floats(work_size(k, threads, t, false)), more = floats(work_size(k, threads, t, true));
  forward(k, threads, t, x.as<void>(), y.as<void>(), nullptr, nullptr, kept.as<float>(), statistics.as<float>(), work.as<float>());

  Gradients gradients;
  const Buffer frozen = std::move(kept).frozen();
  backward(k, threads, t, dy, x, frozen, dx, gradients, more);

  if (!t.training) {
    const Buffer in_place = values(s, size(s)), unused = floats(kept_size(t)),
                 scratch = floats(work_size(k, threads, t, false));
    std::memcpy(in_place.as<char>(), x.as<char>(), x.bytes());
    forward(k, threads, t, in_place.as<void>(), in_place.as<void>(), nullptr, nullptr, unused.as<float>(), statistics.as<float>(),
            scratch.as<float>());
    expect(in_place == y, "in place gives other numbers");

    Task finishes = t;
    finishes.finish = {dy.as<void>(), Activation::relu, 0, Activation::none, 0};
    std::memcpy(in_place.as<char>(), x.as<char>(), x.bytes());
    forward(k, threads, finishes, in_place.as<void>(), in_place.as<void>(), nullptr, nullptr, unused.as<float>(),
            statistics.as<float>(), scratch.as<float>());
    expect(finite(in_place, s.half), "a finished value is not finite");
    for (int64_t i = 0; i < size(s) && !s.half; i++)
      expect(in_place.as<float>()[i] == std::max(0.f, y.as<float>()[i] + dy.as<float>()[i]), "a block is finished otherwise");

    // A leaky ReLU that doubles negative values: exact in both types, and another value where it is applied twice.
    const Buffer activated = values(s, size(s));
    std::memcpy(activated.as<char>(), x.as<char>(), x.bytes());
    for (int64_t i = 0; i < size(s); i++)
      if (s.half) activated.as<uint16_t>()[i] += activated.as<uint16_t>()[i] >> 15 ? 1 << 7 : 0;
      else activated.as<float>()[i] *= activated.as<float>()[i] < 0 ? 2 : 1;
    forward(k, threads, t, activated.as<void>(), activated.as<void>(), nullptr, nullptr, unused.as<float>(),
            statistics.as<float>(), scratch.as<float>());
    Task begins = t;
    begins.finish.before = Activation::leaky_relu, begins.finish.before_slope = 2;
    std::memcpy(in_place.as<char>(), x.as<char>(), x.bytes());
    forward(k, threads, begins, in_place.as<void>(), in_place.as<void>(), nullptr, nullptr, unused.as<float>(),
            statistics.as<float>(), scratch.as<float>());
    expect(in_place == activated, "the activation before the gates gives other numbers");

    const Buffer one = values(s, first), other = values(s, second), again = floats(work_size(k, threads, t, false));
    forward(k, threads, t, x.as<void>(), nullptr, first ? one.as<void>() : nullptr, second ? other.as<void>() : nullptr,
            unused.as<float>(), statistics.as<float>(), again.as<float>());
    expect(finite(one, s.half) && finite(other, s.half), "a gate is not finite");
  }

  expect(finite(y, s.half), "y is not finite");
  expect(finite(dx, s.half), "the gradient of x is not finite");
  expect(finite(frozen, false) && finite(statistics, false), "what is kept is not finite");
  for (const Buffer& gradient : gradients.held) expect(finite(gradient, false), "the gradient of a weight is not finite");

  Buffers all = std::move(gradients.held);
  all.push_back(std::move(y)), all.push_back(std::move(dx)), all.push_back(std::move(statistics));
  return all;
}

// With "numbers", the numbers of every step are printed instead of being checked, to compare two processors.
bool printing = false;

void print(const Buffers& all, bool half) {
  for (size_t i = 0; i < all.size(); i++) {
    const bool narrow = half && i + 3 >= all.size() && i + 1 < all.size();  // y and dx, before the statistics
    for (size_t j = 0; j < all[i].bytes() / (narrow ? 2 : 4); j++) {
      uint32_t bits = narrow ? static_cast<uint32_t>(all[i].as<uint16_t>()[j]) << 16 : all[i].as<uint32_t>()[j];
      std::fwrite(&bits, 4, 1, stdout);
    }
  }
}

template <class Task>
void check(const Kernels& k, const Task& t, const std::string& name) {
  const Shape& s = t.shape;
  running = std::string(k.name) + ", " + name + ", " + std::to_string(s.samples) + "x" + std::to_string(s.channels) + "x" +
            std::to_string(s.height) + "x" + std::to_string(s.width) + (s.channels_last ? ", channels last" : "") +
            (s.half ? ", bfloat16" : "") + (t.training ? ", training" : "") + (Buffer::in_pages ? ", in pages" : "");
  const Buffer x = feature_map(s).frozen(), dy = feature_map(s).frozen();
  if (printing) {
    print(step(k, ALONE, t, x, dy), s.half);
  } else if (Buffer::in_pages) {
    const Buffers together = step(k, THREE, t, x, dy);
    expect(together == step(k, BACKWARDS, t, x, dy), "the order of the threads shows in the numbers");
  } else {
    step(k, ALONE, t, x, dy);
    step(k, BUSY, t, x, dy);
  }
}

struct Size {
  int64_t samples, channels, height, width;
};

// The last three are large enough to be shared among threads: as parts of one sample, as parts of each phase, and as
// whole samples and parts.
constexpr Size SIZES[] = {{1, 1, 1, 1},    {3, 24, 1, 1},   {1, 3, 1, 6},   {1, 1000, 1, 6},  {3, 8, 7, 7},    {1, 1000, 7, 7},
                          {17, 24, 9, 5}, {3, 3, 63, 60}, {1, 24, 63, 60}, {1, 2048, 7, 7}, {4, 6, 63, 60}};

// Checks every gate on a map in evaluation mode, and in training mode where there is a batch norm and more than one
// value.
void check_all(const Kernels& k, const Shape& s) {
  for (const bool training : {false, true}) {
    for (const Gate& gate : GATES) {
      if (training && !(gate.norm && s.samples * (gate.kernel_size ? s.positions() : 1) > 1)) continue;
      Weights weights;
      check(k, task(gate, s, training, weights), gate.name);
    }
    for (const bool extras : {false, true}) {
      Weights weights;
      check(k, task(extras ? 8 : 3, extras, s, training, weights), extras ? "coordinate" : "coordinate without biases");
    }
  }
}

}  // namespace

// With the argument "heap", "pages" or "race", plants a mistake in that kind of memory or among threads, which must end
// the program. With "guarded", all memory is in pages. With "numbers", the numbers of small maps are printed.
int main(int count, char** arguments) {
  const std::string asked = count > 1 ? arguments[1] : "";
  const bool guarded = asked == "guarded";
  printing = asked == "numbers";
  if (!asked.empty() && !guarded && !printing) {
    racing = asked == "race";
    missing = racing ? 0 : 1;
    Buffer::in_pages = asked != "heap";
    check_all(KERNELS, {1, 64, 20, 20, true, false});
  }
  for (const Size& size : SIZES)
    for (int form = guarded ? 4 : 0; form < (printing ? 4 : 8); form++) {
      if (printing && (size.height > 9 || size.channels > 99)) continue;
      Buffer::in_pages = form & 4;
      check_all(KERNELS, {size.samples, size.channels, size.height, size.width, (form & 1) != 0, (form & 2) != 0});
    }
  if (!printing) std::printf("%s passed\n", KERNELS.name);
}

// The small maps of a spatial gate: convolution over zero-padded maps, and the statistics of a batch norm.

// Maps of height x width with a border of `pad` zeros on all sides.
struct Padded {
  int64_t height, width, pad;

  int64_t stride() const { return width + 2 * pad; }
  int64_t size() const { return (height + 2 * pad) * stride(); }

  void put(const float* map, float* padded) const {
    each(size(), [&](int64_t i, auto lanes) { store(padded + i, Vec{}, lanes); });
    for (int64_t y = 0; y < height; y++)
      each(width, [&](int64_t x, auto lanes) {
        store(padded + (y + pad) * stride() + pad + x, load(map + y * width + x, lanes), lanes);
      });
  }
};

// out(y, x) = bias + sum over maps m, u, v of kernel(m, u, v) padded_m(y + u, x + v), for the rows y of [begin, end).
static void correlate(const Padded& size, int64_t maps, const float* padded, const float* kernel, float bias,
                      float* out, int64_t begin, int64_t end) {
  const int64_t K = 2 * size.pad + 1, stride = size.stride();
  const auto rows = [&](int64_t y, auto height) {
    constexpr int HEIGHT = decltype(height)::value;
    each(size.width, [&](int64_t x, auto lanes) {
      Vec sum[HEIGHT];
      for (int i = 0; i < HEIGHT; i++) sum[i] = splat(bias);
      const float* weight = kernel;
      for (int64_t m = 0; m < maps; m++)
        for (int64_t u = 0; u < K; u++)
          for (int64_t v = 0; v < K; v++) {
            const float* from = padded + m * size.size() + (y + u) * stride + x + v;
            const Vec w = splat(*weight++);
            for (int i = 0; i < HEIGHT; i++) sum[i] = fma(w, load(from + i * stride, lanes), sum[i]);
          }
      for (int i = 0; i < HEIGHT; i++) store(out + (y + i) * size.width + x, sum[i], lanes);
    });
  };
  int64_t y = begin;
  for (; y + 4 <= end; y += 4) rows(y, std::integral_constant<int, 4>{});
  for (; y < end; y++) rows(y, std::integral_constant<int, 1>{});
}

// gradient(m, u, v) = sum over y, x of out(y, x) padded_m(y + u, x + v).
static void correlate_weights(const Padded& size, int64_t maps, const float* padded, const float* out,
                              float* gradient) {
  const int64_t K = 2 * size.pad + 1, stride = size.stride();
  const auto taps = [&](const float* from, float* to, auto count) {
    constexpr int COUNT = decltype(count)::value;
    Vec sum[COUNT] = {};
    for (int64_t y = 0; y < size.height; y++)
      each(size.width, [&](int64_t x, auto lanes) {
        const Vec d = load(out + y * size.width + x, lanes);
        for (int i = 0; i < COUNT; i++) sum[i] = fma(d, load(from + y * stride + x + i, lanes), sum[i]);
      });
    for (int i = 0; i < COUNT; i++) to[i] = ::foveate::FOVEATE_ISA::sum(sum[i]);
  };
  for (int64_t m = 0; m < maps; m++)
    for (int64_t u = 0; u < K; u++) {
      const float* from = padded + m * size.size() + u * stride;
      float* to = gradient + (m * K + u) * K;
      int64_t v = 0;
      for (; v + 4 <= K; v += 4) taps(from + v, to + v, std::integral_constant<int, 4>{});
      for (; v < K; v++) taps(from + v, to + v, std::integral_constant<int, 1>{});
    }
}

// One channel of a batch norm: pieces of `length` floats, `step` apart. The sums of the pieces are added in double.
struct Channel {
  int64_t pieces, length, step;

  template <class F>
  double sum_of(F f) const {
    double total = 0;
    for (int64_t p = 0; p < pieces; p++)
      for (int64_t from = 0; from < length; from += CHAIN * WIDTH) {
        Vec part{};
        each(smaller(CHAIN * WIDTH, length - from),
             [&](int64_t i, auto lanes) { part = part + fill(f(p * step + from + i, lanes), 0, lanes); });
        total += static_cast<double>(sum(part));
      }
    return total;
  }
};

// normed = (raw - mean) * scale + bias; hat = (raw - mean) * inverse is the value before weight and bias of the norm.
struct Norm {
  float mean, inverse, scale, bias;

  Norm(float mean, float variance, float eps, float weight, float bias)
      : mean(mean), inverse(1.f / __builtin_sqrtf(variance + eps)), scale(weight * inverse), bias(bias) {}
  float apply(float raw) const { return apply(splat(raw))[0]; }
  Vec apply(Vec raw) const { return fma(raw - mean, splat(scale), splat(bias)); }
  Vec hat(Vec raw) const { return (raw - mean) * inverse; }
};

struct Moments {
  float mean, variance;  // the biased variance, used to normalise; torch's running variance is the unbiased one

  float unbiased(int64_t count) const {
    return variance * static_cast<float>(static_cast<double>(count) / static_cast<double>(count - 1));
  }
};

static Moments moments(const float* raw, const Channel& channel) {
  const double count = static_cast<double>(channel.pieces * channel.length);
  const float mean =
      static_cast<float>(channel.sum_of([&](int64_t i, auto lanes) { return load(raw + i, lanes); }) / count);
  const double squares = channel.sum_of([&](int64_t i, auto lanes) {
    const Vec d = load(raw + i, lanes) - mean;
    return d * d;
  });
  return {mean, static_cast<float>(squares / count)};
}

// The norm of each of `count` channels, by the statistics of the batch when training. The first values of the channels
// are `apart` floats from each other.
template <class Arguments>
static void find_norms(const Threads& threads, const Arguments& a, const float* raw, int64_t count, int64_t apart,
                       const Channel& channel, Norm* norms, float* statistics) {
  const int64_t values = channel.pieces * channel.length;
  share(threads, count, WORTH_A_THREAD / values + 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      const Moments found = a.training ? moments(raw + c * apart, channel) : Moments{a.norm_mean[c], a.norm_var[c]};
      norms[c] = Norm(found.mean, found.variance, a.eps, a.norm_weight[c], a.norm_bias[c]);
      if (!a.training || !statistics) continue;
      statistics[c] = found.mean;
      statistics[count + c] = found.unbiased(values);
    }
  });
}

// Turns d(normed) into d(raw) in place, and stores the gradients of weight and bias.
static void norm_backward(const Norm& norm, const float* raw, float* d, const Channel& channel, bool training,
                          float* weight, float* bias) {
  const double count = static_cast<double>(channel.pieces * channel.length);
  const double by_bias = channel.sum_of([&](int64_t i, auto lanes) { return load(d + i, lanes); });
  double by_weight =
      channel.sum_of([&](int64_t i, auto lanes) { return load(d + i, lanes) * norm.hat(load(raw + i, lanes)); });
  // The batch mean is rounded to a float, which shifts every hat by the same error; the sums would add it up.
  const double off =
      training ? channel.sum_of([&](int64_t i, auto lanes) { return norm.hat(load(raw + i, lanes)); }) / count : 0;
  by_weight -= off * by_bias;
  *weight = static_cast<float>(by_weight);
  *bias = static_cast<float>(by_bias);
  const float by_hat = training ? static_cast<float>(by_weight / count) : 0;
  const double exact = training ? by_bias / count - off * static_cast<double>(by_hat) : 0;
  const float mean = static_cast<float>(exact), rest = static_cast<float>(exact - static_cast<double>(mean));
  for (int64_t p = 0; p < channel.pieces; p++)
    each(channel.length, [&](int64_t i, auto lanes) {
      const int64_t at = p * channel.step + i;
      store(d + at, ((load(d + at, lanes) - mean - norm.hat(load(raw + at, lanes)) * by_hat) - rest) * norm.scale,
            lanes);
    });
}

// From the pooled values of the channels to their gates, forward and backward.
// By one or two layers, by a convolution along the channels, in competition, or each by its own values.

// From d(gate) to d(logits), where gate = scale * sigmoid.
INLINE Vec gate_backward(Vec d, Vec sigmoid, float scale) { return scale * d * sigmoid * (1.f - sigmoid); }

// The same for a hard sigmoid, which has a slope between its ends alone; for NaN it is 0, as in torch.
INLINE Vec hard_gate_backward(Vec d, Vec sigmoid, float scale) {
  return select((sigmoid > 0.f) & (sigmoid < 1.f), scale * d / 6.f, Vec{});
}

// Hidden units [begin, end): relu(reduce z + bias) for each pooled vector z, and their sum over the pools, because all
// pools share the second layer.
static void squeeze(const ChannelSpatial& a, const float* pooled, int64_t samples, float* hidden, float* summed,
                    int64_t begin, int64_t end) {
  const int64_t C = a.shape.channels, R = a.hidden, P = a.pools();
  dots(samples * P, end - begin, C, 1, {pooled, C}, {a.reduce + begin * C, C}, {hidden + begin, R});
  for (int64_t n = 0; n < samples; n++)
    each(end - begin, [&](int64_t r, auto lanes) {
      Vec total{};
      for (int64_t p = 0; p < P; p++) {
        float* at = hidden + (n * P + p) * R + begin + r;
        Vec v = load(at, lanes);
        if (a.reduce_bias) v = v + load(a.reduce_bias + begin + r, lanes);
        v = select(v < 0.f, Vec{}, v);  // keeps a NaN, as torch does
        store(at, v, lanes);
        total = total + v;
      }
      store(summed + n * R + begin + r, total, lanes);
    });
}

// Logits of the channels [begin, end) from the summed hidden units, or from the pooled values where there is one layer.
static void excite(const ChannelSpatial& a, const float* summed, int64_t samples, float* logits, int64_t begin,
                   int64_t end) {
  const int64_t C = a.shape.channels, R = a.hidden;
  dots(samples, end - begin, R, 1, {summed, R}, {a.expand + begin * R, R}, {logits + begin, C});
  if (!a.expand_bias) return;
  for (int64_t n = 0; n < samples; n++)
    each(end - begin, [&](int64_t c, auto lanes) {
      float* at = logits + n * C + begin + c;
      store(at, fma(splat(static_cast<float>(a.pools())), load(a.expand_bias + begin + c, lanes), load(at, lanes)),
            lanes);
    });
}

// out(c) = sum over t of weight(t) in(c + t - pad), for the channels [begin, end) of each sample; the weights are
// reversed when `mirrored`.
static void along_channels(const float* in, int64_t samples, int64_t channels, const float* weight, int64_t size,
                           bool mirrored, float* out, int64_t begin, int64_t end) {
  const int64_t pad = size / 2, left = smaller(larger(pad, begin), end),
                right = larger(smaller(channels - pad, end), left);
  const auto at = [&](int64_t t) { return weight[mirrored ? size - 1 - t : t]; };
  for (int64_t n = 0; n < samples; n++) {
    const float* from = in + n * channels - pad;
    float* to = out + n * channels;
    const auto edge = [&](int64_t c) {
      to[c] = 0;
      for (int64_t t = larger(0, pad - c); t < smaller(size, channels + pad - c); t++) to[c] += at(t) * from[c + t];
    };
    for (int64_t c = begin; c < left; c++) edge(c);
    each(right - left, [&](int64_t c, auto lanes) {
      Vec total{};
      for (int64_t t = 0; t < size; t++) total = fma(splat(at(t)), load(from + left + c + t, lanes), total);
      store(to + left + c, total, lanes);
    });
    for (int64_t c = right; c < end; c++) edge(c);
  }
}

static void along_channels_weights(const float* in, const float* out, int64_t samples, int64_t channels, int64_t size,
                                   float* gradient) {
  const int64_t pad = size / 2;
  for (int64_t t = 0; t < size; t++) {
    const int64_t from = larger(0, pad - t), to = smaller(channels, channels + pad - t);
    double total = 0;
    for (int64_t n = 0; n < samples; n++) {
      Vec part{};
      each(to - from, [&](int64_t c, auto lanes) {
        const int64_t at = n * channels + from + c;
        part = fma(load(out + at, lanes), load(in + at + t - pad, lanes), part);
      });
      total += static_cast<double>(sum(part));
    }
    gradient[t] = static_cast<float>(total);
  }
}

// GCT's competition of the channels of one sample: relative(c) is e / |e|, with e = reduce * length and
// |e| = sqrt(mean over the channels of e^2 + eps).
struct Competition {
  const ChannelSpatial& a;
  const float* lengths;
  const Channel all{1, a.shape.channels, 0};
  const float inverse = 1.f / __builtin_sqrtf(mean([&](int64_t c, auto lanes) {
                                                const Vec e = load(a.reduce + c, lanes) * load(lengths + c, lanes);
                                                return e * e;
                                              }) +
                                              a.pool_eps);

  template <class F>
  float mean(F f) const {
    return static_cast<float>(all.sum_of(f) / static_cast<double>(a.shape.channels));
  }
  template <class L>
  Vec relative(int64_t c, L lanes) const {
    return load(a.reduce + c, lanes) * load(lengths + c, lanes) * inverse;
  }
  // The factor is that of 1 + tanh(z) = 2 sigmoid(2 z).
  template <class L>
  Vec logits(int64_t c, L lanes) const {
    return 2.f * fma(load(a.expand + c, lanes), relative(c, lanes), load(a.expand_bias + c, lanes));
  }
};

// The gradient of e, from those of the logits.
struct CompetitionBackward : Competition {
  const float* d_logits;
  const float common = mean([&](int64_t c, auto lanes) { return d_relative(c, lanes) * relative(c, lanes); });

  CompetitionBackward(const ChannelSpatial& a, const float* lengths, const float* d_logits)
      : Competition{a, lengths}, d_logits(d_logits) {}

  template <class L>
  Vec d_relative(int64_t c, L lanes) const {
    return 2.f * load(d_logits + c, lanes) * load(a.expand + c, lanes);
  }
  template <class L>
  Vec d_e(int64_t c, L lanes) const {
    return inverse * (d_relative(c, lanes) - relative(c, lanes) * common);
  }
};

// SRM's logits: out(c) = sum over the pools p of reduce(c, p) pooled(p, c), for the channels [begin, end).
static void own_logits(const ChannelSpatial& a, const float* pooled, int64_t samples, float* logits, int64_t begin,
                       int64_t end) {
  const int64_t C = a.shape.channels, P = a.pools();
  for (int64_t n = 0; n < samples; n++)
    for (int64_t c = begin; c < end; c++) {
      float total = 0;
      for (int64_t p = 0; p < P; p++) total += a.reduce[c * P + p] * pooled[(n * P + p) * C + c];
      logits[n * C + c] = total;
    }
}

// The gradients of the pooled values, and of the weights.
static void own_pooled(const ChannelSpatial& a, const float* d_logits, int64_t samples, float* d_pooled, int64_t begin,
                       int64_t end) {
  const int64_t C = a.shape.channels, P = a.pools();
  for (int64_t n = 0; n < samples; n++)
    for (int64_t p = 0; p < P; p++)
      for (int64_t c = begin; c < end; c++) d_pooled[(n * P + p) * C + c] = a.reduce[c * P + p] * d_logits[n * C + c];
}
static void own_weights(const ChannelSpatial& a, const float* pooled, const float* d_logits, float* gradient) {
  const int64_t C = a.shape.channels, P = a.pools();
  for (int64_t c = 0; c < C; c++)
    for (int64_t p = 0; p < P; p++) {
      double total = 0;
      for (int64_t n = 0; n < a.shape.samples; n++)
        total += static_cast<double>(d_logits[n * C + c]) * static_cast<double>(pooled[(n * P + p) * C + c]);
      gradient[c * P + p] = static_cast<float>(total);
    }
}

// out(c) = sum over the samples n of left(n, c) right(n, c).
static void sum_products(const float* left, const float* right, int64_t samples, int64_t channels, float* out) {
  each(channels, [&](int64_t c, auto lanes) {
    Vec total{};
    for (int64_t n = 0; n < samples; n++)
      total = fma(load(left + n * channels + c, lanes), load(right + n * channels + c, lanes), total);
    store(out + c, total, lanes);
  });
}

// The sum of each column of a small matrix, times `factor`.
static void sum_rows(const float* in, int64_t rows, int64_t columns, float factor, float* out) {
  each(columns, [&](int64_t j, auto lanes) {
    Vec total{};
    for (int64_t i = 0; i < rows; i++) total = total + load(in + i * columns + j, lanes);
    store(out + j, total * factor, lanes);
  });
}

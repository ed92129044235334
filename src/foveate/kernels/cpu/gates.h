// From the pooled values of the channels to their gates, forward and backward.
// By the two layers of SE and CBAM, or by ECA's convolution along the channels.

// From d(gate) to d(logits), where gate = scale * sigmoid.
INLINE Vec gate_backward(Vec d, Vec sigmoid, float scale) { return scale * d * sigmoid * (1.f - sigmoid); }

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

// Logits of the channels [begin, end) from the summed hidden units.
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

// The sum of each column of a small matrix, times `factor`.
static void sum_rows(const float* in, int64_t rows, int64_t columns, float factor, float* out) {
  each(columns, [&](int64_t j, auto lanes) {
    Vec total{};
    for (int64_t i = 0; i < rows; i++) total = total + load(in + i * columns + j, lanes);
    store(out + j, total * factor, lanes);
  });
}

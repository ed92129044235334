// y = x * gc * gs: a gate for each channel (gc), a gate for each position (gs), or both.

struct Sections {  // the offsets of the arrays in `kept`, each [samples][...]
  int64_t pooled, hidden, channel, maps, logits, size;

  explicit Sections(const ChannelSpatial& a) {
    const int64_t N = a.shape.samples, C = a.reduce ? a.shape.channels : 0, HW = a.conv ? a.shape.positions() : 0;
    pooled = 0;
    hidden = pooled + N * a.pools() * C;
    channel = hidden + (a.expand ? N * a.pools() * a.hidden : 0);
    maps = channel + N * C;
    logits = maps + 2 * N * HW;
    size = logits + N * HW;
  }

  template <class P>
  static P* of(P* kept, int64_t section) {
    return kept ? kept + section : nullptr;
  }
};

// How many samples go through the phases together: as many as the second-level cache holds, or up to 8 where the
// weights of the layers, which are read once for all of them, are large compared with a sample.
static int64_t block_of(const Shape& s, int64_t weights) {
  constexpr int64_t CACHE = 1 << 18;
  const int64_t sample = s.channels * s.positions();
  return larger(1, larger(CACHE / sample, smaller(16 * weights / sample, 8)));
}

static Norm norm_of(const ChannelSpatial& a, const Moments& m) {
  return Norm(m.mean, m.variance, a.eps, *a.norm_weight, *a.norm_bias);
}

static Norm running_norm(const ChannelSpatial& a) {
  return a.norm_weight ? norm_of(a, {*a.norm_mean, *a.norm_var}) : Norm(0, 1, 0, 1, 0);
}

struct Forward {
  const ChannelSpatial& a;
  const Shape& s = a.shape;
  const int64_t N = s.samples, C = s.channels, HW = s.positions(), P = a.pools();
  const int64_t rows = s.channels_last ? HW : C, columns = s.channels_last ? C : HW;
  const Padded padded{s.height, s.width, a.kernel_size / 2};
  float *pooled, *hidden, *channel, *maps, *logits;           // in `kept`
  float *summed, *channel_gate, *spatial_gate, *padded_maps;  // in the work memory

  Forward(const ChannelSpatial& args, float* kept, Arena& work) : a(args) {
    const Sections at(a);
    pooled = at.of(kept, at.pooled), hidden = at.of(kept, at.hidden), channel = at.of(kept, at.channel);
    maps = at.of(kept, at.maps), logits = at.of(kept, at.logits);
    summed = work.take(a.expand ? N * a.hidden : 0);
    channel_gate = work.take(a.reduce ? N * C : 0);
    spatial_gate = work.take(a.conv ? N * HW : 0);
    padded_maps = work.take(a.conv ? 2 * N * padded.size() : 0);
  }

  // The mean, and the maximum, of each channel.
  template <bool PEAK, class T>
  void pool(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *sums = pooled + n * P * C, *peaks = sums + (a.average ? C : 0);
      if (!a.average) sums = channel_gate + n * C;  // not used, but the sum shows a NaN
      if (s.channels_last) column_stats<false, PEAK>(x + n * C * HW, HW, C, part.begin, part.end, nullptr, sums, peaks);
      else row_stats<false, PEAK>(x + n * C * HW, HW, part.begin, part.end, nullptr, sums, peaks);
      if (a.average)
        each(part.end - part.begin, [&](int64_t c, auto lanes) {
          store(sums + part.begin + c, load(sums + part.begin + c, lanes) / static_cast<float>(HW), lanes);
        });
    }
  }

  void squeeze_channels(Share part) const {
    const int64_t from = part.first, R = a.hidden;
    squeeze(a, pooled + from * P * C, part.last - from, hidden + from * P * R, summed + from * R, part.begin, part.end);
  }

  void excite_channels(Share part) const {
    const int64_t samples = part.last - part.first;
    float* sigma = channel + part.first * C;
    if (a.expand) excite(a, summed + part.first * a.hidden, samples, sigma, part.begin, part.end);
    else along_channels(pooled + part.first * C, samples, C, a.reduce, a.hidden, false, sigma, part.begin, part.end);
    for (int64_t n = 0; n < samples; n++)
      each(part.end - part.begin, [&](int64_t i, auto lanes) {
        const int64_t at = n * C + part.begin + i;
        const Vec sigmoids = sigmoid(load(sigma + at, lanes));
        store(sigma + at, sigmoids, lanes);
        store(channel_gate + part.first * C + at, a.scale * sigmoids, lanes);
      });
  }

  // The maximum and the mean over the channels, of x or of x * gc.
  template <bool GATED, class T>
  void look(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *peaks = maps + 2 * n * HW, *sums = peaks + HW;
      const float* gate = GATED ? channel_gate + n * C : nullptr;
      if (s.channels_last) row_stats<GATED, true>(x + n * C * HW, C, part.begin, part.end, gate, sums, peaks);
      else column_stats<GATED, true>(x + n * C * HW, C, HW, part.begin, part.end, gate, sums, peaks);
      each(part.end - part.begin, [&](int64_t p, auto lanes) {
        store(sums + part.begin + p, load(sums + part.begin + p, lanes) / static_cast<float>(C), lanes);
      });
    }
  }

  void pad(Share part) const {
    for (int64_t n = part.first; n < part.last; n++)
      for (int64_t m = part.begin; m < part.end; m++)
        padded.put(maps + (2 * n + m) * HW, padded_maps + (2 * n + m) * padded.size());
  }

  void convolve(Share part) const {
    for (int64_t n = part.first; n < part.last; n++)
      correlate(padded, 2, padded_maps + 2 * n * padded.size(), a.conv, a.conv_bias ? *a.conv_bias : 0.f,
                logits + n * HW, part.begin, part.end);
  }

  void finish_spatial(const Norm& norm, Share part) const {
    for (int64_t i = part.first * HW; i < part.last * HW; i += HW)
      each(part.end - part.begin, [&](int64_t p, auto lanes) {
        const int64_t at = i + part.begin + p;
        const Vec raw = load(logits + at, lanes);
        store(spatial_gate + at, a.scale * sigmoid(a.norm_weight ? norm.apply(raw) : raw), lanes);
      });
  }

  template <class T>
  void multiply(const T* x, T* y, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float *by_channel = channel_gate + n * C, *by_position = spatial_gate + n * HW;
      const T* from = x + n * C * HW;
      T* to = y + n * C * HW;
      const float *row = s.channels_last ? by_position : by_channel,
                  *column = s.channels_last ? by_channel : by_position;
      if (a.reduce && a.conv) scale<true, true>(from, to, columns, part.begin, part.end, row, column);
      else if ((a.reduce != nullptr) != s.channels_last)
        scale<true, false>(from, to, columns, part.begin, part.end, row, column);
      else scale<false, true>(from, to, columns, part.begin, part.end, row, column);
    }
  }

  template <class T>
  void write_gates(T* by_channel, T* by_position) const {
    if (by_channel)
      each(N * C, [&](int64_t i, auto lanes) { store(by_channel + i, load(channel_gate + i, lanes), lanes); });
    if (by_position)
      each(N * HW, [&](int64_t i, auto lanes) { store(by_position + i, load(spatial_gate + i, lanes), lanes); });
  }
};

template <class T>
static void forward(const Threads& threads, const ChannelSpatial& a, const T* x, T* y, T* by_channel, T* by_position,
                    float* kept, float* statistics, float* memory) {
  Arena work{memory};
  const Forward f(a, kept, work);
  const int64_t N = f.N, C = f.C, HW = f.HW, sample = C * HW;
  const bool batch_norm = a.conv && a.norm_weight && a.training;
  const int64_t block = block_of(f.s, a.expand ? 2 * a.hidden * C : 0);
  Norm norm = batch_norm ? Norm(0, 1, 0, 1, 0) : running_norm(a);

  const Phase pool{a.reduce ? C : 0, HW,
                   [&](Share part) { a.maximum ? f.pool<true>(x, part) : f.pool<false>(x, part); }};
  const Phase squeezed{a.expand ? a.hidden : 0, f.P * C, [&](Share part) { f.squeeze_channels(part); }};
  const Phase excited{a.reduce ? C : 0, a.expand ? a.hidden : 16, [&](Share part) { f.excite_channels(part); }};
  const Phase looked{a.conv ? HW : 0, C,
                     [&](Share part) { a.reduce && !a.parallel ? f.look<true>(x, part) : f.look<false>(x, part); }};
  const Phase padded{a.conv ? 2 : 0, HW, [&](Share part) { f.pad(part); }};
  const Phase convolved{a.conv ? f.s.height : 0, f.s.width * a.kernel_size * a.kernel_size / 8,
                        [&](Share part) { f.convolve(part); }};
  const Phase finished{a.conv ? HW : 0, 16, [&](Share part) { f.finish_spatial(norm, part); }};
  const Phase multiplied{y ? f.rows : 0, f.columns, [&](Share part) { f.multiply(x, y, part); }};

  if (batch_norm) {
    run(threads, N, sample, block, pool, squeezed, excited, looked, padded, convolved);
    const Moments found = moments(f.logits, {1, N * HW, 0});
    statistics[0] = found.mean;
    statistics[1] = found.unbiased(N * HW);
    norm = norm_of(a, found);
    run(threads, N, sample, block, finished, multiplied);
  } else {
    run(threads, N, sample, block, pool, squeezed, excited, looked, padded, convolved, finished, multiplied);
  }
  if (!y) f.write_gates(by_channel, by_position);
}

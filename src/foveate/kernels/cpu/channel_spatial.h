// y = x * gc * gs: a gate for each channel (gc), a gate for each position (gs), or both.

struct Sections {  // the offsets of the arrays in `kept`, each [samples][...]
  int64_t pooled, hidden, channel, maps, logits, size;

  explicit Sections(const ChannelSpatial& a) {
    const int64_t N = a.shape.samples, C = a.has_channel_gate() ? a.shape.channels : 0,
                  HW = a.conv ? a.shape.positions() : 0;
    pooled = 0;
    hidden = pooled + N * a.pools() * a.shape.channels;
    channel = hidden + (a.logits == Logits::two_layers ? N * a.pools() * a.hidden : 0);
    maps = channel + N * C;
    logits = maps + a.maps() * N * HW;
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
  return a.conv && a.norm_weight ? norm_of(a, {*a.norm_mean, *a.norm_var}) : Norm(0, 1, 0, 1, 0);
}

// The size of the layers of the channels.
static int64_t weights_of(const ChannelSpatial& a) {
  const int64_t C = a.shape.channels;
  return a.logits == Logits::two_layers ? 2 * a.hidden * C : a.logits == Logits::one_layer ? C * C : 0;
}

// The positions of a channels_last sample in stretches, whose sums are added afterwards. Where threads share a sample,
// each so pools the positions that the layer before wrote and that it later scales: they are in its own cache.
struct Stretches {
  int64_t count, length;

  explicit Stretches(const ChannelSpatial& a) : count(0), length(0) {
    const bool sums = a.average || a.maximum, squares = a.euclidean || a.deviation;
    if (!a.shape.channels_last || !sums || squares) return;
    const int64_t positions = a.shape.positions(), threads = positions < 2 * CHAIN ? 4 : 8;
    const int64_t least = (positions + CHAIN - 1) / CHAIN, even = (least + threads - 1) / threads * threads;
    length = (positions + even - 1) / even;
    count = (positions + length - 1) / length;
  }
};

// The factors of SimAM's gates, 1 / (2 deviation), for the channels of a part.
static void own_factors(const ChannelSpatial& a, const float* pooled, Share part, float* factors) {
  const int64_t C = a.shape.channels;
  for (int64_t n = part.first; n < part.last; n++)
    each(part.end - part.begin, [&](int64_t i, auto lanes) {
      const int64_t c = part.begin + i;
      store(factors + n * C + c, 0.5f / load(pooled + (2 * n + 1) * C + c, lanes), lanes);
    });
}

struct Forward {
  const ChannelSpatial& a;
  const Shape& s = a.shape;
  const int64_t N = s.samples, C = s.channels, HW = s.positions(), P = a.pools();
  const int64_t rows = s.channels_last ? HW : C, columns = s.channels_last ? C : HW;
  const Padded padded{s.height, s.width, a.kernel_size / 2};
  const Stretches stretches{a};
  const Before before{a.finish.before, a.finish.before_slope};  // for the first pass
  const int64_t together;                                       // the samples that threads share, which are the last
  float *pooled, *hidden, *channel, *maps, *logits;             // in `kept`
  float *summed, *channel_gate, *channel_norms, *spatial_gate, *padded_maps, *stretch_sums;  // in the work memory

  Forward(const Threads& threads, const ChannelSpatial& args, float* kept, Arena& work)
      : a(args), together(args.shape.samples % threads.count) {
    const Sections at(a);
    pooled = at.of(kept, at.pooled), hidden = at.of(kept, at.hidden), channel = at.of(kept, at.channel);
    maps = at.of(kept, at.maps), logits = at.of(kept, at.logits);
    summed = a.logits == Logits::two_layers ? work.take(N * a.hidden) : pooled;
    channel_gate = work.take(a.pools() ? N * C : 0);
    channel_norms = work.take(a.conv ? 0 : a.normed() * sizeof(Norm) / sizeof(float));
    spatial_gate = work.take(a.conv ? N * HW : 0);
    padded_maps = work.take(a.maps() * N * padded.size());
    stretch_sums = work.take(2 * stretches.count * together * C);
  }

  Norm* norms() const { return reinterpret_cast<Norm*>(channel_norms); }

  // The mean, and the maximum, of each channel.
  template <bool PEAK, class T>
  void pool(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *sums = pooled + n * P * C, *peaks = sums + (a.average ? C : 0);
      if (!a.average) sums = channel_gate + n * C;  // not used, but the sum shows a NaN
      const T* from = x + n * C * HW;
      if (s.channels_last)
        column_stats<false, PEAK>(from, HW, C, part.begin, part.end, nullptr, sums, peaks, nullptr, before);
      else row_stats<false, PEAK>(from, HW, part.begin, part.end, nullptr, sums, peaks, nullptr, before);
      if (a.average)
        each(part.end - part.begin, [&](int64_t c, auto lanes) {
          store(sums + part.begin + c, load(sums + part.begin + c, lanes) / static_cast<float>(HW), lanes);
        });
    }
  }

  // The sum, and behind it the maximum, of each channel over a stretch of a sample that threads share.
  float* stretch(int64_t n, int64_t number) const {
    return stretch_sums + 2 * ((n - (N - together)) * stretches.count + number) * C;
  }

  // Fills the stretches of the share.
  template <bool PEAK, class T>
  void pool_stretches(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++)
      for (int64_t b = part.begin; b < part.end; b++) {
        const int64_t from = b * stretches.length, length = smaller(stretches.length, HW - from);
        float* sums = stretch(n, b);
        column_stats<false, PEAK>(x + (n * HW + from) * C, length, C, 0, C, nullptr, sums, sums + C, nullptr, before);
      }
  }

  // What `pool` finds, from the stretches.
  template <bool PEAK>
  void join_stretches(Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *means = pooled + n * P * C, *peaks = means + (a.average ? C : 0);
      each(part.end - part.begin, [&](int64_t i, auto lanes) {
        const int64_t c = part.begin + i;
        Vec sum{}, peak = splat(LOWEST);
        for (int64_t b = 0; b < stretches.count; b++) {
          sum = sum + load(stretch(n, b) + c, lanes);
          if constexpr (PEAK) peak = greater(peak, load(stretch(n, b) + C + c, lanes));
        }
        if constexpr (PEAK) store(peaks + c, peak, lanes);
        if (a.average) store(means + c, sum / static_cast<float>(HW), lanes);
      });
    }
  }

  // The sum of the distances of each channel from its centre, or of their squares, of sample n.
  template <Of OF, class T>
  void distances(const T* x, int64_t n, Share part, const float* centres, float* to, Before first = {}) const {
    const T* from = x + n * C * HW;
    if (s.channels_last)
      column_stats<false, false, OF>(from, HW, C, part.begin, part.end, nullptr, to, nullptr, centres, first);
    else row_stats<false, false, OF>(from, HW, part.begin, part.end, nullptr, to, nullptr, centres, first);
  }

  // The root of the sum of squares of each channel, or of its unbiased variance. First the mean is corrected: its
  // rounding error would add up in the gradient of a deviation that is small beside it.
  template <class T>
  void pool_squares(const T* x, Share part) const {
    const int64_t units = part.end - part.begin;
    const float count = static_cast<float>(a.deviation ? larger(HW - 1, 1) : 1);
    for (int64_t n = part.first; n < part.last; n++) {
      float *means = pooled + n * P * C, *found = means + (P - 1) * C, *zeros = channel_gate + n * C;
      fill(zeros + part.begin, units);
      if (a.deviation) {
        distances<Of::distance>(x, n, part, means, found);
        each(units, [&](int64_t i, auto lanes) {
          float* mean = means + part.begin + i;
          store(mean, load(mean, lanes) + load(found + part.begin + i, lanes) / static_cast<float>(HW), lanes);
        });
      }
      distances<Of::square>(x, n, part, a.deviation ? means : zeros, found, a.deviation ? Before{} : before);
      each(units, [&](int64_t i, auto lanes) {
        float* at = found + part.begin + i;
        store(at, root(load(at, lanes) / count + a.pool_eps), lanes);
      });
    }
  }

  void squeeze_channels(Share part) const {
    const int64_t from = part.first, R = a.hidden;
    squeeze(a, pooled + from * P * C, part.last - from, hidden + from * P * R, summed + from * R, part.begin, part.end);
  }

  // The logits of the channels [begin, end).
  void excite_channels(Share part) const {
    const int64_t samples = part.last - part.first, begin = part.begin, end = part.end;
    const float* from = pooled + part.first * P * C;
    float* to = channel + part.first * C;
    switch (a.logits) {
      case Logits::none:
        break;
      case Logits::two_layers:
      case Logits::one_layer:
        excite(a, summed + part.first * a.hidden, samples, to, begin, end);
        break;
      case Logits::along_channels:
        along_channels(from, samples, C, a.reduce, a.hidden, false, to, begin, end);
        break;
      case Logits::own:
        own_logits(a, from, samples, to, begin, end);
        break;
      case Logits::competing:
        for (int64_t n = 0; n < samples; n++) {
          const Competition found{a, from + n * C};
          each(end - begin,
               [&](int64_t i, auto lanes) { store(to + n * C + begin + i, found.logits(begin + i, lanes), lanes); });
        }
    }
  }

  void activate_channels(Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *values = channel + n * C, *gate = channel_gate + n * C;
      for (int64_t c = part.begin; !a.conv && a.norm_weight && c < part.end; c++)
        values[c] = norms()[c].apply(values[c]);
      each(part.end - part.begin, [&](int64_t i, auto lanes) {
        const int64_t c = part.begin + i;
        const Vec logits = load(values + c, lanes), sigmoids = a.hard ? hard_sigmoid(logits) : sigmoid(logits);
        store(values + c, sigmoids, lanes);
        store(gate + c, a.scale * sigmoids, lanes);
      });
    }
  }

  // The maximum and the mean over the channels, of x or of x * gc.
  template <bool GATED, class T>
  void look(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float *peaks = maps + 2 * n * HW, *sums = peaks + HW;
      const float* gate = GATED ? channel_gate + n * C : nullptr;
      const T* from = x + n * C * HW;
      const Before first = a.pools() ? Before{} : before;
      if (s.channels_last) row_stats<GATED, true>(from, C, part.begin, part.end, gate, sums, peaks, nullptr, first);
      else column_stats<GATED, true>(from, C, HW, part.begin, part.end, gate, sums, peaks, nullptr, first);
      each(part.end - part.begin, [&](int64_t p, auto lanes) {
        store(sums + part.begin + p, load(sums + part.begin + p, lanes) / static_cast<float>(C), lanes);
      });
    }
  }

  // The logits of the layer over the channels.
  template <class T>
  void weigh(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float* to = logits + n * HW;
      const T* from = x + n * C * HW;
      if (s.channels_last) row_stats<true, false>(from, C, part.begin, part.end, a.conv, to, nullptr);
      else column_stats<true, false>(from, C, HW, part.begin, part.end, a.conv, to, nullptr);
      if (!a.conv_bias) continue;
      each(part.end - part.begin, [&](int64_t p, auto lanes) {
        store(to + part.begin + p, load(to + part.begin + p, lanes) + *a.conv_bias, lanes);
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
      finishing<T>(a.finish, n * C * HW, [&](auto last) {
        constexpr std::true_type yes{};
        constexpr std::false_type no{};
        const auto by = [&](auto rows, auto columns_too, auto greater) {
          scale<decltype(rows)::value, decltype(columns_too)::value, decltype(greater)::value>(
              from, to, columns, part.begin, part.end, row, column, last);
        };
        if (a.scaling == Scaling::greater) by(yes, yes, yes);
        else if (a.scaling == Scaling::each_value && s.channels_last)
          scale_each<false>(from, to, columns, part.begin, part.end, pooled + n * P * C, by_channel, last);
        else if (a.scaling == Scaling::each_value)
          scale_each<true>(from, to, columns, part.begin, part.end, pooled + n * P * C, by_channel, last);
        else if (!a.has_channel_gate() && !a.conv) by(no, no, no);
        else if (a.has_channel_gate() && a.conv) by(yes, yes, no);
        else if (a.has_channel_gate() != s.channels_last) by(yes, no, no);
        else by(no, yes, no);
      });
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
  const Forward f(threads, a, kept, work);
  const int64_t N = f.N, C = f.C, HW = f.HW, sample = C * HW;
  const bool channel_norm = !a.conv && a.norm_weight, spatial_norm = a.conv && a.norm_weight;
  const int64_t block = block_of(f.s, weights_of(a));
  Norm norm = a.training ? Norm(0, 1, 0, 1, 0) : running_norm(a);
  const bool sequential = a.has_channel_gate() && !a.parallel;

  const int64_t stretches = f.stretches.count;
  const Phase in_stretches{stretches, f.stretches.length * C, [&](Share part) {
                             if (part.whole) return;
                             a.maximum ? f.pool_stretches<true>(x, part) : f.pool_stretches<false>(x, part);
                           }};
  const Phase pool{a.pools() ? C : 0, stretches ? 2 * stretches : HW, [&](Share part) {
                     if (stretches && !part.whole) {
                       a.maximum ? f.join_stretches<true>(part) : f.join_stretches<false>(part);
                       return;
                     }
                     if (a.maximum) f.pool<true>(x, part);
                     else if (a.average) f.pool<false>(x, part);
                     if (a.euclidean || a.deviation) f.pool_squares(x, part);
                   }};
  const Phase squeezed{a.logits == Logits::two_layers ? a.hidden : 0, f.P * C,
                       [&](Share part) { f.squeeze_channels(part); }};
  const Phase excited{a.has_channel_gate() ? C : 0, a.expand ? a.hidden : 16,
                      [&](Share part) { f.excite_channels(part); }};
  const Phase activated{a.pools() ? C : 0, 16, [&](Share part) {
                          if (a.has_channel_gate()) f.activate_channels(part);
                          else own_factors(a, f.pooled, part, f.channel_gate);
                        }};
  const Phase looked{a.conv ? HW : 0, C, [&](Share part) {
                       if (a.scaling == Scaling::greater) f.weigh(x, part);
                       else sequential ? f.look<true>(x, part) : f.look<false>(x, part);
                     }};
  const Phase padded{a.maps(), HW, [&](Share part) { f.pad(part); }};
  const Phase convolved{a.maps() ? f.s.height : 0, f.s.width * a.kernel_size * a.kernel_size / 8,
                        [&](Share part) { f.convolve(part); }};
  const Phase finished{a.conv ? HW : 0, 16, [&](Share part) { f.finish_spatial(norm, part); }};
  const Phase multiplied{y ? f.rows : 0, f.columns, [&](Share part) { f.multiply(x, y, part); }};

  const auto find_channel_norms = [&] { find_norms(threads, a, f.channel, C, 1, {N, 1, C}, f.norms(), statistics); };
  if (channel_norm && !a.training) find_channel_norms();
  if (channel_norm && a.training) {
    run(threads, N, sample, block, in_stretches, pool, squeezed, excited);
    find_channel_norms();
    run(threads, N, sample, block, activated, multiplied);
  } else if (spatial_norm && a.training) {
    run(threads, N, sample, block, in_stretches, pool, squeezed, excited, activated, looked, padded, convolved);
    const Moments found = moments(f.logits, {1, N * HW, 0});
    statistics[0] = found.mean;
    statistics[1] = found.unbiased(N * HW);
    norm = norm_of(a, found);
    run(threads, N, sample, block, finished, multiplied);
  } else {
    run(threads, N, sample, block, in_stretches, pool, squeezed, excited, activated, looked, padded, convolved,
        finished, multiplied);
  }
  if (!y) f.write_gates(by_channel, by_position);
}

// Backward of y = x * gc * gs, with u = dy * x.
// It reads the map three times with both gates, twice with one gate:
//   1. d(gs) = sum over channels of u gc, and the first part of d(gc) = sum over positions of u gs; the entries that
//      equal each maximum (ties) are counted, and their places added;
//   2. backward through the spatial gate to its maps, and from the maps the rest of d(gc);
//   3. backward through the channel gate, and dx. For maxima alone it reads x only where one has ties.

struct Backward {
  const ChannelSpatial& a;
  const Shape& s = a.shape;
  const int64_t N = s.samples, C = s.channels, HW = s.positions(), P = a.pools(), K = a.kernel_size;
  const int64_t rows = s.channels_last ? HW : C, columns = s.channels_last ? C : HW;
  const int64_t taps = a.maps() ? 2 * K * K : C;  // the weights of the spatial gate
  const bool sequential = a.has_channel_gate() && a.maps() && !a.parallel;
  const bool has_hidden = a.logits == Logits::two_layers || a.logits == Logits::competing;  // of `hidden` units
  const int64_t normed = a.conv ? 0 : a.normed();
  const Padded padded{s.height, s.width, a.kernel_size / 2};
  const float *pooled, *hidden, *channel, *maps, *logits;  // in `kept`
  // For each channel: its gate, the gate's gradient, the ties and the place of its maximum, and the logit's gradient.
  // Then the values of the hidden layer, and the gradients of the pooled values; and where the channels have a norm,
  // its inputs.
  float *channel_gate, *d_channel, *channel_ties, *channel_places, *d_logit, *d_hidden, *d_summed, *summed, *d_pooled,
      *raw_logits, *channel_norms;
  // For each position the same; the padded maps and their padded gradient; the gradients of kernel and bias of each
  // sample; the mirrored kernel.
  float *spatial_gate, *d_spatial, *position_ties, *position_places, *d_maps, *padded_maps, *padded_d, *kernels,
      *biases, *mirrored;

  Backward(const ChannelSpatial& args, const float* kept, Arena& work) : a(args) {
    const Sections at(a);
    pooled = at.of(kept, at.pooled), hidden = at.of(kept, at.hidden), channel = at.of(kept, at.channel);
    maps = at.of(kept, at.maps), logits = at.of(kept, at.logits);
    const int64_t NC = a.pools() ? N * C : 0, NR = has_hidden ? N * a.hidden : 0, NHW = a.conv ? N * HW : 0,
                  NS = a.maps() ? N : 0;
    channel_gate = work.take(NC), d_channel = work.take(NC), channel_ties = work.take(NC),
    channel_places = work.take(a.maximum ? NC : 0), d_logit = work.take(NC);
    d_hidden = work.take(P * NR), d_summed = work.take(NR), summed = work.take(NR),
    d_pooled = work.take(larger(P, 1) * NC);
    raw_logits = work.take(normed ? NC : 0), channel_norms = work.take(normed * sizeof(Norm) / sizeof(float));
    spatial_gate = work.take(NHW), d_spatial = work.take(NHW), position_ties = work.take(NHW),
    position_places = work.take(a.maps() ? NHW : 0), d_maps = work.take(a.maps() * NHW);
    padded_maps = work.take(2 * NS * padded.size()), padded_d = work.take(NS * padded.size());
    kernels = work.take(a.conv ? N * taps : 0), biases = work.take(a.conv ? N : 0), mirrored = work.take(2 * K * K);
  }

  Norm* norms() const { return reinterpret_cast<Norm*>(channel_norms); }
  const float* peaks(int64_t n) const { return pooled + (n * P + a.average) * C; }

  void gates(Share part, const Norm& norm) const {
    for (int64_t n = part.first; n < part.last; n++) {
      if (a.scaling == Scaling::each_value) own_factors(a, pooled, {n, n + 1, 0, C, true}, channel_gate);
      if (a.has_channel_gate())
        each(C, [&](int64_t c, auto lanes) {
          store(channel_gate + n * C + c, a.scale * load(channel + n * C + c, lanes), lanes);
        });
      if (a.conv)
        each(HW, [&](int64_t p, auto lanes) {
          store(spatial_gate + n * HW + p, a.scale * spatial_sigmoid(norm, n * HW + p, lanes), lanes);
        });
    }
  }

  template <class L>
  Vec spatial_sigmoid(const Norm& norm, int64_t at, L lanes) const {
    const Vec raw = load(logits + at, lanes);
    return sigmoid(a.norm_weight ? norm.apply(raw) : raw);
  }

  // Step 1. A call for a whole sample computes both kinds of sums in one pass. Calls for parts of a sample cannot, so
  // they compute the sums of the rows, then those of the columns.
  // PEAK and TOP: whether maxima of the channels, and of the positions, were taken.
  template <bool CHANNEL, bool SPATIAL, bool PEAK, bool TOP, Scaling SCALING, bool ROWS, bool COLUMNS, class T>
  void sums(const T* x, const T* dy, Share part) const {
    constexpr bool BOTH = CHANNEL && SPATIAL;
    for (int64_t n = part.first; n < part.last; n++) {
      const float* peak = SCALING == Scaling::each_value ? pooled + n * P * C : PEAK ? peaks(n) : nullptr;
      const Side of_channel{channel_gate + n * C, peak, d_channel + n * C, channel_ties + n * C,
                            channel_places + n * C};
      const Side of_position{spatial_gate + n * HW, maps + 2 * n * HW, d_spatial + n * HW, position_ties + n * HW,
                             position_places + n * HW};
      const T *xs = x + n * C * HW, *ds = dy + n * C * HW;
      const int64_t begin = COLUMNS && !ROWS ? 0 : part.begin, end = COLUMNS && !ROWS ? rows : part.end;
      const int64_t left = COLUMNS && !ROWS ? part.begin : 0, right = COLUMNS && !ROWS ? part.end : columns;
      if (s.channels_last)
        matrix_sums<BOTH, ROWS && SPATIAL, COLUMNS && CHANNEL, ROWS && TOP, COLUMNS && PEAK, SCALING>(
            xs, ds, columns, begin, end, left, right, of_position, of_channel, false, sequential);
      else
        matrix_sums<BOTH, ROWS && CHANNEL, COLUMNS && SPATIAL, ROWS && PEAK, COLUMNS && TOP, SCALING>(
            xs, ds, columns, begin, end, left, right, of_channel, of_position, sequential, false);
    }
  }

  template <bool ROWS, bool COLUMNS, class T>
  void sums(const T* x, const T* dy, Share part) const {
    constexpr Scaling PRODUCT = Scaling::product, GREATER = Scaling::greater, EACH = Scaling::each_value;
    if (a.scaling == GREATER) sums<true, true, false, false, GREATER, ROWS, COLUMNS>(x, dy, part);
    else if (a.scaling == EACH) sums<true, false, true, false, EACH, ROWS, COLUMNS>(x, dy, part);
    else if (!a.conv)
      a.maximum ? sums<true, false, true, false, PRODUCT, ROWS, COLUMNS>(x, dy, part)
                : sums<true, false, false, false, PRODUCT, ROWS, COLUMNS>(x, dy, part);
    else if (!a.has_channel_gate()) sums<false, true, false, true, PRODUCT, ROWS, COLUMNS>(x, dy, part);
    else
      a.maximum ? sums<true, true, true, true, PRODUCT, ROWS, COLUMNS>(x, dy, part)
                : sums<true, true, false, true, PRODUCT, ROWS, COLUMNS>(x, dy, part);
  }

  // From the gradient of the gate to the gradient of the logits, in place.
  void spatial_logits(const Norm& norm, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      float* d = d_spatial + n * HW;
      each(HW, [&](int64_t p, auto lanes) {
        store(d + p, gate_backward(load(d + p, lanes), spatial_sigmoid(norm, n * HW + p, lanes), a.scale), lanes);
      });
    }
  }

  float total(const float* map) const {
    return static_cast<float>(Channel{1, HW, 0}.sum_of([&](int64_t i, auto lanes) { return load(map + i, lanes); }));
  }

  // From the gradient of the logits to the gradients of x through the mean and each maximum of a position.
  void spatial_maps(Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float* d = d_spatial + n * HW;
      float *padded_of = padded_maps + 2 * n * padded.size(), *d_of = d_maps + 2 * n * HW;
      for (int64_t m = 0; m < 2; m++) padded.put(maps + (2 * n + m) * HW, padded_of + m * padded.size());
      correlate_weights(padded, 2, padded_of, d, kernels + n * 2 * K * K);
      biases[n] = total(d);
      padded.put(d, padded_d + n * padded.size());
      for (int64_t m = 0; m < 2; m++)
        correlate(padded, 1, padded_d + n * padded.size(), mirrored + m * K * K, 0, d_of + m * HW, 0, s.height);
      each(HW, [&](int64_t p, auto lanes) {
        store(d_of + p, load(d_of + p, lanes) / load(position_ties + n * HW + p, lanes), lanes);
        store(d_of + HW + p, load(d_of + HW + p, lanes) / static_cast<float>(C), lanes);
      });
    }
  }

  // The gradients of the layer over the channels.
  template <class T>
  void spatial_layer(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float* d = d_spatial + n * HW;
      const T* xs = x + n * C * HW;
      float* to = kernels + n * taps;
      if (s.channels_last) column_stats<true, false>(xs, HW, C, part.begin, part.end, d, to, nullptr);
      else row_stats<true, false>(xs, HW, part.begin, part.end, d, to, nullptr);
      if (part.begin == 0) biases[n] = total(d);
    }
  }

  // Step 2: the part of d(gc) that comes through the maps of x * gc.
  template <class T>
  void channel_from_maps(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float *gate = channel_gate + n * C, *peak = maps + 2 * n * HW, *d_peak = d_maps + 2 * n * HW,
                  *d_mean = d_peak + HW;
      const T* xs = x + n * C * HW;
      if (s.channels_last) column_dots(xs, C, HW, part.begin, part.end, gate, peak, d_peak, d_mean, d_channel + n * C);
      else row_dots(xs, HW, part.begin, part.end, gate, peak, d_peak, d_mean, d_channel + n * C);
    }
  }

  void channel_logits(Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float *d = d_channel + n * C, *sigma = channel + n * C;
      each(C, [&](int64_t c, auto lanes) {
        const Vec by_gate = load(d + c, lanes), value = load(sigma + c, lanes);
        store(d_logit + n * C + c,
              a.hard ? hard_gate_backward(by_gate, value, a.scale) : gate_backward(by_gate, value, a.scale), lanes);
      });
    }
  }

  // Hidden units [begin, end).
  void channel_hidden(Share part) const {
    const int64_t R = a.hidden, units = part.end - part.begin, from = part.first;
    products(part.last - from, units, C, 1, {d_logit + from * C, C, 1}, {a.expand + part.begin, R},
             {d_summed + from * R + part.begin, R});
    for (int64_t n = from; n < part.last; n++)
      each(units, [&](int64_t i, auto lanes) {
        const int64_t r = part.begin + i;
        const Vec d = load(d_summed + n * R + r, lanes);
        Vec total{};
        for (int64_t p = 0; p < P; p++) {
          const Vec h = load(hidden + (n * P + p) * R + r, lanes);
          store(d_hidden + (n * P + p) * R + r, select(h <= 0.f, Vec{}, d), lanes);
          total = total + h;
        }
        store(summed + n * R + r, total, lanes);
      });
  }

  // The gradients of x through the mean and through each maximum of a channel; channels [begin, end).
  void channel_pools(Share part) const {
    const int64_t R = a.hidden, count = part.end - part.begin, samples = part.last - part.first,
                  from = part.first * larger(P, 1);
    float* to = d_pooled + from * C;
    switch (a.logits) {
      case Logits::two_layers:
        products(samples * P, count, R, 1, {d_hidden + from * R, R, 1}, {a.reduce + part.begin, C},
                 {to + part.begin, C});
        break;
      case Logits::one_layer:
        products(samples, count, C, 1, {d_logit + from * C, C, 1}, {a.expand + part.begin, C}, {to + part.begin, C});
        break;
      case Logits::along_channels:
        along_channels(d_logit + from * C, samples, C, a.reduce, R, true, to, part.begin, part.end);
        break;
      case Logits::own:
        own_pooled(a, d_logit + part.first * C, samples, to, part.begin, part.end);
        break;
      case Logits::competing:
        for (int64_t n = part.first; n < part.last; n++) {
          const CompetitionBackward found(a, pooled + n * C, d_logit + n * C);
          each(count, [&](int64_t i, auto lanes) {
            const int64_t c = part.begin + i;
            const Vec d = found.d_e(c, lanes);
            store(d_hidden + n * C + c, d, lanes);
            store(summed + n * C + c, 2.f * found.relative(c, lanes), lanes);
            store(d_pooled + n * C + c, d * load(a.reduce + c, lanes), lanes);
          });
        }
        break;
      case Logits::none:  // SimAM: z = (x - mean) / (2 deviation), and the logit is z^2 + 1/2
        for (int64_t n = part.first; n < part.last; n++)
          each(count, [&](int64_t i, auto lanes) {
            const int64_t c = part.begin + i, at = n * C + c;
            const Vec factor = load(channel_gate + at, lanes);
            store(d_pooled + n * P * C + c, -2.f * factor * load(d_channel + at, lanes), lanes);
            store(d_pooled + (n * P + 1) * C + c, -4.f * factor * load(channel_ties + at, lanes), lanes);
          });
    }
    const float squares = static_cast<float>(a.deviation ? larger(HW - 1, 1) : 1);
    for (int64_t n = part.first; n < part.last; n++)
      each(count, [&](int64_t i, auto lanes) {
        float *mean = d_pooled + n * P * C + part.begin + i, *peak = mean + (a.average ? C : 0);
        if (a.average) store(mean, load(mean, lanes) / static_cast<float>(HW), lanes);
        if (a.maximum) store(peak, load(peak, lanes) / load(channel_ties + n * C + part.begin + i, lanes), lanes);
        if (a.euclidean || a.deviation) {
          const int64_t at = (n * P + P - 1) * C + part.begin + i;
          store(d_pooled + at, load(d_pooled + at, lanes) / (squares * load(pooled + at, lanes)), lanes);
        }
      });
  }

  // Step 3: dx.
  template <class T>
  void spread(const T* x, const T* dy, T* dx, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const float* means = d_pooled + n * P * C;
      const bool single = (!a.maximum || all_ones(channel_ties + n * C, C)) &&
                          (!a.maps() || all_ones(position_ties + n * HW, HW)) && larger(C, HW) < EXACT;
      const Entry of_channel{channel_gate + n * C,
                             a.average ? means : nullptr,
                             a.maximum ? peaks(n) : nullptr,
                             means + (a.average ? C : 0),
                             a.maximum && single ? channel_places + n * C : nullptr,
                             a.euclidean || a.deviation ? means + (P - 1) * C : nullptr,
                             a.deviation ? pooled + n * P * C : nullptr,
                             a.maps() ? channel_gate + n * C : a.conv};
      const float *mean = a.maps() ? d_maps + (2 * n + 1) * HW : d_spatial + n * HW,
                  *peak = a.maps() ? maps + 2 * n * HW : nullptr;
      const Entry of_position{spatial_gate + n * HW, mean, peak, d_maps + 2 * n * HW,
                              a.maps() && single ? position_places + n * HW : nullptr};
      const T *xs = x + n * C * HW, *ds = dy + n * C * HW;
      T* to = dx + n * C * HW;
      // `scaled`: the spatial gate reads x times the channels' factor.
      const auto go = [&](auto channel_there, auto spatial_there, auto scaled, auto scaling) {
        constexpr bool CHANNEL = decltype(channel_there)::value, SPATIAL = decltype(spatial_there)::value,
                       SCALED = decltype(scaled)::value;
        constexpr Scaling SCALING = decltype(scaling)::value;
        if (s.channels_last)
          spread_rows<SPATIAL, CHANNEL, false, SCALED, SCALING>(xs, ds, to, columns, part.begin, part.end, of_position,
                                                                of_channel);
        else
          spread_rows<CHANNEL, SPATIAL, SCALED, false, SCALING>(xs, ds, to, columns, part.begin, part.end, of_channel,
                                                                of_position);
      };
      constexpr std::true_type yes{};
      constexpr std::false_type no{};
      constexpr std::integral_constant<Scaling, Scaling::product> product{};
      constexpr std::integral_constant<Scaling, Scaling::greater> greater{};
      constexpr std::integral_constant<Scaling, Scaling::each_value> each_value{};
      if (a.scaling == Scaling::greater) go(yes, yes, yes, greater);
      else if (a.scaling == Scaling::each_value) go(yes, no, no, each_value);
      else if (!a.conv) go(yes, no, no, product);
      else if (!a.has_channel_gate()) go(no, yes, no, product);
      else sequential ? go(yes, yes, yes, product) : go(yes, yes, no, product);
    }
  }

  // The gradients of the weights, after all samples; hidden units or channels [begin, end).
  void reduce_weights(const ChannelSpatialGradients& g, int64_t begin, int64_t end) const {
    products(end - begin, C, N * P, 1, {d_hidden + begin, 1, a.hidden}, {pooled, C}, {g.reduce + begin * C, C});
  }
  void expand_weights(const ChannelSpatialGradients& g, int64_t begin, int64_t end) const {
    products(end - begin, a.hidden, N, 1, {d_logit + begin, 1, C},
             {a.logits == Logits::two_layers ? summed : pooled, a.hidden}, {g.expand + begin * a.hidden, a.hidden});
  }
};

template <class T>
static void backward(const Threads& threads, const ChannelSpatial& a, const T* dy, const T* x, const float* kept, T* dx,
                     const ChannelSpatialGradients& g, float* memory) {
  Arena work{memory};
  const Backward f(a, kept, work);
  const int64_t N = f.N, C = f.C, HW = f.HW, K = f.K, sample = 2 * C * HW;
  const bool batch_norm = a.conv && a.norm_weight && a.training;
  const int64_t block = block_of(f.s, weights_of(a));
  const Channel all{1, N * HW, 0};
  const Norm norm = batch_norm ? norm_of(a, moments(f.logits, all)) : running_norm(a);
  for (int64_t m = 0; m < a.maps(); m++)
    for (int64_t k = 0; k < K * K; k++) f.mirrored[m * K * K + k] = a.conv[m * K * K + K * K - 1 - k];

  const Phase gates{1, HW + C, [&](Share part) { f.gates(part, norm); }};
  const Phase by_rows{f.rows, 2 * f.columns, [&](Share part) {
                        part.whole ? f.template sums<true, true>(x, dy, part)
                                   : f.template sums<true, false>(x, dy, part);
                      }};
  const Phase by_columns{f.columns, 2 * f.rows, [&](Share part) {
                           if (!part.whole) f.template sums<false, true>(x, dy, part);
                         }};
  const Phase spatial{a.conv ? 1 : 0, HW, [&](Share part) { f.spatial_logits(norm, part); }};
  const Phase maps{a.maps() ? 1 : 0, HW, [&](Share part) { f.spatial_maps(part); }};
  const Phase layer{a.scaling == Scaling::greater ? C : 0, HW, [&](Share part) { f.spatial_layer(x, part); }};
  const Phase from_maps{f.sequential ? C : 0, HW, [&](Share part) { f.channel_from_maps(x, part); }};
  const auto logits = [&](Share part) { f.channel_logits(part); };
  const Phase channel_alone{a.has_channel_gate() && !a.conv ? 1 : 0, C, logits};
  const Phase channel{a.has_channel_gate() && a.conv ? 1 : 0, C, logits};
  const Phase hidden{a.logits == Logits::two_layers ? a.hidden : 0, C, [&](Share part) { f.channel_hidden(part); }};
  const Phase pools{a.pools() ? C : 0, a.expand ? a.hidden : 16, [&](Share part) { f.channel_pools(part); }};
  const Phase spread{f.rows, 3 * f.columns, [&](Share part) { f.spread(x, dy, dx, part); }};

  run(threads, N, sample, block, gates, by_rows, by_columns, spatial, channel_alone);
  if (a.conv && a.norm_weight) norm_backward(norm, f.logits, f.d_spatial, all, a.training, g.norm_weight, g.norm_bias);
  if (f.normed) {
    own_logits(a, f.pooled, N, f.raw_logits, 0, C);
    const Channel one{N, 1, C};
    find_norms(threads, a, f.raw_logits, C, 1, one, f.norms(), nullptr);
    for (int64_t c = 0; c < C; c++)
      norm_backward(f.norms()[c], f.raw_logits + c, f.d_logit + c, one, a.training, g.norm_weight + c, g.norm_bias + c);
  }
  run(threads, N, sample, block, maps, layer, from_maps, channel, hidden, pools, spread);

  switch (a.logits) {
    case Logits::none:
      break;
    case Logits::two_layers:
      share(threads, a.hidden, WORTH_A_THREAD / (C * N) + 1,
            [&](int64_t begin, int64_t end) { f.reduce_weights(g, begin, end); });
      [[fallthrough]];
    case Logits::one_layer:
      share(threads, C, WORTH_A_THREAD / (a.hidden * N) + 1,
            [&](int64_t begin, int64_t end) { f.expand_weights(g, begin, end); });
      break;
    case Logits::along_channels:
      along_channels_weights(f.pooled, f.d_logit, N, C, a.hidden, g.reduce);
      break;
    case Logits::own:
      own_weights(a, f.pooled, f.d_logit, g.reduce);
      break;
    case Logits::competing:
      sum_products(f.d_hidden, f.pooled, N, C, g.reduce);
      sum_products(f.d_logit, f.summed, N, C, g.expand);
  }
  if (g.reduce_bias) sum_rows(f.d_hidden, N * f.P, a.hidden, 1, g.reduce_bias);
  if (g.expand_bias) {
    const int64_t factor = a.logits == Logits::competing ? 2 : f.P;
    sum_rows(f.d_logit, N, C, static_cast<float>(factor), g.expand_bias);
  }
  if (a.conv) {
    sum_rows(f.kernels, N, f.taps, 1, g.conv);
    if (g.conv_bias) sum_rows(f.biases, N, 1, 1, g.conv_bias);
  }
}

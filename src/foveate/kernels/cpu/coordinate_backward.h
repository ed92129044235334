// Backward of y = x * column gate * row gate.
// A first pass over x and dy computes the gradients of the gates, and again the sums that forward did not keep. When
// the gradient of the squeezed map is known, a second pass over dy computes dx.

// The additional arrays of an axis in backward. The axis's `lines` hold the sigmoids.
struct Return {
  float *pooled, *d;  // laid out as the axis's lines: the sums; the gradients of the gates, later of the logits
  float* d_squeezed;  // the gradient of each line, divided by the number of values in its mean: [N * length][M]
  float *weight, *bias;
};

struct CoordinateBackward : Excitation {
  const float* squeezed;  // in `kept`
  float* d;               // the gradient of the squeezed map, in the same layout
  float* squeeze;         // the squeeze weight with a distance of `apart` between hidden units
  Return back[2];

  CoordinateBackward(const Coordinate& args, const CoordinateGradients& g, const float* kept, Arena& work)
      : Excitation(args, work, true), squeezed(kept), d(work.take(M * all)), squeeze(work.take(M * apart)) {
    for (int k = 0; k < 2; k++) {
      const int64_t lines = N * axes[k].length;
      back[k] = {work.take(lines * apart), work.take(lines * apart), work.take(lines * M), nullptr, nullptr};
    }
    back[0].weight = g.row, back[0].bias = g.row_bias;
    back[1].weight = g.column, back[1].bias = g.column_bias;
  }

  Lines returned(float* Return::* which, int64_t n) const {
    return Lines{back[0].*which, back[1].*which, apart}.of(n, s);
  }

  template <class T>
  void sums(const T* x, const T* dy, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const int64_t at = n * C * s.positions();
      const Lines pooled = returned(&Return::pooled, n), by_gate = returned(&Return::d, n);
      if (s.channels_last)
        nhwc_sums<true>(x + at, dy + at, s, 0, s.height, from(part), to(part), gates(n), pooled, by_gate);
      else nchw_sums<true>(x + at, dy + at, s, from(part), to(part), gates(n), pooled, by_gate);
      for (int k = 0; k < 2; k++) logits(k, n, from(part), to(part));
    }
  }

  // From the gradients of the gates to the gradients of the logits.
  void logits(int k, int64_t n, int64_t begin, int64_t end) const {
    const int64_t length = axes[k].length;
    for (int64_t l = 0; l < length; l++)
      each(end - begin, [&](int64_t c, auto lanes) {
        const int64_t at = (n * length + l) * apart + begin + c;
        const Vec d_gate = load(back[k].d + at, lanes), sigmoid = load(axes[k].lines + at, lanes);
        store(back[k].d + at, gate_backward(d_gate, sigmoid, a.scale), lanes);
      });
  }

  void hidden(Share part) const {
    lines_of(part, [&](int k, int64_t first, int64_t last) {
      const int64_t start = axes[k].start + first;
      dots(M, last - first, C, 1, {axes[k].weight, apart}, {back[k].d + first * apart, apart}, {d + start, all});
      for (int64_t m = 0; m < M; m++)
        each(last - first, [&](int64_t l, auto lanes) {
          const int64_t at = m * all + start + l;
          store(d + at,
                activation_backward(load(d + at, lanes), norms()[m].apply(load(squeezed + at, lanes)), a.hardswish),
                lanes);
        });
    });
  }

  // Hidden units [begin, end).
  void norm(const CoordinateGradients& g, int64_t begin, int64_t end) const {
    const Channel whole{1, all, 0};
    for (int64_t m = begin; m < end; m++) {
      norm_backward(norms()[m], squeezed + m * all, d + m * all, whole, a.training, g.norm_weight + m, g.norm_bias + m);
      if (g.squeeze_bias)
        g.squeeze_bias[m] =
            static_cast<float>(whole.sum_of([&](int64_t i, auto lanes) { return load(d + m * all + i, lanes); }));
    }
  }

  void turn(Share part) const {
    lines_of(part, [&](int k, int64_t first, int64_t last) {
      const float across = static_cast<float>(axes[k].across);
      transposed(M, last - first, d + axes[k].start + first, all, back[k].d_squeezed + first * M, M,
                 [&](auto, auto v) { return v / across; });
    });
  }

  // The gradients of the weights, after all samples; channels [begin, end), a few at a time to stay in the cache.
  void weights(const CoordinateGradients& g, int64_t begin, int64_t end) const {
    for (int k = 0; k < 2; k++) {
      const int64_t lines = N * axes[k].length;
      const Return& to = back[k];
      for (int64_t c = begin; c < end; c += 2 * WIDTH) {
        const int64_t count = smaller(2 * WIDTH, end - c);
        float* row = axes[k].weight + c;  // reused, no longer needed as the weight
        products(M, count, lines, 1, {to.d_squeezed, 1, M}, {to.pooled + c, apart}, {g.squeeze + c, C, 1, k > 0});
        products(M, count, lines, 1, {axes[k].active, 1, M}, {to.d + c, apart}, {row, apart});
        transposed(M, count, row, apart, to.weight + c * M, M, same);
      }
      if (to.bias) column_stats<false, false>(to.d, lines, apart, begin, end, nullptr, to.bias, nullptr);
    }
  }

  // The gradients of x through the means of rows and columns; they replace the sums.
  void means(Share part) const {
    for (int k = 0; k < 2; k++) {
      const int64_t first = part.first * axes[k].length, last = part.last * axes[k].length, begin = from(part);
      products(last - first, to(part) - begin, M, 1, {back[k].d_squeezed + first * M, M, 1}, {squeeze + begin, apart},
               {back[k].pooled + first * apart + begin, apart});
    }
  }

  template <class T>
  void spread(const T* dy, T* dx, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const int64_t at = n * C * s.positions();
      const Lines pass = returned(&Return::pooled, n);
      if (s.channels_last) nhwc_scale<true>(dy + at, dx + at, s, part.begin, part.end, gates(n), pass, Nothing{});
      else nchw_scale<true>(dy + at, dx + at, s, from(part), to(part), gates(n), pass, Nothing{});
    }
  }
};

template <class T>
static void backward(const Threads& threads, const Coordinate& a, const T* dy, const T* x, const float* kept, T* dx,
                     const CoordinateGradients& g, float* memory) {
  Arena work{memory};
  const CoordinateBackward f(a, g, kept, work);
  const Shape& s = f.s;
  const int64_t N = f.N, C = f.C, M = f.M, L = s.height + s.width, sample = 2 * C * s.positions(),
                block = block_of(s, 3 * M * C);

  const Phase activated{L, M, [&](Share part) { f.activate(kept, part); }};
  const Phase excited{f.tiles, WIDTH * L * (M / 8 + 2), [&](Share part) { f.excite(part); }};
  const Phase summed{f.tiles, 2 * WIDTH * s.positions(), [&](Share part) { f.sums(x, dy, part); }};
  const Phase hidden{L, C * M / 8, [&](Share part) { f.hidden(part); }};
  const Phase passed{f.tiles, WIDTH * L * M / 8, [&](Share part) { f.means(part); }};
  const Phase spread{s.channels_last ? s.height : f.tiles, 2 * (s.channels_last ? s.width * C : WIDTH * s.positions()),
                     [&](Share part) { f.spread(dy, dx, part); }};

  f.turn_weights(threads);
  for (int64_t m = 0; m < M; m++)
    each(C,
         [&](int64_t c, auto lanes) { store(f.squeeze + m * f.apart + c, load(a.squeeze + m * C + c, lanes), lanes); });
  find_norms(threads, a, kept, M, f.all, {1, f.all, 0}, f.norms(), nullptr);
  run(threads, N, sample, block, activated, excited, summed, hidden);
  share(threads, M, WORTH_A_THREAD / f.all + 1, [&](int64_t begin, int64_t end) { f.norm(g, begin, end); });
  share(threads, N, WORTH_A_THREAD / (L * M) + 1,
        [&](int64_t begin, int64_t end) { f.turn({begin, end, 0, L, true}); });
  share(threads, f.tiles, WORTH_A_THREAD / (f.all * M) + 1,
        [&](int64_t begin, int64_t end) { f.weights(g, begin * WIDTH, smaller(end * WIDTH, C)); });
  run(threads, N, sample, block, passed, spread);
}

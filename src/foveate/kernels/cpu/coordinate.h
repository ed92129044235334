// y = x * column gate * row gate.
// Both gates are computed from the map's means over each row and each column, through one squeeze.

// The rows, or the columns, of the maps of all samples: `length` lines per sample; the channels of a line are
// contiguous. In the squeezed map [M][N * (H + W)] the values of a hidden unit are contiguous, as its norm reads them:
// first those of all rows, then, from `start` on, those of all columns.
struct Axis {
  int64_t length, across, start;  // across: the number of values in the mean of a line
  const float *given, *bias;
  float* weight;  // `given` transposed to [M][C], null where that is not needed
  float* active;  // the activated hidden values, [N * length][M]
  float* lines;   // the sums, later the sigmoids of the gates, [N * length]
};

INLINE Vec activation(Vec v, bool hardswish) {
  if (!hardswish) return select(v < 0.f, Vec{}, v);
  const Vec raised = v + 3.f, low = select(raised < 0.f, Vec{}, raised);
  return v * select(low > 6.f, splat(6), low) / 6.f;
}

// The derivative at the kinks is the same as in torch: 0 at -3 (for relu: at 0), 1 at 3.
INLINE Vec activation_backward(Vec d, Vec v, bool hardswish) {
  if (!hardswish) return select(v <= 0.f, Vec{}, d);
  return select(v <= -3.f, Vec{}, select(v >= 3.f, d, d * (v / 3.f + 0.5f)));
}

// The common part of forward and backward: from the squeezed map to the gates.
struct Excitation {
  const Coordinate& a;
  const Shape& s = a.shape;
  const int64_t N = s.samples, C = s.channels, M = a.hidden, all = N * (s.height + s.width);
  // `apart` is the distance between lines, and between the hidden units of a weight.
  const int64_t tiles = (C + WIDTH - 1) / WIDTH, apart = Lines::distance(s);
  // Whether the weights are transposed for the gates, once in a call, by 2 C M moves. Else the lanes of a vector are
  // added up for each of the C gates of all lines, about half as much for as many lines as hidden units. Backward needs
  // the transposed weights.
  const bool transposes;
  float* normed;  // memory for the Norm of each hidden unit
  Axis axes[2];

  Excitation(const Coordinate& args, Arena& work, bool backward)
      : a(args), transposes(backward || all > M), normed(work.take(M * sizeof(Norm) / sizeof(float))) {
    axes[0] = {s.height, s.width, 0, a.row, a.row_bias, nullptr, nullptr, nullptr};
    axes[1] = {s.width, s.height, N * s.height, a.column, a.column_bias, nullptr, nullptr, nullptr};
    for (Axis& axis : axes) {
      axis.weight = transposes ? work.take(M * apart) : nullptr;
      axis.active = work.take(N * axis.length * M);
      axis.lines = work.take(N * axis.length * apart);
    }
  }

  Norm* norms() const { return reinterpret_cast<Norm*>(normed); }

  // Calls f(k, first, last) with the lines of axis k in this share of the H + W lines of its samples.
  template <class F>
  void lines_of(Share part, F f) const {
    int64_t before = 0;
    for (int k = 0; k < 2; k++) {
      const int64_t length = axes[k].length, begin = larger(part.begin - before, 0),
                    end = smaller(part.end - before, length);
      before += length;
      if (end - begin == length) f(k, part.first * length, part.last * length);
      else
        for (int64_t n = part.first; n < part.last && begin < end; n++) f(k, n * length + begin, n * length + end);
    }
  }

  Lines lines(int64_t n) const { return Lines{axes[0].lines, axes[1].lines, apart}.of(n, s); }
  Gates gates(int64_t n) const { return Gates{lines(n), a.scale}; }

  // The first channel of a share of the tiles, and the end of its channels.
  int64_t from(Share part) const { return part.begin * WIDTH; }
  int64_t to(Share part) const { return smaller(part.end * WIDTH, C); }

  void turn_weights(const Threads& threads) const {
    if (!transposes) return;
    share(threads, tiles, WORTH_A_THREAD / (2 * WIDTH * M) + 1, [&](int64_t begin, int64_t end) {
      const int64_t c = begin * WIDTH, stop = smaller(end * WIDTH, C);
      for (const Axis& axis : axes) transposed(stop - c, M, axis.given + c * M, M, axis.weight + c, apart, same);
    });
  }

  void activate(const float* squeezed, Share part) const {
    lines_of(part, [&](int k, int64_t first, int64_t last) {
      const Axis& axis = axes[k];
      transposed(M, last - first, squeezed + axis.start + first, all, axis.active + first * M, M,
                 [&](auto m, auto v) { return activation(norms()[m].apply(v), a.hardswish); });
    });
  }

  // Computes the sigmoids of each line for the channels of the share.
  void excite(Share part) const {
    const int64_t begin = from(part), count = to(part) - begin;
    for (const Axis& axis : axes) {
      const int64_t first = part.first * axis.length, last = part.last * axis.length;
      float* lines = axis.lines + begin;
      const Out out{lines + first * apart, apart};
      if (transposes)
        products(last - first, count, M, 1, {axis.active + first * M, M, 1}, {axis.weight + begin, apart}, out);
      else dots(last - first, count, M, 1, {axis.active + first * M, M}, {axis.given + begin * M, M}, out);
      for (int64_t l = first; l < last; l++)
        each(count, [&](int64_t c, auto lanes) {
          Vec v = load(lines + l * apart + c, lanes);
          if (axis.bias) v = v + load(axis.bias + begin + c, lanes);
          store(lines + l * apart + c, sigmoid(v), lanes);
        });
    }
  }
};

struct CoordinateForward : Excitation {
  float* squeezed;  // in `kept`
  const Before before{a.finish.before, a.finish.before_slope};
  const int64_t together;  // the samples that threads share, which are the last
  // The rows of such a sample, channels_last, in stretches: each thread pools the rows that it later scales, and that
  // it probably wrote in the layer before. With few rows in a stretch, the sums of its columns are nearly a second map.
  static constexpr int64_t LEAST_ROWS = 3;
  const int64_t stretches, length;
  float* stretch_columns;  // the sums of the columns, of the stretches after the first

  CoordinateForward(const Threads& threads, const Coordinate& args, float* kept, Arena& work)
      : Excitation(args, work, false),
        squeezed(kept),
        together(N % threads.count),
        stretches(s.channels_last && together && LEAST_ROWS * threads.count <= s.height ? threads.count : 0),
        length(stretches ? (s.height + stretches - 1) / stretches : 0),
        stretch_columns(work.take(together * larger(stretches - 1, 0) * s.width * apart)) {}

  // The lines of a stretch of sample n.
  Lines stretch(int64_t n, int64_t number) const {
    const Lines whole = lines(n);
    if (!number) return whole;
    return {whole.rows, stretch_columns + ((n - (N - together)) * (stretches - 1) + number - 1) * s.width * apart,
            apart};
  }

  template <class T>
  void pool_stretches(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++)
      for (int64_t b = part.begin; b < part.end; b++) {
        const int64_t top = smaller(b * length, s.height), bottom = smaller(top + length, s.height);
        const Lines to = stretch(n, b);
        nhwc_sums<false, T>(x + n * C * s.positions(), nullptr, s, top, bottom, 0, C, gates(n), to, to, before);
      }
  }

  // Adds the columns of all stretches to those of the first.
  void join_stretches(Share part) const {
    const int64_t begin = from(part), count = to(part) - begin;
    for (int64_t n = part.first; n < part.last; n++)
      for (int64_t b = 1; b < stretches; b++)
        for (int64_t w = 0; w < s.width; w++)
          accumulate(lines(n).column(w, begin), stretch(n, b).column(w, begin), count);
  }

  template <class T>
  void pool(const T* x, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const T* map = x + n * C * s.positions();
      if (s.channels_last)
        nhwc_sums<false, T>(map, nullptr, s, 0, s.height, from(part), to(part), gates(n), lines(n), lines(n), before);
      else nchw_sums<false, T>(map, nullptr, s, from(part), to(part), gates(n), lines(n), lines(n), before);
    }
  }

  void squeeze(Share part) const {
    lines_of(part, [&](int k, int64_t first, int64_t last) {
      const Axis& axis = axes[k];
      float* out = squeezed + axis.start + first;
      dots(M, last - first, C, 1, {a.squeeze, C}, {axis.lines + first * apart, apart}, {out, all});
      for (int64_t m = 0; m < M; m++)
        each(last - first, [&](int64_t l, auto lanes) {
          const Vec mean = load(out + m * all + l, lanes) / static_cast<float>(axis.across);
          store(out + m * all + l, a.squeeze_bias ? mean + a.squeeze_bias[m] : mean, lanes);
        });
    });
  }

  template <class T>
  void multiply(const T* x, T* y, Share part) const {
    for (int64_t n = part.first; n < part.last; n++) {
      const int64_t at = n * C * s.positions();
      finishing<T>(a.finish, at, [&](auto last) {
        if (s.channels_last) nhwc_scale<false>(x + at, y + at, s, part.begin, part.end, gates(n), {}, last);
        else nchw_scale<false>(x + at, y + at, s, from(part), to(part), gates(n), {}, last);
      });
    }
  }

  template <class T>
  void write_gates(T* row, T* column) const {
    for (int64_t n = 0; n < N; n++) {
      transposed(s.height, C, lines(n).rows, apart, row + n * C * s.height, s.height,
                 [&](auto, auto v) { return gates(n).of(v); });
      transposed(s.width, C, lines(n).columns, apart, column + n * C * s.width, s.width,
                 [&](auto, auto v) { return gates(n).of(v); });
    }
  }
};

template <class T>
static void forward(const Threads& threads, const Coordinate& a, const T* x, T* y, T* row, T* column, float* kept,
                    float* statistics, float* memory) {
  Arena work{memory};
  const CoordinateForward f(threads, a, kept, work);
  const Shape& s = f.s;
  const int64_t L = s.height + s.width, sample = f.C * s.positions(), block = block_of(s, 3 * f.M * f.C);

  const Phase in_stretches{f.stretches, f.length * s.width * f.C, [&](Share part) {
                             if (!part.whole) f.pool_stretches(x, part);
                           }};
  const Phase pooled{f.tiles, WIDTH * (f.stretches ? f.stretches * s.width : s.positions()), [&](Share part) {
                       if (f.stretches && !part.whole) f.join_stretches(part);
                       else f.pool(x, part);
                     }};
  const Phase squeezed{L, f.C * f.M / 8, [&](Share part) { f.squeeze(part); }};
  const Phase activated{L, f.M, [&](Share part) { f.activate(kept, part); }};
  const Phase excited{f.tiles, WIDTH * L * (f.M / 8 + 2), [&](Share part) { f.excite(part); }};
  const Phase multiplied{!y                ? 0
                         : s.channels_last ? s.height
                                           : f.tiles,
                         s.channels_last ? s.width * f.C : WIDTH * s.positions(),
                         [&](Share part) { f.multiply(x, y, part); }};

  f.turn_weights(threads);
  if (a.training) {
    run(threads, f.N, sample, block, in_stretches, pooled, squeezed);
    find_norms(threads, a, kept, f.M, f.all, {1, f.all, 0}, f.norms(), statistics);
    run(threads, f.N, sample, block, activated, excited, multiplied);
  } else {
    find_norms(threads, a, kept, f.M, f.all, {1, f.all, 0}, f.norms(), statistics);
    run(threads, f.N, sample, block, in_stretches, pooled, squeezed, activated, excited, multiplied);
  }
  if (!y) f.write_gates(row, column);
}

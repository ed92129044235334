// Passes over one sample as a matrix of rows x columns.
// Gates may multiply the rows and the columns.

constexpr int64_t CHAIN = 64;   // additions in one partial sum: bounds the rounding error
constexpr int64_t TILE = 1024;  // columns whose accumulators stay in the first-level cache
constexpr float LOWEST = -__builtin_inff();

INLINE float value(const float* p) { return *p; }
INLINE float value(const bfloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float v;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}

INLINE void fill(float* p, int64_t n, float v = 0) {
  each(n, [&](int64_t i, auto lanes) { store(p + i, splat(v), lanes); });
}
INLINE void accumulate(float* to, const float* from, int64_t n) {
  each(n, [&](int64_t i, auto lanes) { store(to + i, load(to + i, lanes) + load(from + i, lanes), lanes); });
}

// Calls f(i, height) for i in 0..n in groups of four, then for single ones.
template <class F>
INLINE void by_fours(int64_t n, F f) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) f(i, std::integral_constant<int, 4>{});
  for (; i < n; i++) f(i, std::integral_constant<int, 1>{});
}

// Calls f(base, count) for groups of WIDTH in begin..end.
template <class F>
INLINE void by_vectors(int64_t begin, int64_t end, F f) {
  for (int64_t base = begin; base < end; base += WIDTH) f(base, static_cast<int>(smaller(WIDTH, end - base)));
}

// Zeroes the vectors beyond the first `count`. To zero all vectors would be slow before a short loop.
INLINE void clear_rest(Vec* vectors, int count) {
  for (int i = count; i < WIDTH; i++) vectors[i] = Vec{};
}

// The maximum, or NaN where a value is NaN. The fast passes lose a NaN in the maximum, and call this where their sum is
// NaN.
template <class T>
static float exact_peak(const T* x, int64_t count, int64_t step, const float* gate) {
  float peak = LOWEST;
  for (int64_t i = 0; i < count; i++) {
    const float v = gate ? value(x + i * step) * gate[i] : value(x + i * step);
    if (v != v) return v;
    peak = v > peak ? v : peak;
  }
  return peak;
}

// relu and relu6 keep a NaN, as in torch.
INLINE Vec activated(Vec v, Activation activation, float slope) {
  switch (activation) {
    case Activation::none:
      return v;
    case Activation::relu:
      return select(v < 0.f, Vec{}, v);
    case Activation::relu6:
      return select(v < 0.f, Vec{}, select(v > 6.f, splat(6), v));
    case Activation::leaky_relu:
      return select(v > 0.f, v, v * slope);
    case Activation::silu:
      return v * sigmoid(v);
    case Activation::hardswish:
      return v * hard_sigmoid(v);
  }
  return v;
}

// The activation before the gates: the first pass over a map applies it, in place, to what it is about to read. So
// later passes find the activated values, and the first one finds them in the first-level cache.
struct Before {
  Activation activation = Activation::none;
  float slope = 0;

  template <class T>
  void operator()(const T* x, int64_t count) const {
    if (activation == Activation::none) return;
    T* map = const_cast<T*>(x);  // the operation overwrites its map
    each(count,
         [&](int64_t i, auto lanes) { store(map + i, activated(load(map + i, lanes), activation, slope), lanes); });
  }
};

enum class Of { value, distance, square };  // what is added: entries, their distances from a centre, or the squares

// The sum, and with PEAK the maximum, of each of the rows [begin, end); with GATED the entries are multiplied by the
// gate of their column. The centres are those of the rows.
template <bool GATED, bool PEAK, Of OF = Of::value, class T>
static void row_stats(const T* x, int64_t columns, int64_t begin, int64_t end, const float* gate, float* sums,
                      float* peaks, const float* centres = nullptr, Before before = {}) {
  constexpr int64_t STRETCH = 4 * CHAIN * WIDTH;
  by_vectors(begin, end, [&](int64_t base, int count) {
    Vec sum[WIDTH], peak[WIDTH];
    clear_rest(sum, count);
    clear_rest(peak, count);
    for (int i = 0; i < count; i++) {
      const T* row = x + (base + i) * columns;
      const Vec centre = splat(OF == Of::value ? 0.f : centres[base + i]);
      Vec total{}, top[4] = {splat(LOWEST), splat(LOWEST), splat(LOWEST), splat(LOWEST)};
      for (int64_t from = 0; from < columns; from += STRETCH) {
        Vec part[4] = {};
        const auto add = [&](int k, int64_t j, auto lanes) {
          Vec v = load(row + j, lanes);
          if constexpr (GATED) v = v * load(gate + j, lanes);
          if constexpr (OF != Of::value) v = fill(v - centre, 0, lanes);
          if constexpr (OF == Of::square) v = v * v;
          part[k] = part[k] + v;
          if constexpr (PEAK) top[k] = larger(top[k], fill(v, LOWEST, lanes));
        };
        const int64_t stop = smaller(from + STRETCH, columns);
        before(row + from, stop - from);
        int64_t j = from;
        for (; j + 4 * WIDTH <= stop; j += 4 * WIDTH) {
          add(0, j, Full{});
          add(1, j + WIDTH, Full{});
          add(2, j + 2 * WIDTH, Full{});
          add(3, j + 3 * WIDTH, Full{});
        }
        if (j + 2 * WIDTH <= stop) add(0, j, Full{}), add(1, j + WIDTH, Full{}), j += 2 * WIDTH;
        if (j + WIDTH <= stop) add(2, j, Full{}), j += WIDTH;
        if (j < stop) add(3, j, Part{static_cast<int>(stop - j)});
        total = total + ((part[0] + part[1]) + (part[2] + part[3]));
      }
      sum[i] = total;
      peak[i] = larger(larger(top[0], top[1]), larger(top[2], top[3]));
    }
    const Part lanes{count};
    store(sums + base, transposed_reduce(sum, Add{}), lanes);
    if constexpr (PEAK) {
      store(peaks + base, transposed_reduce(peak, Larger{}), lanes);
      for (int64_t r = base; r < base + count; r++)
        if (sums[r] != sums[r]) peaks[r] = exact_peak(x + r * columns, columns, 1, GATED ? gate : nullptr);
    }
  });
}

// The same for each of the columns [begin, end), with a gate for each row.
template <bool GATED, bool PEAK, Of OF = Of::value, class T>
static void column_stats(const T* x, int64_t rows, int64_t columns, int64_t begin, int64_t end, const float* gate,
                         float* sums, float* peaks, const float* centres = nullptr, Before before = {}) {
  float part[TILE];
  for (int64_t at = begin; at < end; at += TILE) {
    const int64_t width = smaller(TILE, end - at);
    float *sum = sums + at, *peak = PEAK ? peaks + at : nullptr;
    fill(sum, width);
    if constexpr (PEAK) fill(peak, width, LOWEST);
    for (int64_t from = 0; from < rows; from += CHAIN) {
      fill(part, width);
      by_fours(smaller(CHAIN, rows - from), [&](int64_t first, auto height) {
        constexpr int HEIGHT = decltype(height)::value;
        const int64_t r = from + first;
        for (int i = 0; i < HEIGHT; i++) before(x + (r + i) * columns + at, width);
        each(width, [&](int64_t j, auto lanes) {
          Vec total = load(part + j, lanes), top{}, centre{};
          if constexpr (OF != Of::value) centre = load(centres + at + j, lanes);
          if constexpr (PEAK) top = load(peak + j, lanes);
          for (int i = 0; i < HEIGHT; i++) {
            Vec v = load(x + (r + i) * columns + at + j, lanes);
            if constexpr (GATED) v = v * gate[r + i];
            if constexpr (OF != Of::value) v = v - centre;
            if constexpr (OF == Of::square) v = v * v;
            total = total + v;
            if constexpr (PEAK) top = larger(top, v);
          }
          store(part + j, total, lanes);
          if constexpr (PEAK) store(peak + j, top, lanes);
        });
      });
      accumulate(sum, part, width);
    }
    if constexpr (PEAK)
      for (int64_t j = 0; j < width; j++)
        if (sum[j] != sum[j]) peak[j] = exact_peak(x + at + j, rows, columns, GATED ? gate : nullptr);
  }
}

// The greater value, NaN where one is NaN.
INLINE Vec greater(Vec a, Vec b) { return select(a > b, a, select(a <= b, b, a + b)); }

// SimAM's gate of a value.
INLINE Vec own_gate(Vec z) { return sigmoid(fma(z, z, splat(0.5f))); }

// The last step of a pass over a sample: nothing.
struct Nothing {
  template <class L>
  inline __attribute__((always_inline)) Vec operator()(Vec v, int64_t, L) const {
    return v;
  }
};

// Or the shortcut's value at the same place, where there is one, and the activation.
template <class T>
struct Finishing {
  const T* shortcut;
  Activation activation;
  float slope;

  template <class L>
  inline __attribute__((always_inline)) Vec operator()(Vec v, int64_t at, L lanes) const {
    return activated(shortcut ? v + load(shortcut + at, lanes) : v, activation, slope);
  }
};

// Calls f with the last step for the sample that begins at `at`.
template <class T, class F>
INLINE void finishing(const Finish& finish, int64_t at, F f) {
  const T* shortcut = static_cast<const T*>(finish.shortcut);
  if (!shortcut && finish.activation == Activation::none) f(Nothing{});
  else f(Finishing<T>{shortcut ? shortcut + at : nullptr, finish.activation, finish.slope});
}

// y = x * the value's own gate, where z = (x - centre) * factor with a centre and a factor for each row (ROW), or for
// each column; the rows [begin, end). y may be x.
template <bool ROW, class T, class E>
static void scale_each(const T* x, T* y, int64_t columns, int64_t begin, int64_t end, const float* centre,
                       const float* factor, E last) {
  for (int64_t r = begin; r < end; r++)
    each(columns, [&](int64_t j, auto lanes) {
      const int64_t at = r * columns + j;
      const Vec v = load(x + at, lanes);
      const Vec z = ROW ? (v - centre[r]) * factor[r] : (v - load(centre + j, lanes)) * load(factor + j, lanes);
      store(y + at, last(v * own_gate(z), at, lanes), lanes);
    });
}

// y = x * row gate * column gate for the rows [begin, end), then the last step; an absent gate is not read. With
// GREATER y is the greater of the two products. y may be x.
template <bool ROW, bool COLUMN, bool GREATER = false, class T, class E>
static void scale(const T* x, T* y, int64_t columns, int64_t begin, int64_t end, const float* row, const float* column,
                  E last) {
  for (int64_t r = begin; r < end; r++)
    each(columns, [&](int64_t j, auto lanes) {
      const int64_t at = r * columns + j;
      Vec v = load(x + at, lanes);
      if constexpr (GREATER) v = greater(v * row[r], v * load(column + j, lanes));
      else if constexpr (ROW && COLUMN) v = v * row[r] * load(column + j, lanes);
      else if constexpr (ROW) v = v * row[r];
      else if constexpr (COLUMN) v = v * load(column + j, lanes);
      store(y + at, last(v, at, lanes), lanes);
    });
}

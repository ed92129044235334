// The passes of coordinate attention over an NCHW map.
// They process WIDTH channels at a time, in blocks of columns whose sums stay in registers. In the lines the channels
// are contiguous, so the passes transpose them.

constexpr int64_t AHEAD = 1024;  // prefetch distance

// Lane i of the result is the sum over the lanes of vector i; the vectors are already folded in groups of FROM.
template <int FROM, int TO>
INLINE Vec folded(const Vec* v) {
  if constexpr (FROM == TO) return v[0];
  else return fold<TO / 2>(folded<FROM, TO / 2>(v), folded<FROM, TO / 2>(v + TO / 2 / FROM), Add{}, Lanes{});
}

template <int VECTORS, class P>
INLINE void load_row(const P* p, Part last, Vec* v) {
  repeat<VECTORS>([&](int j)
                      ALWAYS { v[j] = j + 1 < VECTORS ? load(p + j * WIDTH, Full{}) : load(p + j * WIDTH, last); });
}

// Transposes the numbers of `count` lines: out(c, l) = f(in(l, c)). Stores whole vectors, because loads soon after a
// masked store would wait.
template <class F>
static void to_channels(const float* in, int64_t apart, int count, int channels, float* out, int64_t out_row, F f) {
  for (int l = 0; l < count; l += WIDTH)
    each(channels, [&](int64_t, auto lanes) {
      Vec v[WIDTH];
      load_transposed(in + l * apart, apart, static_cast<int>(smaller(WIDTH, count - l)), lanes, v,
                      [&](auto, auto value) { return f(value); });
      repeat<WIDTH>([&](auto c) ALWAYS { store(out + c * out_row + l, v[c], Full{}); });
    });
}

constexpr int SPAN = 4 * WIDTH;  // the largest number of columns in a block

// Calls f(channel, channels, left, vectors, last) for blocks of WIDTH of the channels [begin, end), with `vectors`
// vectors of columns, of which the last one is `last`.
template <class F>
INLINE void blocks(const Shape& s, int64_t begin, int64_t end, F f) {
  for (int64_t channel = begin; channel < end; channel += WIDTH)
    for (int64_t left = 0; left < s.width; left += SPAN) {
      const int channels = static_cast<int>(smaller(WIDTH, end - channel)),
                width = static_cast<int>(smaller(SPAN, s.width - left));
      const auto with = [&](auto vectors) { f(channel, channels, left, vectors, Part{width - (vectors - 1) * WIDTH}); };
      if (width <= WIDTH) with(std::integral_constant<int, 1>{});
      else if (width <= 2 * WIDTH) with(std::integral_constant<int, 2>{});
      else if (width <= 3 * WIDTH) with(std::integral_constant<int, 3>{});
      else with(std::integral_constant<int, 4>{});
    }
}

// Adds to the column sums of GROUP channels, whose maps begin at the distances `apart` from the first. Returns for each
// row the sums of the channels folded together, WIDTH / GROUP vectors apart. Prefetches the data at `ahead`.
template <bool BACKWARD, int VECTORS, int GROUP, class T>
INLINE void group_sums(const T* x, const T* dy, const int64_t* apart, int64_t ahead, int64_t width, int rows, Part last,
                       const float* row_gates, const float* column_gates, Vec* by_row, Vec* by_row_u, float* by_column,
                       float* by_column_u, bool first) {
  constexpr int SIZE = VECTORS * WIDTH;
  Vec total[GROUP][VECTORS] = {}, total_u[GROUP][VECTORS] = {}, gate[GROUP][VECTORS];
  if constexpr (BACKWARD)
    repeat<GROUP>([&](int i) ALWAYS { load_row<VECTORS>(column_gates + i * SIZE, Part{WIDTH}, gate[i]); });
  for (int row = 0; row < rows; row++) {
    Vec found[GROUP], found_u[GROUP];
    repeat<GROUP>([&](int i) ALWAYS {
      Vec v[VECTORS], u[VECTORS];
      load_row<VECTORS>(x + apart[i], last, v);
      repeat<VECTORS>([&](int j) ALWAYS {
        __builtin_prefetch(x + ahead + apart[i] + j * WIDTH);
        found[i] = j ? found[i] + v[j] : v[j];
        total[i][j] = total[i][j] + v[j];
      });
      if constexpr (BACKWARD) {
        load_row<VECTORS>(dy + apart[i], last, u);
        repeat<VECTORS>([&](int j) ALWAYS {
          __builtin_prefetch(dy + ahead + apart[i] + j * WIDTH);
          u[j] = u[j] * v[j];
          found_u[i] = j ? fma(u[j], gate[i][j], found_u[i]) : u[j] * gate[i][j];
          total_u[i][j] = fma(u[j], splat(row_gates[i * WIDTH]), total_u[i][j]);
        });
      }
    });
    *by_row = folded<1, GROUP>(found);
    if constexpr (BACKWARD) *by_row_u = folded<1, GROUP>(found_u);
    x += width, dy += width, row_gates++, by_row += WIDTH / GROUP, by_row_u += WIDTH / GROUP;
  }
  repeat<GROUP>([&](int i) ALWAYS {
    repeat<VECTORS>([&](int j) ALWAYS {
      put(by_column + i * SIZE + j * WIDTH, total[i][j], first, Full{});
      if constexpr (BACKWARD) put(by_column_u + i * SIZE + j * WIDTH, total_u[i][j], first, Full{});
    });
  });
}

// The sums of x over each row and each column. Backward also sums u = dy * x times the gate of the other direction,
// which gives the gradients of the gates.
template <bool BACKWARD, class T>
static void nchw_sums(const T* x, const T* dy, const Shape& shape, int64_t begin, int64_t end, const Gates& gates,
                      const Lines& sums, const Lines& d, Before before = {}) {
  blocks(shape, begin, end, [&](int64_t channel, int channels, int64_t left, auto vectors, auto last) {
    constexpr int VECTORS = decltype(vectors)::value, GROUP = BACKWARD && VECTORS > 2 ? 2 : 4;
    const Shape s = shape;
    const int64_t HW = s.positions();
    const Part lanes{channels};
    alignas(64) float row_gates[WIDTH][WIDTH], column_gates[WIDTH][VECTORS * WIDTH],
        by_column[2][WIDTH][VECTORS * WIDTH];
    Vec by_row[2][WIDTH][WIDTH / GROUP];
    const int width = (VECTORS - 1) * WIDTH + last.n;
    if constexpr (BACKWARD)
      to_channels(gates.sigmoids.column(left, channel), gates.sigmoids.apart, width, channels, column_gates[0],
                  VECTORS * WIDTH, [&](auto v) { return gates.of(v); });
    for (int64_t top = 0; top < s.height; top += WIDTH) {
      const int rows = static_cast<int>(smaller(WIDTH, s.height - top));
      if constexpr (BACKWARD)
        to_channels(gates.sigmoids.row(top, channel), gates.sigmoids.apart, rows, channels, row_gates[0], WIDTH,
                    [&](auto v) { return gates.of(v); });
      for (int from = 0; from < channels; from += GROUP) {
        for (int c = from; c < smaller(from + GROUP, channels) && left == 0; c++)
          before(x + (channel + c) * HW + top * s.width, rows * s.width);
        int64_t apart[GROUP];
        // Beyond the last channel, the last one is read again and not stored.
        for (int i = 0; i < GROUP; i++) apart[i] = smaller(i, channels - 1 - from) * HW;
        const int64_t at = (channel + from) * HW + top * s.width + left;
        const int64_t ahead =
            from + GROUP < channels || top + WIDTH >= s.height ? GROUP * HW : WIDTH * s.width - from * HW;
        group_sums<BACKWARD, VECTORS, GROUP>(
            x + at, BACKWARD ? dy + at : x, apart, ahead, s.width, rows, last, row_gates[from], column_gates[from],
            &by_row[0][0][from / GROUP], &by_row[1][0][from / GROUP], by_column[0][from], by_column[1][from], top == 0);
      }
      for (int k = 0; k <= BACKWARD; k++)
        for (int row = 0; row < rows; row++) {
          Vec* found = by_row[k][row];
          for (int group = (channels + GROUP - 1) / GROUP; group < WIDTH / GROUP; group++) found[group] = Vec{};
          float* to = (k ? d : sums).row(top + row, channel);
          __builtin_prefetch(to + WIDTH, 1);
          if (channels == WIDTH) put(to, folded<GROUP, WIDTH>(found), left == 0, Full{});
          else put(to, folded<GROUP, WIDTH>(found), left == 0, lanes);
        }
    }
    for (int k = 0; k <= BACKWARD; k++)
      transposed(channels, width, by_column[k][0], VECTORS * WIDTH, (k ? d : sums).column(left, channel), sums.apart,
                 same);
  });
}

// One channel of a block, which begins at `at`, with the gates and means of its rows and columns.
template <bool BACKWARD, int VECTORS, class T, class E>
INLINE void scale_rows(const T* x, T* y, int64_t at, int64_t width, int rows, Part last, const float* row_gates,
                       const float* column_gates, const float* row_means, const float* column_means, E finish) {
  Vec gate[VECTORS], mean[VECTORS];
  load_row<VECTORS>(column_gates, Part{WIDTH}, gate);
  if constexpr (BACKWARD) load_row<VECTORS>(column_means, Part{WIDTH}, mean);
  for (int row = 0; row < rows; row++) {
    Vec v[VECTORS];
    const int64_t begin = at + row * width;
    load_row<VECTORS>(x + begin, last, v);
    repeat<VECTORS>([&](int j) ALWAYS {
      __builtin_prefetch(x + begin + AHEAD + j * WIDTH);
      __builtin_prefetch(y + begin + AHEAD + j * WIDTH, 1);
      v[j] = v[j] * gate[j] * row_gates[row];
      if constexpr (BACKWARD) v[j] = v[j] + (mean[j] + row_means[row]);
      const int64_t to = begin + j * WIDTH;
      if (j + 1 < VECTORS) store(y + to, finish(v[j], to, Full{}), Full{});
      else store(y + to, finish(v[j], to, last), last);
    });
  }
}

// y = x * column gate * row gate. Backward does the same from dy to dx, and adds the gradients through the row means
// and the column means. Then comes the last step.
template <bool BACKWARD, class T, class E>
static void nchw_scale(const T* x, T* y, const Shape& shape, int64_t begin, int64_t end, const Gates& gates,
                       const Lines& means, E finish) {
  blocks(shape, begin, end, [&](int64_t channel, int channels, int64_t left, auto vectors, auto last) {
    constexpr int VECTORS = decltype(vectors)::value, ROWS = CHAIN;
    const Shape s = shape;
    const int64_t HW = s.positions();
    const int width = (VECTORS - 1) * WIDTH + last.n;
    alignas(64) float by_row[2][WIDTH][ROWS], by_column[2][WIDTH][VECTORS * WIDTH];
    to_channels(gates.sigmoids.column(left, channel), gates.sigmoids.apart, width, channels, by_column[0][0],
                VECTORS * WIDTH, [&](auto v) { return gates.of(v); });
    if constexpr (BACKWARD)
      to_channels(means.column(left, channel), means.apart, width, channels, by_column[1][0], VECTORS * WIDTH,
                  [](auto v) { return v; });
    for (int64_t top = 0; top < s.height; top += ROWS) {
      const int rows = static_cast<int>(smaller(ROWS, s.height - top));
      to_channels(gates.sigmoids.row(top, channel), gates.sigmoids.apart, rows, channels, by_row[0][0], ROWS,
                  [&](auto v) { return gates.of(v); });
      if constexpr (BACKWARD)
        to_channels(means.row(top, channel), means.apart, rows, channels, by_row[1][0], ROWS, [](auto v) { return v; });
      for (int c = 0; c < channels; c++) {
        const int64_t at = (channel + c) * HW + top * s.width + left;
        scale_rows<BACKWARD, VECTORS>(x, y, at, s.width, rows, last, by_row[0][c], by_column[0][c], by_row[1][c],
                                      by_column[1][c], finish);
      }
    }
  });
}

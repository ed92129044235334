// The passes of coordinate attention over a channels_last map: vectors along the channels, a few rows at a time.

// Calls f(i, count) for groups of COUNT, then for the rest in smaller powers of two.
template <int COUNT, class F>
INLINE void few(int64_t i, int64_t end, F f) {
  for (; i + COUNT <= end; i += COUNT) f(i, std::integral_constant<int, COUNT>{});
  if constexpr (COUNT > 1) few<COUNT / 2>(i, end, f);
}

constexpr int ROWS_AT_ONCE = 4;
constexpr int64_t CHANNEL_TILE = 256;  // channels whose row sums stay in the first-level cache

// The values of a few rows, copied to be in the first-level cache: as lines, their addresses could evict the map from
// it.
using RowTile = float[ROWS_AT_ONCE][CHANNEL_TILE + WIDTH];

// One column of a few rows, which are `apart` from each other, and `count` channels; line `column` holds the values of
// the column. Prefetches the data at `ahead`.
template <bool BACKWARD, int ROWS, class T>
INLINE void column_of_rows(const T* x, const T* dy, int64_t apart, int64_t ahead, int64_t count, bool first,
                           const RowTile& row_gates, RowTile& by_row, RowTile& by_row_u, const Gates& gates,
                           const float* column_gate, float* by_column, float* by_column_u) {
  each(count, [&](int64_t c, auto lanes) {
    Vec total = load(by_column + c, lanes), total_u{}, gate{};
    if constexpr (BACKWARD) total_u = load(by_column_u + c, lanes), gate = gates.of(load(column_gate + c, lanes));
    repeat<ROWS>([&](auto i) ALWAYS {
      const Vec v = load(x + i * apart + c, lanes);
      __builtin_prefetch(x + i * apart + c + ahead);
      total = total + v;
      put(by_row[i] + c, v, first, Full{});
      if constexpr (BACKWARD) {
        const Vec u = v * load(dy + i * apart + c, lanes);
        __builtin_prefetch(dy + i * apart + c + ahead);
        total_u = fma(u, load(row_gates[i] + c, Full{}), total_u);
        put(by_row_u[i] + c, u * gate, first, Full{});
      }
    });
    store(by_column + c, total, lanes);
    if constexpr (BACKWARD) store(by_column_u + c, total_u, lanes);
  });
}

// The sums of x over each of the rows [top, bottom), and over each column of these rows, for the channels [begin, end).
// Backward also sums u = dy * x times the gate of the other direction, which gives the gradients of the gates.
template <bool BACKWARD, class T>
static void nhwc_sums(const T* x, const T* dy, const Shape& s, int64_t top, int64_t bottom, int64_t begin, int64_t end,
                      const Gates& gates, const Lines& sums, const Lines& d, Before before = {}) {
  const int64_t C = s.channels, W = s.width;
  const Lines& sigmoids = gates.sigmoids;
  alignas(64) RowTile row_gates, by_row[2];
  for (int k = 0; k <= BACKWARD; k++)
    for (int64_t w = 0; w < W; w++)
      each(end - begin, [&](int64_t c, auto lanes) { store((k ? d : sums).column(w, begin + c), Vec{}, lanes); });
  few<ROWS_AT_ONCE>(top, bottom, [&](int64_t h, auto rows) {
    constexpr int ROWS = decltype(rows)::value;
    for (int64_t from = begin; from < end; from += CHANNEL_TILE) {
      const int64_t count = smaller(CHANNEL_TILE, end - from);
      if constexpr (BACKWARD)
        for (int i = 0; i < ROWS; i++)
          each(count, [&](int64_t c, auto lanes) {
            store(row_gates[i] + c, gates.of(load(sigmoids.row(h + i, from + c), lanes)), Full{});
          });
      for (int64_t w = 0; w < W; w++) {
        const int64_t at = (h * W + w) * C + from;
        for (int i = 0; i < ROWS; i++) before(x + at + i * W * C, count);
        column_of_rows<BACKWARD, ROWS>(x + at, BACKWARD ? dy + at : nullptr, W * C, larger(C, CHANNEL_TILE), count,
                                       w == 0, row_gates, by_row[0], by_row[1], gates, sigmoids.column(w, from),
                                       sums.column(w, from), d.column(w, from));
      }
      for (int k = 0; k <= BACKWARD; k++)
        for (int i = 0; i < ROWS; i++)
          each(count, [&](int64_t c, auto lanes) {
            store((k ? d : sums).row(h + i, from + c), load(by_row[k][i] + c, Full{}), lanes);
          });
    }
  });
}

// y = x * column gate * row gate for the rows [begin, end). Backward does the same from dy to dx, and adds the
// gradients through the row means and the column means. Then comes the last step.
template <bool BACKWARD, class T, class E>
static void nhwc_scale(const T* x, T* y, const Shape& s, int64_t begin, int64_t end, const Gates& gates,
                       const Lines& means, E finish) {
  const int64_t C = s.channels, W = s.width;
  few<2>(begin, end, [&](int64_t h, auto rows) {
    for (int64_t w = 0; w < W; w++)
      each(C, [&](int64_t c, auto lanes) {
        const Vec gate = gates.of(load(gates.sigmoids.column(w, c), lanes));
        Vec mean{};
        if constexpr (BACKWARD) mean = load(means.column(w, c), lanes);
        repeat<decltype(rows)::value>([&](int i) {
          const int64_t at = ((h + i) * W + w) * C + c;
          __builtin_prefetch(x + at + AHEAD);
          __builtin_prefetch(y + at + AHEAD, 1);
          Vec v = load(x + at, lanes) * gate * gates.of(load(gates.sigmoids.row(h + i, c), lanes));
          if constexpr (BACKWARD) v = v + (mean + load(means.row(h + i, c), lanes));
          store(y + at, finish(v, at, lanes), lanes);
        });
      });
  });
}

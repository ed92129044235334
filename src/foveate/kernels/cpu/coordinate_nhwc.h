// The passes of coordinate attention over a channels_last map: vectors run along the channels, rows go a few at a time.

constexpr int64_t CHANNEL_TILE = 512;  // channels whose row sums stay in the first-level cache

// Calls f(row, rows): as many rows at a time as each constant says, the rest with the next.
template <int ROWS = 4, class F>
INLINE void few_rows(int64_t row, int64_t end, F f) {
  for (; row + ROWS <= end; row += ROWS) f(row, std::integral_constant<int, ROWS>{});
  if constexpr (ROWS > 1) few_rows<ROWS / 2>(row, end, f);
}

// The sums over each row and each column of x; and with dy, of u = dy * x times the other direction's gate, the gradients of the gates.
template <bool BACKWARD, class T>
static void nhwc_sums(const T* x, const T* dy, const Shape& s, int64_t begin, int64_t end, const Lines& gates, const Lines& sums, const Lines& d) {
  const int64_t C = s.channels, W = s.width;
  for (int64_t from = begin; from < end; from += CHANNEL_TILE) {
    const int64_t count = smaller(CHANNEL_TILE, end - from);
    const Lines gate = gates.at(0, 0, from, s), sum = sums.at(0, 0, from, s), by_u = d.at(0, 0, from, s);
    const auto clear = [&](float* lines) {
      each(count, [&](int64_t c, auto lanes) {
        store(lines + c, Vec{}, lanes);
      });
    };
    for (int64_t w = 0; w < W; w++) {
      clear(sum.columns + w * C);
      if constexpr (BACKWARD) clear(by_u.columns + w * C);
    }
    few_rows(0, s.height, [&](int64_t h, auto rows) {
      constexpr int ROWS = decltype(rows)::value;
      for (int i = 0; i < ROWS; i++) {
        clear(sum.rows + (h + i) * C);
        if constexpr (BACKWARD) clear(by_u.rows + (h + i) * C);
      }
      for (int64_t w = 0; w < W; w++)
        each(count, [&](int64_t c, auto lanes) {
          float *column = sum.columns + w * C + c, *column_u = nullptr;
          Vec total = load(column, lanes), total_u{}, column_gate{};
          if constexpr (BACKWARD) {
            column_u = by_u.columns + w * C + c;
            total_u = load(column_u, lanes);
            column_gate = load(gate.columns + w * C + c, lanes);
          }
          repeat<ROWS>([&](int i) {
            const int64_t at = ((h + i) * W + w) * C + from + c, line = (h + i) * C + c;
            const Vec v = load(x + at, lanes);
            total = total + v;
            store(sum.rows + line, load(sum.rows + line, lanes) + v, lanes);
            if constexpr (BACKWARD) {
              const Vec u = v * load(dy + at, lanes);
              total_u = fma(u, load(gate.rows + line, lanes), total_u);
              store(by_u.rows + line, fma(u, column_gate, load(by_u.rows + line, lanes)), lanes);
            }
          });
          store(column, total, lanes);
          if constexpr (BACKWARD) store(column_u, total_u, lanes);
        });
    });
  }
}

// y = x * column gate * row gate for the rows [begin, end); backward, of dy to dx, with what the means of the row and of the column pass added.
template <bool BACKWARD, class T>
static void nhwc_scale(const T* x, T* y, const Shape& s, int64_t begin, int64_t end, const Lines& gates, const Lines& means) {
  const int64_t C = s.channels, W = s.width;
  few_rows<2>(begin, end, [&](int64_t h, auto rows) {
    for (int64_t w = 0; w < W; w++)
      each(C, [&](int64_t c, auto lanes) {
        const Vec gate = load(gates.columns + w * C + c, lanes);
        Vec mean{};
        if constexpr (BACKWARD) mean = load(means.columns + w * C + c, lanes);
        repeat<decltype(rows)::value>([&](int i) {
          const int64_t at = ((h + i) * W + w) * C + c, line = (h + i) * C + c;
          Vec v = load(x + at, lanes) * gate * load(gates.rows + line, lanes);
          if constexpr (BACKWARD) v = v + (mean + load(means.rows + line, lanes));
          store(y + at, v, lanes);
        });
      });
  });
}

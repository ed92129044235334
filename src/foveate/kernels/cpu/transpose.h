// Transpose matrices, WIDTH x WIDTH at a time in registers.

// Exchanges the lanes of a whose number has BIT with the lanes of b whose number does not have it.
template <int BIT, int... LANE>
INLINE void exchange(Vec& a, Vec& b, std::integer_sequence<int, LANE...>) {
  const Vec first = __builtin_shufflevector(a, b, ((LANE & BIT) ? WIDTH + (LANE ^ BIT) : LANE)...);
  b = __builtin_shufflevector(a, b, ((LANE & BIT) ? WIDTH + LANE : (LANE ^ BIT))...);
  a = first;
}

// Lane j of vector i becomes lane i of vector j.
template <int BIT = 1>
INLINE void transpose(Vec* v) {
  for (int i = 0; i < WIDTH; i++)
    if (!(i & BIT)) exchange<BIT>(v[i], v[i + BIT], Lanes{});
  if constexpr (2 * BIT < WIDTH) transpose<2 * BIT>(v);
}

// The transpose of `rows` rows, at most WIDTH, of f(i, in(i, j)); the last row is repeated up to WIDTH. Prefetches the
// columns of the next call.
template <class L, class F>
INLINE void load_transposed(const float* in, int64_t in_row, int rows, L lanes, Vec* v, F f) {
  repeat<WIDTH>([&](auto i) ALWAYS {
    v[i] = f(smaller(i, rows - 1), load(in, lanes));
    __builtin_prefetch(in + WIDTH);
    if (i + 1 < rows) in += in_row;
  });
  transpose(v);
}

// out(j, i) = f(i, in(i, j)); both matrices have the given distance between their rows.
template <class T, class F>
static void transposed(int64_t rows, int64_t columns, const float* in, int64_t in_row, T* out, int64_t out_row, F f) {
  for (int64_t i = 0; i < rows; i += WIDTH) {
    const int count = static_cast<int>(smaller(WIDTH, rows - i));
    each(columns, [&](int64_t j, auto lanes) {
      Vec v[WIDTH];
      load_transposed(in + i * in_row + j, in_row, count, lanes, v,
                      [&](int64_t k, auto value) { return f(i + k, value); });
      T* to = out + j * out_row + i;
      for (int k = 0; k < lanes.n; k++) {
        __builtin_prefetch(to + k * out_row + WIDTH, 1);
        if (count == WIDTH) store(to + k * out_row, v[k], Full{});
        else store(to + k * out_row, v[k], Part{count});
      }
    });
  }
}
constexpr auto same = [](auto, auto v) { return v; };

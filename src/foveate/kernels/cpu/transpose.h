// Matrices turned round, WIDTH x WIDTH at a time in registers.

// Exchanges the lanes of a that have BIT with those of b that have not.
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

// out(j, i) = f(i, in(i, j)), both matrices with the given distance between their rows.
template <class T, class F>
static void transposed(int64_t rows, int64_t columns, const float* in, int64_t in_row, T* out, int64_t out_row, F f) {
  for (int64_t i = 0; i < rows; i += WIDTH) {
    const int count = static_cast<int>(smaller(WIDTH, rows - i));
    each(columns, [&](int64_t j, auto lanes) {
      Vec v[WIDTH];
      for (int k = 0; k < WIDTH; k++) v[k] = k < count ? f(i + k, load(in + (i + k) * in_row + j, lanes)) : Vec{};
      transpose(v);
      for (int k = 0; k < lanes.n; k++) {
        if (count == WIDTH) store(out + (j + k) * out_row + i, v[k], Full{});
        else store(out + (j + k) * out_row + i, v[k], Part{count});
      }
    });
  }
}
template <class T>
static void transposed(int64_t rows, int64_t columns, const float* in, int64_t in_row, T* out, int64_t out_row) {
  transposed(rows, columns, in, in_row, out, out_row, [](auto, auto v) { return v; });
}

// Small matrix products in registers.
// `steps` repeats the inner dimension over further pieces, `step` apart, to sum over samples.

constexpr int64_t LONG = 256;  // products in one partial sum: bounds the rounding error

// A matrix with a distance of `row` between its rows and of `step` between its `steps` pieces.
struct Rows {
  const float* at;
  int64_t row;
  int64_t step = 0;
};

// The output: element (i, j) is at at[i * row + j * column]; with `add` the result is added to the stored value.
struct Out {
  float* at;
  int64_t row, column = 1;
  bool add = false;
};

template <int M, int N>
INLINE void dots_tile(const Rows& a, const Rows& b, int64_t inner, int64_t steps, Out out) {
  constexpr int COUNT = (M * N + WIDTH - 1) / WIDTH * WIDTH;
  Vec sums[COUNT] = {};
  for (int64_t s = 0; s < steps; s++) {
    const float *pa = a.at + s * a.step, *pb = b.at + s * b.step;
    each(inner, [&](int64_t k, auto lanes) {
      Vec left[M];
      for (int i = 0; i < M; i++) left[i] = load(pa + i * a.row + k, lanes);
      for (int j = 0; j < N; j++) {
        const Vec right = load(pb + j * b.row + k, lanes);
        for (int i = 0; i < M; i++) sums[i * N + j] = fma(left[i], right, sums[i * N + j]);
      }
    });
  }
  float found[COUNT];
  for (int c = 0; c < COUNT; c += WIDTH) store(found + c, transposed_reduce(sums + c, Add{}), Full{});
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      float& to = out.at[i * out.row + j * out.column];
      to = out.add ? to + found[i * N + j] : found[i * N + j];
    }
}

// out(i, j) = sum over k of a(i, k) b(j, k); both are contiguous along k.
static void dots(int64_t rows, int64_t columns, int64_t inner, int64_t steps, Rows a, Rows b, Out out) {
  const auto at = [](const Rows& m, int64_t i) { return Rows{m.at + i * m.row, m.row, m.step}; };
  const auto to = [&](int64_t i, int64_t j) {
    return Out{out.at + i * out.row + j * out.column, out.row, out.column, out.add};
  };
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    int64_t j = 0;
    for (; j + 4 <= columns; j += 4) dots_tile<4, 4>(at(a, i), at(b, j), inner, steps, to(i, j));
    for (; j < columns; j++) dots_tile<4, 1>(at(a, i), at(b, j), inner, steps, to(i, j));
  }
  for (; i < rows; i++) {
    int64_t j = 0;
    for (; j + 4 <= columns; j += 4) dots_tile<1, 4>(at(a, i), at(b, j), inner, steps, to(i, j));
    for (; j < columns; j++) dots_tile<1, 1>(at(a, i), at(b, j), inner, steps, to(i, j));
  }
}

// The left matrix of `products`: element (i, k) is at at[i * row + k * column].
struct Left {
  const float* at;
  int64_t row, column;
  int64_t step = 0;
};

template <int M, int N, class Lanes>
INLINE void products_tile(const Left& a, const Rows& b, int64_t inner, int64_t steps, Out out, Lanes last) {
  Vec sums[M][N] = {};
  if (out.add)
    for (int i = 0; i < M; i++)
      for (int j = 0; j < N; j++)
        sums[i][j] =
            j + 1 < N ? load(out.at + i * out.row + j * WIDTH, Full{}) : load(out.at + i * out.row + j * WIDTH, last);
  for (int64_t s = 0; s < steps; s++) {
    const float *pa = a.at + s * a.step, *pb = b.at + s * b.step;
    for (int64_t from = 0; from < inner; from += LONG) {
      Vec part[M][N] = {};
      for (int64_t k = from; k < smaller(from + LONG, inner); k++) {
        Vec right[N];
        for (int j = 0; j < N; j++)
          right[j] = j + 1 < N ? load(pb + k * b.row + j * WIDTH, Full{}) : load(pb + k * b.row + j * WIDTH, last);
        for (int i = 0; i < M; i++) {
          const Vec left = splat(pa[i * a.row + k * a.column]);
          for (int j = 0; j < N; j++) part[i][j] = fma(left, right[j], part[i][j]);
        }
      }
      for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) sums[i][j] = sums[i][j] + part[i][j];
    }
  }
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      float* to = out.at + i * out.row + j * WIDTH;
      if (j + 1 < N) store(to, sums[i][j], Full{});
      else store(to, sums[i][j], last);
    }
}

template <int M>
INLINE void products_rows(int64_t columns, int64_t inner, int64_t steps, const Left& a, const Rows& b, const Out& out) {
  const auto from = [&](int64_t j) { return Rows{b.at + j, b.row, b.step}; };
  const auto to = [&](int64_t j) { return Out{out.at + j, out.row, 1, out.add}; };
  int64_t j = 0;
  for (; j + 2 * WIDTH <= columns; j += 2 * WIDTH) products_tile<M, 2>(a, from(j), inner, steps, to(j), Full{});
  if (columns - j > WIDTH)
    products_tile<M, 2>(a, from(j), inner, steps, to(j), Part{static_cast<int>(columns - j - WIDTH)});
  else if (columns > j) products_tile<M, 1>(a, from(j), inner, steps, to(j), Part{static_cast<int>(columns - j)});
}

// out(i, j) = sum over k of a(i, k) b(k, j); b and out are contiguous along j.
static void products(int64_t rows, int64_t columns, int64_t inner, int64_t steps, Left a, Rows b, Out out) {
  constexpr int TALL = WIDTH == 16 ? 8 : 4;
  const auto at = [&](int64_t i) { return Left{a.at + i * a.row, a.row, a.column, a.step}; };
  const auto to = [&](int64_t i) { return Out{out.at + i * out.row, out.row, 1, out.add}; };
  int64_t i = 0;
  for (; i + TALL <= rows; i += TALL) products_rows<TALL>(columns, inner, steps, at(i), b, to(i));
  for (; i + 2 <= rows; i += 2) products_rows<2>(columns, inner, steps, at(i), b, to(i));
  for (; i < rows; i++) products_rows<1>(columns, inner, steps, at(i), b, to(i));
}

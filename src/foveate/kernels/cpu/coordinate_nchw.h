// The passes of coordinate attention over an NCHW map: WIDTH channels at a time, in blocks of positions whose column sums stay in registers.
// What belongs to a row or a column lies with its channels side by side (see Lines), so it is turned round on the way.

// One sample's numbers for each row, [height][channels], and for each column, [width][channels].
struct Lines {
  float *rows, *columns;

  Lines of(int64_t sample, const Shape& s) const { return {rows + sample * s.height * s.channels, columns + sample * s.width * s.channels}; }
  Lines at(int64_t row, int64_t column, int64_t channel, const Shape& s) const {
    return {rows + row * s.channels + channel, columns + column * s.channels + channel};
  }
};

template <int... I, class F>
INLINE void repeat(std::integer_sequence<int, I...>, F f) {
  (f(I), ...);
}
template <int N, class F>
INLINE void repeat(F f) {
  repeat(std::make_integer_sequence<int, N>{}, f);
}

template <class L>
INLINE void put(float* to, Vec v, bool first, L lanes) {
  store(to, first ? v : load(to, lanes) + v, lanes);
}

// Lane i of the result is the sum over the lanes of vector i; vectors FROM ... are already folded in groups of FROM.
template <int FROM, int TO>
INLINE Vec folded(const Vec* v) {
  if constexpr (FROM == TO) return v[0];
  else return fold<TO / 2>(folded<FROM, TO / 2>(v), folded<FROM, TO / 2>(v + TO / 2 / FROM), Add{}, Lanes{});
}

// A block: `count` channels, `height` rows and VECTORS vectors of columns, the last of them `last`; its sums are the first of its rows, or columns.
template <int VECTORS, class L>
struct Block {
  int count;
  int64_t height;
  L last;
  bool first_of_rows, first_of_columns;

  static constexpr int64_t SPAN = VECTORS * WIDTH;
  int64_t width() const { return SPAN - WIDTH + last.n; }

  template <class P>
  void load_row(const P* p, Vec* v) const {
    repeat<VECTORS>([&](int j) { v[j] = j + 1 < VECTORS ? load(p + j * WIDTH, Full{}) : load(p + j * WIDTH, last); });
  }
};

constexpr int64_t BLOCK_ROWS = CHAIN, BLOCK_VECTORS = 4;

// Calls f(block, top, left, channel) for each block of the channels [begin, end).
template <class F>
INLINE void blocks(const Shape& s, int64_t begin, int64_t end, F f) {
  const auto with = [&](auto vectors, int64_t channel, int64_t top, int64_t left) {
    constexpr int VECTORS = decltype(vectors)::value;
    const int count = static_cast<int>(smaller(WIDTH, end - channel)), rest = static_cast<int>(smaller(WIDTH, s.width - left - (VECTORS - 1) * WIDTH));
    const int64_t height = smaller(BLOCK_ROWS, s.height - top);
    if (rest == WIDTH) f(Block<VECTORS, Full>{count, height, {}, left == 0, top == 0}, top, left, channel);
    else f(Block<VECTORS, Part>{count, height, {rest}, left == 0, top == 0}, top, left, channel);
  };
  for (int64_t channel = begin; channel < end; channel += WIDTH)
    for (int64_t top = 0; top < s.height; top += BLOCK_ROWS)
      for (int64_t left = 0; left < s.width; left += BLOCK_VECTORS * WIDTH) switch ((s.width - left + WIDTH - 1) / WIDTH) {
          case 1: with(std::integral_constant<int, 1>{}, channel, top, left); break;
          case 2: with(std::integral_constant<int, 2>{}, channel, top, left); break;
          case 3: with(std::integral_constant<int, 3>{}, channel, top, left); break;
          default: with(std::integral_constant<int, 4>{}, channel, top, left);
        }
}

// The sums over each row and each column of x; and with dy, of u = dy * x times the other direction's gate, the gradients of the gates.
template <bool BACKWARD, class T>
static void nchw_sums(const T* x, const T* dy, const Shape& s, int64_t begin, int64_t end, const Lines& gates, const Lines& sums, const Lines& d) {
  blocks(s, begin, end, [&](auto block, int64_t top, int64_t left, int64_t channel) {
    using B = decltype(block);
    constexpr int VECTORS = B::SPAN / WIDTH, GROUP = BACKWARD && VECTORS > 2 ? 2 : 4;
    const int64_t C = s.channels;
    float row_gates[WIDTH * BLOCK_ROWS], column_gates[WIDTH * B::SPAN], by_column[2][WIDTH * B::SPAN];
    Vec by_row[2][BLOCK_ROWS][WIDTH / GROUP];
    if constexpr (BACKWARD) {
      const Lines from = gates.at(top, left, channel, s);
      transposed(block.height, block.count, from.rows, C, row_gates, BLOCK_ROWS);
      transposed(block.width(), block.count, from.columns, C, column_gates, B::SPAN);
    }
    const int groups = (block.count + GROUP - 1) / GROUP;
    for (int group = 0; group < groups; group++) {
      int64_t from[GROUP];
      Vec total[2][GROUP][VECTORS] = {}, column_gate[GROUP][VECTORS];
      for (int i = 0; i < GROUP; i++) {
        const int64_t c = smaller(group * GROUP + i, block.count - 1);  // beyond the last channel: once more the last, stored nowhere
        from[i] = ((channel + c) * s.height + top) * s.width + left;
        if constexpr (BACKWARD) block.load_row(column_gates + c * B::SPAN, column_gate[i]);
      }
      for (int64_t row = 0; row < block.height; row++) {
        Vec found[2][GROUP];
        repeat<GROUP>([&](int i) {
          Vec v[VECTORS], u[VECTORS];
          block.load_row(x + from[i] + row * s.width, v);
          found[0][i] = Vec{};
          repeat<VECTORS>([&](int j) {
            found[0][i] = j ? found[0][i] + v[j] : v[j];
            total[0][i][j] = total[0][i][j] + v[j];
          });
          if constexpr (BACKWARD) {
            const Vec row_gate = splat(row_gates[smaller(group * GROUP + i, block.count - 1) * BLOCK_ROWS + row]);
            block.load_row(dy + from[i] + row * s.width, u);
            repeat<VECTORS>([&](int j) {
              u[j] = u[j] * v[j];
              found[1][i] = j ? fma(u[j], column_gate[i][j], found[1][i]) : u[j] * column_gate[i][j];
              total[1][i][j] = fma(u[j], row_gate, total[1][i][j]);
            });
          }
        });
        for (int k = 0; k <= BACKWARD; k++) by_row[k][row][group] = folded<1, GROUP>(found[k]);
      }
      for (int k = 0; k <= BACKWARD; k++)
        for (int i = 0; i < GROUP; i++)
          for (int j = 0; j < VECTORS; j++) store(by_column[k] + (group * GROUP + i) * B::SPAN + j * WIDTH, total[k][i][j], Full{});
    }
    const Part lanes{block.count};
    for (int k = 0; k <= BACKWARD; k++) {
      const Lines to = (k ? d : sums).at(top, left, channel, s);
      for (int64_t row = 0; row < block.height; row++) {
        for (int group = groups; group < WIDTH / GROUP; group++) by_row[k][row][group] = Vec{};
        put(to.rows + row * C, folded<GROUP, WIDTH>(by_row[k][row]), block.first_of_rows, lanes);
      }
      for (int j = 0; j < VECTORS; j++) {
        Vec v[WIDTH];
        for (int i = 0; i < WIDTH; i++) v[i] = i < groups * GROUP ? load(by_column[k] + i * B::SPAN + j * WIDTH, Full{}) : Vec{};
        transpose(v);
        for (int i = 0; i < smaller(WIDTH, block.width() - j * WIDTH); i++)
          put(to.columns + (j * WIDTH + i) * C, v[i], block.first_of_columns, lanes);
      }
    }
  });
}

// y = x * column gate * row gate; backward, of dy to dx, with what the means of the row and of the column pass added.
template <bool BACKWARD, class T>
static void nchw_scale(const T* x, T* y, const Shape& s, int64_t begin, int64_t end, const Lines& gates, const Lines& means) {
  blocks(s, begin, end, [&](auto block, int64_t top, int64_t left, int64_t channel) {
    using B = decltype(block);
    constexpr int VECTORS = B::SPAN / WIDTH;
    float by_row[2][WIDTH * BLOCK_ROWS], by_column[2][WIDTH * B::SPAN];
    for (int k = 0; k <= BACKWARD; k++) {
      const Lines from = (k ? means : gates).at(top, left, channel, s);
      transposed(block.height, block.count, from.rows, s.channels, by_row[k], BLOCK_ROWS);
      transposed(block.width(), block.count, from.columns, s.channels, by_column[k], B::SPAN);
    }
    for (int c = 0; c < block.count; c++) {
      const int64_t at = ((channel + c) * s.height + top) * s.width + left;
      Vec gate[VECTORS], mean[VECTORS];
      block.load_row(by_column[0] + c * B::SPAN, gate);
      if constexpr (BACKWARD) block.load_row(by_column[1] + c * B::SPAN, mean);
      for (int64_t row = 0; row < block.height; row++) {
        const Vec row_gate = splat(by_row[0][c * BLOCK_ROWS + row]);
        Vec v[VECTORS];
        block.load_row(x + at + row * s.width, v);
        repeat<VECTORS>([&](int j) {
          v[j] = v[j] * gate[j] * row_gate;
          if constexpr (BACKWARD) v[j] = v[j] + (mean[j] + by_row[1][c * BLOCK_ROWS + row]);
          T* to = y + at + row * s.width + j * WIDTH;
          if (j + 1 < VECTORS) store(to, v[j], Full{});
          else store(to, v[j], block.last);
        });
      }
    }
  });
}

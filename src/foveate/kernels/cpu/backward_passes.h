// The passes of backward over one sample as a matrix of rows x columns.
// They are steps of channel_spatial_backward.h.

// One side of the matrix, its rows or its columns. Inputs of the sums: the gates and the maxima (peak).
// Outputs: the gradients of the gates, how many entries equal the maximum (ties), and the sum of their places: the
// place of the maximum, where it has no ties.
struct Side {
  const float *gate, *peak;
  float *d_gate, *ties, *places;
};

// The share of the first of two products that are compared: 1 where it is the greater, 1/2 where they are equal.
INLINE Vec first_share(Vec a, Vec b) { return select(a > b, splat(1), select(a < b, Vec{}, splat(0.5f))); }

constexpr int64_t EXACT = 1 << 24;  // places below it are exact as floats

static bool all_ones(const float* values, int64_t n) {
  bool found = true;
  for (int64_t i = 0; i < n; i++) found &= values[i] == 1.f;
  return found;
}

// Ties and the sum of their places in one float, so that counting both costs no more than counting ties. It is exact
// for up to 256 places below 256.
struct Counted {
  static constexpr int SHIFT = 15;

  static float one(int64_t place) { return static_cast<float>((1 << SHIFT) + place); }
  // Calls f with the ties and the sum of the places.
  template <class F>
  static void split(Vec counted, F f) {
    const Mask both = __builtin_convertvector(counted, Mask), ties = both >> SHIFT;
    f(__builtin_convertvector(ties, Vec), __builtin_convertvector(both - (ties << SHIFT), Vec));
  }
};

// With u = dy * x: for each row the sum of u times the gates of the columns, and for each column the sum of u times the
// gates of the rows (with BOTH; else the sums of u). Also counts how often x equals the maximum, or x times the
// channel's gate where the maximum was taken of that product.
// Rows [begin, end), columns [left, right). With Scaling::greater u belongs to the gate whose product with x is the
// greater one. With Scaling::each_value one side has the channels; its sums are those of the gradients of the logits
// times z, and in place of the ties, times z^2, where z = (x - peak) * gate.
template <bool BOTH, bool ROW_SUMS, bool COLUMN_SUMS, bool ROW_TIES, bool COLUMN_TIES, Scaling SCALING, class T>
static void matrix_sums(const T* x, const T* dy, int64_t columns, int64_t begin, int64_t end, int64_t left,
                        int64_t right, const Side& row, const Side& column, bool columns_see_gated,
                        bool rows_see_gated) {
  if constexpr (!ROW_SUMS && !COLUMN_SUMS) return;
  constexpr bool EACH = SCALING == Scaling::each_value;
  float part[TILE], tie[TILE];
  Vec lane_numbers{};
  for (int i = 0; i < WIDTH; i++) lane_numbers[i] = static_cast<float>(i);
  for (int64_t at = left; at < right; at += TILE) {
    const int64_t width = smaller(TILE, right - at);
    if constexpr (COLUMN_SUMS) fill(column.d_gate + at, width);
    if constexpr (COLUMN_TIES) fill(column.ties + at, width);
    if constexpr (COLUMN_TIES && !EACH) fill(column.places + at, width);
    for (int64_t from = begin; from < end; from += CHAIN) {
      if constexpr (COLUMN_SUMS) fill(part, width);
      if constexpr (COLUMN_TIES) fill(tie, width);
      by_vectors(from, smaller(from + CHAIN, end), [&](int64_t base, int count) {
        Vec sums[WIDTH], ties[WIDTH], places[WIDTH];
        clear_rest(sums, count);
        clear_rest(ties, count);
        clear_rest(places, count);
        by_fours(count, [&](int first, auto height) {
          constexpr int HEIGHT = decltype(height)::value;
          Vec total[HEIGHT] = {}, equal[HEIGHT] = {}, gate[HEIGHT], peak[HEIGHT];
          Vec here = splat(Counted::one(0));
          for (int i = 0; i < HEIGHT; i++) {
            gate[i] = splat(BOTH || (EACH && ROW_SUMS) ? row.gate[base + first + i] : 1.f);
            peak[i] = splat(ROW_TIES ? row.peak[base + first + i] : 0.f);
          }
          const int64_t start = (base + first) * columns + at;
          each(width, [&](int64_t j, auto lanes) {
            Vec other{}, to_part{}, to_tie{}, top{};
            if constexpr (BOTH || (EACH && COLUMN_SUMS)) other = load(column.gate + at + j, lanes);
            if constexpr (COLUMN_SUMS) to_part = load(part + j, lanes);
            if constexpr (COLUMN_TIES) to_tie = load(tie + j, lanes), top = load(column.peak + at + j, lanes);
            for (int i = 0; i < HEIGHT; i++) {
              const Vec v = load(x + start + i * columns + j, lanes), u = v * load(dy + start + i * columns + j, lanes);
              if constexpr (EACH) {
                const Vec z = ROW_SUMS ? (v - peak[i]) * gate[i] : (v - top) * other, sigma = own_gate(z);
                const Vec first = u * sigma * (1.f - sigma) * z;
                if constexpr (ROW_SUMS) total[i] = total[i] + first, equal[i] = fma(first, z, equal[i]);
                else to_part = to_part + first, to_tie = fma(first, z, to_tie);
                continue;
              }
              Vec by_row = other, by_column = gate[i];  // what multiplies u for each side
              if constexpr (SCALING == Scaling::greater)
                by_row = first_share(v * gate[i], v * other), by_column = 1.f - by_row;
              if constexpr (ROW_SUMS) total[i] = BOTH ? fma(u, by_row, total[i]) : total[i] + u;
              if constexpr (COLUMN_SUMS) to_part = BOTH ? fma(u, by_column, to_part) : to_part + u;
              if constexpr (ROW_TIES)
                equal[i] =
                    equal[i] + fill(select((BOTH && rows_see_gated ? v * other : v) == peak[i], here, Vec{}), 0, lanes);
              if constexpr (COLUMN_TIES)
                to_tie = to_tie + select((BOTH && columns_see_gated ? v * gate[i] : v) == top,
                                         splat(Counted::one(base + first + i - from)), Vec{});
            }
            here = here + 1.f;
            if constexpr (COLUMN_SUMS) store(part + j, to_part, lanes);
            if constexpr (COLUMN_TIES) store(tie + j, to_tie, lanes);
          });
          for (int i = 0; i < HEIGHT; i++) {
            sums[first + i] = total[i], ties[first + i] = equal[i];
            if constexpr (ROW_TIES && !EACH)
              Counted::split(equal[i], [&](Vec tied, Vec steps) {
                ties[first + i] = tied;
                places[first + i] = fma(tied, lane_numbers + static_cast<float>(at), steps * static_cast<float>(WIDTH));
              });
          }
        });
        const auto put = [&](float* to, Vec* vectors) {
          const Vec found = transposed_reduce(vectors, Add{});
          store(to + base, at == left ? found : found + load(to + base, Part{count}), Part{count});
        };
        if constexpr (ROW_SUMS) put(row.d_gate, sums);
        if constexpr (ROW_TIES) put(row.ties, ties);
        if constexpr (ROW_TIES && !EACH) put(row.places, places);
      });
      if constexpr (COLUMN_SUMS) accumulate(column.d_gate + at, part, width);
      if constexpr (COLUMN_TIES && EACH) accumulate(column.ties + at, tie, width);
      else if constexpr (COLUMN_TIES)
        each(width, [&](int64_t j, auto lanes) {
          Counted::split(load(tie + j, lanes), [&](Vec tied, Vec steps) {
            float *ties = column.ties + at + j, *places = column.places + at + j;
            store(ties, load(ties, lanes) + tied, lanes);
            store(places, load(places, lanes) + fma(tied, splat(static_cast<float>(from)), steps), lanes);
          });
        });
    }
  }
}

// Adds to each of the rows [begin, end) (channels) the sum over columns (positions) of x * d, where d is d_mean, plus
// d_peak where x * gate is the maximum.
template <class T>
static void row_dots(const T* x, int64_t columns, int64_t begin, int64_t end, const float* gate, const float* peak,
                     const float* d_peak, const float* d_mean, float* sums) {
  for (int64_t at = 0; at < columns; at += TILE)
    by_vectors(begin, end, [&](int64_t base, int count) {
      Vec found[WIDTH];
      clear_rest(found, count);
      by_fours(count, [&](int first, auto height) {
        constexpr int HEIGHT = decltype(height)::value;
        Vec total[HEIGHT] = {}, g[HEIGHT];
        for (int i = 0; i < HEIGHT; i++) g[i] = splat(gate[base + first + i]);
        each(smaller(TILE, columns - at), [&](int64_t j, auto lanes) {
          const Vec top = load(peak + at + j, lanes), by_top = load(d_peak + at + j, lanes),
                    by_mean = load(d_mean + at + j, lanes);
          for (int i = 0; i < HEIGHT; i++) {
            const Vec v = load(x + (base + first + i) * columns + at + j, lanes);
            total[i] = fma(v, by_mean + select(v * g[i] == top, by_top, Vec{}), total[i]);
          }
        });
        for (int i = 0; i < HEIGHT; i++) found[first + i] = total[i];
      });
      store(sums + base, transposed_reduce(found, Add{}) + load(sums + base, Part{count}), Part{count});
    });
}

// The same as row_dots with the channels along the columns [begin, end).
template <class T>
static void column_dots(const T* x, int64_t columns, int64_t rows, int64_t begin, int64_t end, const float* gate,
                        const float* peak, const float* d_peak, const float* d_mean, float* sums) {
  float part[TILE];
  for (int64_t at = begin; at < end; at += TILE) {
    const int64_t width = smaller(TILE, end - at);
    for (int64_t from = 0; from < rows; from += CHAIN) {
      fill(part, width);
      by_fours(smaller(CHAIN, rows - from), [&](int64_t first, auto height) {
        constexpr int HEIGHT = decltype(height)::value;
        const int64_t r = from + first;
        each(width, [&](int64_t j, auto lanes) {
          const Vec g = load(gate + at + j, lanes);
          Vec total = load(part + j, lanes);
          for (int i = 0; i < HEIGHT; i++) {
            const Vec v = load(x + (r + i) * columns + at + j, lanes);
            total = fma(v, d_mean[r + i] + select(v * g == splat(peak[r + i]), splat(d_peak[r + i]), Vec{}), total);
          }
          store(part + j, total, lanes);
        });
      });
      accumulate(sums + at, part, width);
    }
  }
}

// The inputs of one side for dx: its gate, the gradient through its mean (null where it has no mean), its maximum (null
// where it has none), the gradient through the maximum, and its place (null where a maximum has ties). Where squared
// distances from a centre (null for 0) were added (else null), also the slope of the gradient through them. `factor` is
// what x was multiplied with before the other side read it.
struct Entry {
  const float *gate, *mean, *peak, *d_peak, *places = nullptr, *slope = nullptr, *centre = nullptr, *factor = nullptr;
};

enum class Besides { nothing, peak, place, slope };  // what else than its mean was taken of a side

// dx = dy * gates + the gradients through means and maxima. Where a side reads x times the other side's factor, its
// gradients are multiplied by that factor. Maxima with known places need no x. With Scaling::greater dy belongs to the
// gate whose product with x is the greater one. With Scaling::each_value the gates follow from z = (x - centre) * gate.
template <bool ROW, bool COLUMN, bool COLUMN_SEES_SCALED, bool ROW_SEES_SCALED, Scaling SCALING, class T>
static void spread_rows(const T* x, const T* dy, T* dx, int64_t columns, int64_t begin, int64_t end, const Entry& row,
                        const Entry& column) {
  Mask lane_numbers{};
  for (int i = 0; i < WIDTH; i++) lane_numbers[i] = i;
  const auto go = [&](auto of_row, auto of_column) {
    constexpr bool ROW_PEAK = decltype(of_row)::value == Besides::peak,
                   COLUMN_PEAK = decltype(of_column)::value == Besides::peak,
                   ROW_PLACE = decltype(of_row)::value == Besides::place,
                   COLUMN_PLACE = decltype(of_column)::value == Besides::place,
                   ROW_SLOPE = decltype(of_row)::value == Besides::slope,
                   COLUMN_SLOPE = decltype(of_column)::value == Besides::slope;
    const int64_t tile = COLUMN ? TILE : columns;
    for (int64_t left = 0; left < columns; left += tile)
      for (int64_t r = begin; r < end; r++) {
        const Vec gate = splat(ROW ? row.gate[r] : 1.f), mean = splat(ROW && row.mean ? row.mean[r] : 0.f);
        const Vec peak = splat(ROW_PEAK ? row.peak[r] : 0.f),
                  d_peak = splat(ROW_PEAK || ROW_PLACE ? row.d_peak[r] : 0.f);
        const Mask place = Mask{} + static_cast<int32_t>(ROW_PLACE ? row.places[r] - static_cast<float>(left) : 0.f);
        Mask here = lane_numbers;
        const Vec slope = splat(ROW_SLOPE ? row.slope[r] : 0.f), centre = splat(row.centre ? row.centre[r] : 0.f);
        const Vec factor = splat(COLUMN_SEES_SCALED ? row.factor[r] : 1.f);
        const int64_t start = r * columns + left;
        each(smaller(tile, columns - left), [&](int64_t j, auto lanes) {
          Vec v{}, d = load(dy + start + j, lanes), other{}, by_row = mean, by_column{}, other_factor{};
          if constexpr (ROW_SEES_SCALED) other_factor = load(column.factor + left + j, lanes);
          if constexpr (COLUMN) {
            other = load(column.gate + left + j, lanes);
            if (column.mean) by_column = load(column.mean + left + j, lanes);
          }
          if constexpr (ROW_PEAK || COLUMN_PEAK || ROW_SLOPE || COLUMN_SLOPE || SCALING == Scaling::greater)
            v = load(x + start + j, lanes);
          if constexpr (ROW_PEAK)
            by_row = by_row + select((ROW_SEES_SCALED ? v * other_factor : v) == peak, d_peak, Vec{});
          if constexpr (COLUMN_PEAK) {
            const Vec top = load(column.peak + left + j, lanes), d_top = load(column.d_peak + left + j, lanes);
            by_column = by_column + select((COLUMN_SEES_SCALED ? v * factor : v) == top, d_top, Vec{});
          }
          if constexpr (ROW_PLACE) by_row = by_row + select(here == place, d_peak, Vec{}), here = here + WIDTH;
          if constexpr (COLUMN_PLACE) {
            const Vec places = load(column.places + left + j, lanes), d_top = load(column.d_peak + left + j, lanes);
            by_column = by_column + select(places == splat(static_cast<float>(r)), d_top, Vec{});
          }
          const Vec away = COLUMN_SLOPE && column.centre ? v - load(column.centre + left + j, lanes) : v - centre;
          if constexpr (ROW_SLOPE) by_row = fma(away, slope, by_row);
          if constexpr (COLUMN_SLOPE) by_column = fma(away, load(column.slope + left + j, lanes), by_column);
          if constexpr (SCALING == Scaling::each_value) {
            const Vec by = ROW ? gate : other, z = away * by, sigma = own_gate(z);
            d = d * sigma * fma(2.f * by * z, v * (1.f - sigma), splat(1));
          } else if constexpr (SCALING == Scaling::greater) {
            const Vec share = first_share(v * gate, v * other);
            d = d * (share * gate + (1.f - share) * other);
          } else {
            if constexpr (ROW) d = d * gate;
            if constexpr (COLUMN) d = d * other;
          }
          if constexpr (ROW) d = d + (ROW_SEES_SCALED ? by_row * other_factor : by_row);
          if constexpr (COLUMN) d = d + (COLUMN_SEES_SCALED ? by_column * factor : by_column);
          store(dx + start + j, d, lanes);
        });
      }
  };
  constexpr std::integral_constant<Besides, Besides::nothing> no{};
  constexpr std::integral_constant<Besides, Besides::peak> peak{};
  constexpr std::integral_constant<Besides, Besides::place> place{};
  constexpr std::integral_constant<Besides, Besides::slope> slope{};
  if (ROW && !COLUMN && row.slope) go(slope, no);
  else if (COLUMN && !ROW && column.slope) go(no, slope);
  else if (ROW && row.places) (COLUMN && column.places) ? go(place, place) : go(place, no);
  else if (COLUMN && column.places) go(no, place);
  else if (ROW && row.peak) (COLUMN && column.peak) ? go(peak, peak) : go(peak, no);
  else (COLUMN && column.peak) ? go(no, peak) : go(no, no);
}

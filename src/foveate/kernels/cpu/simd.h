// Vectors of WIDTH floats, the width of the instruction set.
// Included once for each instruction set, inside its namespace.

constexpr int WIDTH = FOVEATE_WIDTH;
typedef float Vec __attribute__((vector_size(4 * WIDTH)));
typedef int32_t Mask __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Bits __attribute__((vector_size(4 * WIDTH)));
typedef uint16_t Halves __attribute__((vector_size(2 * WIDTH)));

struct bfloat16 {
  uint16_t bits;
};

// How much of a vector is in memory: all of it, or the first n; the other lanes are then zero.
struct Full {
  static constexpr int n = WIDTH;
};
struct Part {
  int n;
};

#define INLINE static inline __attribute__((always_inline))

INLINE Vec splat(float value) { return Vec{} + value; }
INLINE Vec select(Mask mask, Vec yes, Vec no) { return mask ? yes : no; }
INLINE Bits bits_of(Vec v) { return reinterpret_cast<Bits>(v); }

INLINE Vec load(const float* p, Full) {
  Vec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(float* p, Vec v, Full) { __builtin_memcpy(p, &v, sizeof v); }

INLINE Vec widen(Halves h) { return reinterpret_cast<Vec>(__builtin_convertvector(h, Bits) << 16); }

// Rounds to the nearest value, ties to even; a NaN stays a NaN.
INLINE Halves narrow_bits(Vec v) {
  const Bits bits = bits_of(v);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits kept = v == v ? rounded : (bits >> 16) | 0x40;
  return __builtin_convertvector(kept, Halves);
}

#ifdef FOVEATE_BF16
// Not inlined, because it would take registers from the loops.
__attribute__((noinline, cold)) static Halves narrow_subnormal(Vec v) { return narrow_bits(v); }

// The same by the instruction for it, which would turn subnormal numbers into zeros.
INLINE Halves narrow(Vec v) {
  constexpr int SUBNORMAL = 0x20;
  const __m512 floats = reinterpret_cast<__m512>(v);
  if (__builtin_expect(_mm512_fpclass_ps_mask(floats, SUBNORMAL), 0)) return narrow_subnormal(v);
  return reinterpret_cast<Halves>(_mm512_cvtneps_pbh(floats));
}
#else
INLINE Halves narrow(Vec v) { return narrow_bits(v); }
#endif

INLINE Vec load(const bfloat16* p, Full) {
  Halves h;
  __builtin_memcpy(&h, p, sizeof h);
  return widen(h);
}
INLINE void store(bfloat16* p, Vec v, Full) {
  const Halves h = narrow(v);
  __builtin_memcpy(p, &h, sizeof h);
}

#if FOVEATE_WIDTH == 16

INLINE __mmask16 first(Part part) { return static_cast<__mmask16>((1u << part.n) - 1); }
INLINE Vec load(const float* p, Part part) { return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(first(part), p)); }
INLINE void store(float* p, Vec v, Part part) { _mm512_mask_storeu_ps(p, first(part), reinterpret_cast<__m512>(v)); }
INLINE Vec load(const bfloat16* p, Part part) {
  return widen(reinterpret_cast<Halves>(_mm256_maskz_loadu_epi16(first(part), p)));
}
INLINE void store(bfloat16* p, Vec v, Part part) {
  _mm256_mask_storeu_epi16(p, first(part), reinterpret_cast<__m256i>(narrow(v)));
}
INLINE Vec fma(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
}
INLINE Vec larger(Vec a, Vec b) {  // with a mask of ones, because GCC 12 warns about _mm512_max_ps in its own header
  return reinterpret_cast<Vec>(_mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}

#else

// Copies the first n values, at most WIDTH, in pieces of constant sizes.
template <class T>
INLINE void copy_first(T* to, const T* from, int n) {
  if (n == WIDTH) {
    __builtin_memcpy(to, from, WIDTH * sizeof(T));
    return;
  }
  const int fours = n & 4, twos = n & 6;
  if (n & 4) __builtin_memcpy(to, from, 4 * sizeof(T));
  if (n & 2) __builtin_memcpy(to + fours, from + fours, 2 * sizeof(T));
  if (n & 1) __builtin_memcpy(to + twos, from + twos, sizeof(T));
}
template <class T>
INLINE Vec load(const T* p, Part part) {
  T whole[WIDTH] = {};
  copy_first(whole, p, part.n);
  return load(whole, Full{});
}
template <class T>
INLINE void store(T* p, Vec v, Part part) {
  T whole[WIDTH];
  store(whole, v, Full{});
  copy_first(p, whole, part.n);
}

#if FOVEATE_WIDTH == 8
INLINE __m256i first(Part part) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(part.n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE Vec load(const float* p, Part part) { return reinterpret_cast<Vec>(_mm256_maskload_ps(p, first(part))); }
INLINE void store(float* p, Vec v, Part part) { _mm256_maskstore_ps(p, first(part), reinterpret_cast<__m256>(v)); }
INLINE Vec fma(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
}
#elif defined(FOVEATE_NEON)
INLINE Vec fma(Vec a, Vec b, Vec c) {
  return reinterpret_cast<Vec>(
      vfmaq_f32(reinterpret_cast<float32x4_t>(c), reinterpret_cast<float32x4_t>(a), reinterpret_cast<float32x4_t>(b)));
}
#else
INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
#endif
// The result for a NaN does not matter: where the sum is NaN, the maximum is computed again.
INLINE Vec larger(Vec a, Vec b) { return select(a > b, a, b); }

#endif

// The lanes beyond a partial vector hold zero. Where zero is not neutral, as in a maximum, this fills them with
// `value`.
INLINE Vec fill(Vec v, float, Full) { return v; }
INLINE Vec fill(Vec v, float value, Part part) {
  Mask lane{};
  for (int i = 0; i < WIDTH; i++) lane[i] = i;
  return select(lane < part.n, v, splat(value));
}

// Calls f(i, Full) for each whole vector of 0..n and f(i, Part) for the rest.
template <class F>
INLINE void each(int64_t n, F f) {
  int64_t i = 0;
  for (; i + WIDTH <= n; i += WIDTH) f(i, Full{});
  if (i < n) f(i, Part{static_cast<int>(n - i)});
}

struct Add {
  inline __attribute__((always_inline)) Vec operator()(Vec a, Vec b) const { return a + b; }
};
struct Larger {
  inline __attribute__((always_inline)) Vec operator()(Vec a, Vec b) const { return larger(a, b); }
};

// Folds lanes whose numbers differ in BIT: lanes without the bit come from a, lanes with it from b.
template <int BIT, class Op, int... LANE>
INLINE Vec fold(Vec a, Vec b, Op op, std::integer_sequence<int, LANE...>) {
  return op(__builtin_shufflevector(a, b, ((LANE & BIT) ? WIDTH + LANE : LANE)...),
            __builtin_shufflevector(a, b, ((LANE & BIT) ? WIDTH + (LANE ^ BIT) : (LANE ^ BIT))...));
}
using Lanes = std::make_integer_sequence<int, WIDTH>;

// Reduces WIDTH vectors at once: lane i of the result is the sum, or maximum, over the lanes of v[i]. Overwrites the
// vectors.
template <class Op>
INLINE Vec transposed_reduce(Vec* v, Op op) {
  for (int i = 0; i < WIDTH; i += 2) v[i] = fold<1>(v[i], v[i + 1], op, Lanes{});
  for (int i = 0; i < WIDTH; i += 4) v[i] = fold<2>(v[i], v[i + 2], op, Lanes{});
  if constexpr (WIDTH > 4)
    for (int i = 0; i < WIDTH; i += 8) v[i] = fold<4>(v[i], v[i + 4], op, Lanes{});
  if constexpr (WIDTH > 8) v[0] = fold<8>(v[0], v[8], op, Lanes{});
  return v[0];
}

template <class Op>
INLINE float reduce(Vec v, Op op) {
  v = fold<1>(v, v, op, Lanes{});
  v = fold<2>(v, v, op, Lanes{});
  if constexpr (WIDTH > 4) v = fold<4>(v, v, op, Lanes{});
  if constexpr (WIDTH > 8) v = fold<8>(v, v, op, Lanes{});
  return v[0];
}
INLINE float sum(Vec v) { return reduce(v, Add{}); }

// e^x to about 1 ulp: x = n ln 2 + r, a polynomial in r, times 2^n. Infinite above 88.7; NaN for NaN.
INLINE Vec exp_of_rest(Vec r) {
  Vec p = splat(1.f / 5040);
  p = fma(p, r, splat(1.f / 720));
  p = fma(p, r, splat(1.f / 120));
  p = fma(p, r, splat(1.f / 24));
  p = fma(p, r, splat(1.f / 6));
  p = fma(p, r, splat(0.5f));
  return fma(p, r * r, r) + 1.f;
}
INLINE Vec rest(Vec x, Vec n) { return fma(n, splat(-1.42860682030941723e-6f), fma(n, splat(-0.693145751953125f), x)); }

#if FOVEATE_WIDTH == 16
INLINE Vec exp(Vec x) {
  // min and max return their second operand for a NaN, so x as the second operand keeps its NaN.
  const __m512 low = _mm512_maskz_max_ps(0xffff, _mm512_set1_ps(-104.f), reinterpret_cast<__m512>(x));
  const Vec clipped = reinterpret_cast<Vec>(_mm512_maskz_min_ps(0xffff, _mm512_set1_ps(104.f), low));
  const Vec n = reinterpret_cast<Vec>(
      _mm512_maskz_roundscale_ps(0xffff, reinterpret_cast<__m512>(clipped * 1.44269504088896341f), 0));
  return reinterpret_cast<Vec>(_mm512_maskz_scalef_ps(0xffff, reinterpret_cast<__m512>(exp_of_rest(rest(clipped, n))),
                                                      reinterpret_cast<__m512>(n)));
}
#else
INLINE Vec exp(Vec x) {
  const Vec clipped = select(x > -90.f, select(x < 90.f, x, splat(90.f)), splat(-90.f));
  const Vec magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec n = fma(clipped, splat(1.44269504088896341f), magic) - magic;
  const Mask half = __builtin_convertvector(n, Mask) >> 1;  // in two steps, because 2^n may overflow
  const Mask other = __builtin_convertvector(n, Mask) - half;
  const Vec scaled = exp_of_rest(rest(clipped, n)) * reinterpret_cast<Vec>((half + 127) << 23) *
                     reinterpret_cast<Vec>((other + 127) << 23);
  return select(x == x, scaled, x);
}
#endif

// The same as torch's: exactly 0 below -88.7, NaN for NaN.
INLINE Vec sigmoid(Vec x) { return 1.f / (1.f + exp(-x)); }

INLINE float sigmoid(float x) { return sigmoid(splat(x))[0]; }

INLINE Vec root(Vec x) {
  for (int i = 0; i < WIDTH; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
}

// relu6(x + 3) / 6, NaN for NaN.
INLINE Vec hard_sigmoid(Vec x) {
  const Vec v = x + 3.f;
  return select(v < 0.f, Vec{}, select(v > 6.f, splat(6), v)) / 6.f;
}

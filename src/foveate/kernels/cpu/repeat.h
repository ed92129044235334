// Unrolled loops.

#define ALWAYS __attribute__((always_inline))

// Calls f(0), f(1) ... f(N - 1) without a loop, so that arrays with these indices stay in registers.
template <int... I, class F>
INLINE void repeat(std::integer_sequence<int, I...>, F f) {
  (f(std::integral_constant<int, I>{}), ...);
}
template <int N, class F>
INLINE void repeat(F f) {
  repeat(std::make_integer_sequence<int, N>{}, f);
}

// How threads share the work: over samples, or over parts of each phase where there are fewer samples than threads.

// The work of one call of a phase: samples [first, last), and of each sample the units [begin, end) of the phase. With
// `whole`, this thread does all phases of its samples, so a phase may also do the work of the next.
struct Share {
  int64_t first, last, begin, end;
  bool whole;
};

// A phase has `units` that may run in parallel, each of about `weight` floats of work per sample.
template <class F>
struct Phase {
  int64_t units, weight;
  F body;

  void operator()(Share part) const {
    if (units > 0) body(part);
  }
};
template <class F>
Phase(int64_t, int64_t, F) -> Phase<F>;

constexpr int64_t WORTH_A_THREAD = 16384;  // floats; a smaller part takes less time than waking a thread

template <class F>
static void share(const Threads& threads, int64_t count, int64_t grain, F f) {
  if (count <= grain || threads.count == 1) {
    if (count > 0) f(int64_t{0}, count);
    return;
  }
  threads.run(
      count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<F*>(context))(begin, end); }, &f);
}

// Runs the phases in order on every sample. `sample` is the size of a sample in floats, `block` the number of samples
// that go through the phases together.
template <class... F>
static void run(const Threads& threads, int64_t samples, int64_t sample, int64_t block, Phase<F>... phases) {
  const int64_t alone = samples / threads.count * threads.count;
  share(threads, alone, WORTH_A_THREAD / sample + 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += block) {
      const int64_t last = smaller(first + block, end);
      (phases(Share{first, last, 0, phases.units, true}), ...);
    }
  });
  if (alone == samples) return;
  const auto together = [&](auto& phase) {
    share(threads, phase.units, WORTH_A_THREAD / ((phase.weight + 1) * (samples - alone)) + 1,
          [&](int64_t begin, int64_t end) { phase(Share{alone, samples, begin, end, false}); });
  };
  (together(phases), ...);
}

// Allocates arrays one after another in given memory; without memory it only counts the floats.
struct Arena {
  float* base;
  int64_t used = 0;

  float* take(int64_t count) {
    float* at = base ? base + used : nullptr;
    used += (count + 15) / 16 * 16;  // each array starts on a new cache line
    return at;
  }
};

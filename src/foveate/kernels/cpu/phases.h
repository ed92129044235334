// How work is shared out: phases over samples and, where samples are fewer than threads, over parts of each phase.

// What one call of a phase does: samples [first, last), and of each the units [begin, end) of the phase. `whole`: this thread does all phases of
// its samples, so a phase may do the next one's work on the way.
struct Share {
  int64_t first, last, begin, end;
  bool whole;
};

// A phase has `units` that may run at once, each of about `weight` floats of work per sample.
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

constexpr int64_t WORTH_A_THREAD = 16384;  // floats; less is done sooner than another thread wakes

template <class F>
static void share(const Threads& threads, int64_t count, int64_t grain, F f) {
  if (count <= grain || threads.count == 1) {
    if (count > 0) f(int64_t{0}, count);
    return;
  }
  threads.run(count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<F*>(context))(begin, end); }, &f);
}

// Runs the phases in order on every sample. `sample` is the size of one in floats, `block` how many go through the phases together.
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

// Lays arrays out one after another; with no memory behind it, only counts.
struct Arena {
  float* base;
  int64_t used = 0;

  float* take(int64_t count) {
    float* at = base ? base + used : nullptr;
    used += (count + 15) / 16 * 16;  // each array on a cache line of its own
    return at;
  }
};

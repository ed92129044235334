// The registration of the library with torch: the choice of the instruction set, and torch's threads.
// The operations are in ops_*.cpp.
#include <cstdlib>
#include <cstring>
#include <string>

#include "torch_tensors.h"

namespace foveate {

namespace {

const Kernels& choose() {
  const char* wish = std::getenv("FOVEATE_CPU_ISA");
  const auto allowed = [&](const Kernels& kernels) { return !wish || !*wish || std::strcmp(wish, kernels.name) == 0; };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16") && allowed(avx512_bf16_kernels)) return avx512_bf16_kernels;
  if (avx512 && allowed(avx512_kernels)) return avx512_kernels;
  if (avx2 && allowed(avx2_kernels)) return avx2_kernels;
#elif defined(__aarch64__)
  if (allowed(neon_kernels)) return neon_kernels;
#endif
  return baseline_kernels;
}

std::string info() { return kernels().name; }

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

Threads threads() {
  return {static_cast<int>(torch::stable::get_num_threads()),
          [](int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
            torch::stable::parallel_for(0, count, grain,
                                        [&](int64_t begin, int64_t end) { body(context, begin, end); });
          }};
}

}  // namespace foveate

STABLE_TORCH_LIBRARY(foveate, m) { m.def("info() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(foveate, CompositeExplicitAutograd, m) { m.impl("info", TORCH_BOX(&foveate::info)); }

// foveate::prepared_, which runs an operation with the arguments that were kept for it.
#include "prepared.h"

#include <memory>
#include <mutex>
#include <unordered_map>

namespace foveate {
namespace {

struct Kept {
  int64_t channels;
  Run run;
};

// Never destroyed, because a thread may still run when the process ends.
struct Registry {
  std::mutex mutex;
  std::unordered_map<int64_t, std::shared_ptr<const Kept>> kept;
  int64_t last = 0;

  static Registry& only() {
    static Registry& one = *new Registry;
    return one;
  }
};

bool prepared_(Tensor x, int64_t number, Maybe shortcut, int64_t activation, double slope, int64_t before,
               double before_slope) {
  std::shared_ptr<const Kept> kept;
  {
    Registry& registry = Registry::only();
    const std::lock_guard<std::mutex> lock(registry.mutex);
    const auto found = registry.kept.find(number);
    STD_TORCH_CHECK(found != registry.kept.end(), "Expected: the number of a prepared operation. Received: ", number,
                    ".");
    kept = found->second;
  }
  const auto type = x.scalar_type();
  if (x.dim() != 4 || !x.is_cpu() || x.size(1) != kept->channels || x.numel() == 0) return false;
  if (type != ScalarType::Float && type != ScalarType::BFloat16) return false;
  if (shortcut && !(shortcut->is_cpu() && same_shape(*shortcut, x))) return false;
  return kept->run(x, {before, before_slope, std::move(shortcut), activation, slope});
}

void release(int64_t number) {
  std::shared_ptr<const Kept> kept;  // destroyed after the lock
  Registry& registry = Registry::only();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  const auto found = registry.kept.find(number);
  if (found == registry.kept.end()) return;
  kept = std::move(found->second);
  registry.kept.erase(found);
}

}  // namespace

int64_t keep(int64_t channels, Run run) {
  auto kept = std::make_shared<const Kept>(Kept{channels, std::move(run)});
  Registry& registry = Registry::only();
  const std::lock_guard<std::mutex> lock(registry.mutex);
  registry.kept.emplace(++registry.last, std::move(kept));
  return registry.last;
}

}  // namespace foveate

STABLE_TORCH_LIBRARY_FRAGMENT(foveate, m) {
  m.def(
      "prepared_(Tensor(a!) x, int number, Tensor? shortcut=None, int activation=0, float slope=0., int before=0, "
      "float before_slope=0.) -> bool");
  m.def("release(int number) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(foveate, CPU, m) { m.impl("prepared_", TORCH_BOX(&foveate::prepared_)); }

STABLE_TORCH_LIBRARY_IMPL(foveate, CompositeExplicitAutograd, m) { m.impl("release", TORCH_BOX(&foveate::release)); }

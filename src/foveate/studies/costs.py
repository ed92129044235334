"""The cost of each arm: counted (parameters, MACs, element-wise operations, bytes, memory) and measured (latency)."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate import kernels
from foveate.experiment.latency import compare_timings, time_rounds
from foveate.torch_utils.cost_counter import CostCounter

BATCH = 8


def measure_costs(
    models: Mapping[str, nn.Module],
    shape: tuple[int, int, int],
    *,
    seconds: float = 12.0,
    threads: int | None = None,
    batch: int = BATCH,
    device: str = "cpu",
) -> dict[str, dict[str, Any]]:
    """Return each model's cost in eval mode; the others are compared with the first.

    Counts are for one image (C, H, W). Latency is for a batch, all models in interleaved rounds within about `seconds`;
    `peak_memory` (bytes) is the most that weights, images and feature maps of that batch take at once.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        images = torch.zeros(batch, *shape)
        counts = {name: _count(model.eval(), images) for name, model in models.items()}
        with torch.inference_mode():
            calls = {name: _caller(model.to(device), images.to(device)) for name, model in models.items()}
            timings = time_rounds(calls, seconds=seconds)
    finally:
        torch.set_num_threads(before)
    first = next(iter(models))
    for name, cost in counts.items():
        cost["added_parameters"] = cost["parameters"] - counts[first]["parameters"]
        cost["latency"] = {
            "ms": 1000 * float(sorted(timings[name])[len(timings[name]) // 2]),
            **compare_timings(timings[first], timings[name]).to_dict(),
            "batch": batch,
            "rounds": len(timings[name]),
            "threads": threads or before,
        }
    return counts


class Footprint(TorchDispatchMode):
    """Counts the bytes of live tensors while operations run; `peak` is their maximum, with the tensors in `keep`."""

    def __init__(self, *keep: Tensor):
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()
        for tensor in keep:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the tensors that it made."""
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return output

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@torch.no_grad()  # inference mode would hide convolutions from the counter
def _count(model: nn.Module, images: Tensor) -> dict[str, Any]:
    with CostCounter() as counter, kernels.using("reference"):  # a kernel would hide the operations that it fuses
        model(images[:1])
    cost = counter.cost(model)
    with Footprint(images, *model.parameters(), *model.buffers()) as footprint:
        model(images)
    return {**vars(cost), "peak_memory": footprint.peak}


def _caller(model: nn.Module, images: Tensor) -> Callable[[], object]:
    def call() -> None:
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()

    return call

"""How each mechanism's time grows with the batch and with the pixels of the map."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

import foveate
from benchmarks.calls import Call, call, feature_map, prepare, rewrite
from benchmarks.harness import make_record, measure_calls
from benchmarks.kernels import BASELINE, SHORTEST
from benchmarks.options import Options, Shape
from foveate.experiment.environment import load_average

BATCHES = tuple((2**power, 256, 28, 28) for power in range(7))
PIXELS = tuple((8, 64, side, side) for side in (14, 28, 56, 112, 224))


def measure(options: Options, *, series: dict[str, tuple[Shape, ...]] | None = None) -> Iterator[dict[str, Any]]:
    """Yield one record: float32 times of `x.clone()` and every mechanism by series, measure, layout and shape."""
    before = load_average()
    results = [
        {
            "series": name,
            "measure": kind,
            "layout": layout,
            "shape": list(shape),
            "calls": _cell(shape, layout, kind, options),
        }
        for name, shapes in (series or {"batch": BATCHES, "pixels": PIXELS}).items()
        for kind in options.measures
        for layout in options.layouts
        for shape in shapes
    ]
    yield make_record("growth", options.rounds, before, results)


def _cell(shape: Shape, layout: str, measure: str, options: Options) -> dict[str, dict[str, float]]:
    print(f"growth {measure} {shape} {layout}", flush=True)
    torch.manual_seed(0)
    with torch.inference_mode() if measure == "forward" else nullcontext():
        x = feature_map(shape, layout).requires_grad_(measure == "training")
        calls: dict[str, Call] = {BASELINE: x.detach().clone}
        for name in options.mechanisms:
            calls[name] = call(prepare(foveate.attention(name, x.shape[1]), x, layout, measure), x, measure)
        return measure_calls(calls, BASELINE, options.rounds, shortest=SHORTEST, before=rewrite(x))

"""Time every mechanism on a feature map, forward and training step, in units of `x.clone()` from the same rounds."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch

from benchmarks import gpu
from benchmarks.calls import Call, add_compiled, call, feature_map, prepare, read, rewrite, variants
from benchmarks.harness import make_record, measure_calls
from benchmarks.options import Options, Shape
from benchmarks.targets import ONCE, PASSES, target
from foveate.experiment.environment import load_average
from foveate.kernels import why_not

BASELINE = "clone"
SHORTEST = 3e-5  # seconds


def measure(options: Options) -> Iterator[dict[str, Any]]:
    """Yield one record for each dtype and measure, with a result for each shape, layout and mechanism.

    Exits with a message where it is to run on a GPU and there is none.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(gpu.NO_GPU)
    for dtype in options.dtypes:
        for kind in options.measures:
            before = load_average()
            results = [
                _cell(shape, layout, dtype, mechanism, kind, options)
                for shape in options.shapes
                for layout in options.layouts
                for mechanism in options.mechanisms
            ]
            on_gpu = "_cuda" if options.device == "cuda" else ""
            yield make_record(f"kernels_{dtype}_{kind}{on_gpu}", options.rounds, before, results)


def _cell(shape: Shape, layout: str, dtype: str, mechanism: str, measure: str, options: Options) -> dict[str, Any]:
    torch._dynamo.reset()  # modules compiled for other cells would slow the guards of this one
    with torch.inference_mode() if measure == "forward" else nullcontext():
        x = feature_map(shape, layout, dtype, options.device).requires_grad_(measure == "training")
        calls, failed = _calls(x, layout, mechanism, measure, options.compile)
        timings = measure_calls(
            calls, BASELINE, options.rounds, shortest=SHORTEST, before=rewrite(x), device=options.device
        )
    shown = "  ".join(f"{name} {timing['ratio']:.2f}" for name, timing in timings.items() if name != BASELINE)
    print(f"{dtype} {measure} {shape} {layout} {mechanism}: {shown}", flush=True)
    on_gpu, goal = options.device == "cuda", gpu.goals(shape, x.element_size(), mechanism, measure)
    return {
        "shape": list(shape),
        "layout": layout,
        "mechanism": mechanism,
        "bytes": x.numel() * x.element_size(),
        "passes": PASSES[measure][mechanism]._asdict(),
        "once": ONCE[measure]._asdict(),
        "target": goal if on_gpu else target(shape, dtype, mechanism, measure),
        **({"met": gpu.met(goal, timings)} if on_gpu else {}),
        "calls": timings,
        "failed": failed,
    }


def _calls(
    x: torch.Tensor, layout: str, mechanism: str, measure: str, compiles: bool
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return the calls to time, and the reasons why others could not be made."""
    calls: dict[str, Call] = {BASELINE: x.detach().clone, "read": read(x)}
    failed: dict[str, str] = {}
    for name, module in variants(mechanism, x.shape[1]).items():
        prepared = prepare(module, x, layout, measure)
        if name == "foveate" and (reason := why_not(prepared, x)):
            failed[name] = reason
            continue
        calls[name] = call(prepared, x, measure)
        if compiles:
            add_compiled(calls, failed, name, prepared, x, measure)
    return calls, failed

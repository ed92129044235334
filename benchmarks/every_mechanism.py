"""Time every mechanism of the catalogue against plain modules of its authors' form, and timm's where it has one.

The peers of a mechanism with a kernel are compiled too.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

import foveate
from benchmarks.calls import (
    TIMM_NAMES,
    Call,
    add_compiled,
    call,
    feature_map,
    memory_format,
    prepare,
    rewrite,
    timm_attention,
)
from benchmarks.harness import check_clock, make_record, measure_calls
from benchmarks.options import Options, Shape
from benchmarks.references import REFERENCES
from foveate.experiment.environment import load_average
from foveate.facts import facts

SHAPES: Mapping[str, tuple[Shape, ...]] = {
    "forward": ((8, 256, 28, 28), (1, 256, 56, 56)),
    "training": ((8, 256, 28, 28), (2, 256, 56, 56)),  # norms of pooled maps need two samples
}
SHORTEST = 3e-5  # seconds
BASELINE = "reference"
OURS = "foveate"


def measure(options: Options, shapes: Mapping[str, tuple[Shape, ...]] = SHAPES) -> Iterator[dict[str, Any]]:
    """Yield one record for each measure, with a result for each mechanism, shape and layout."""
    check_clock(options.clock)
    for kind in options.measures:
        before = load_average()
        results = [
            _cell(name, shape, layout, kind, options)
            for name in sorted(REFERENCES)
            for shape in shapes[kind]
            for layout in options.layouts
        ]
        yield make_record(f"every_mechanism_{kind}", options.rounds, before, results) | {"clock": options.clock}


class SameLayout(nn.Module):
    """A module whose output has the layout of its input, which the next layer of a network would else restore."""

    def __init__(self, module: nn.Module, layout: str):
        super().__init__()
        self.module, self.format = module, memory_format(layout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the module to x (N, C, H, W)."""
        return self.module(x).contiguous(memory_format=self.format)


def modules(name: str, channels: int) -> dict[str, nn.Module]:
    """Return the modules to compare, ours and the reference with the same weights."""
    torch.manual_seed(0)
    reference, ours = REFERENCES[name](channels), foveate.attention(name, channels)
    foveate.load_published(ours, reference.state_dict())
    found: dict[str, nn.Module] = {BASELINE: reference, OURS: ours}
    return {**found, "timm": timm_attention(name, channels)} if name in TIMM_NAMES else found


def _cell(name: str, shape: Shape, layout: str, measure: str, options: Options) -> dict[str, Any]:
    torch._dynamo.reset()  # modules compiled for other cells would slow the guards of this one
    with torch.inference_mode() if measure == "forward" else nullcontext():
        x = feature_map(shape, layout).requires_grad_(measure == "training")
        calls: dict[str, Call] = {}
        failed: dict[str, str] = {}
        for label, module in modules(name, shape[1]).items():
            prepared = SameLayout(prepare(module, x, layout, measure), layout)
            calls[label] = call(prepared, x, measure)
            if options.compile and label != OURS and facts(name).get("kernel"):
                add_compiled(calls, failed, label, prepared, x, measure)
        timings = measure_calls(
            calls, BASELINE, options.rounds, shortest=SHORTEST, before=rewrite(x), clock=options.clock
        )
    shown = "  ".join(f"{label} {timing['ratio']:.2f}" for label, timing in timings.items() if label != BASELINE)
    print(f"{measure} {name} {shape} {layout}: {shown}", flush=True)
    return {"mechanism": name, "shape": list(shape), "layout": layout, "calls": timings, "failed": failed}

"""The cost of attached attention in a whole ResNet-50, compared with the plain host and with timm's attention."""

import gc
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

import foveate
from benchmarks.calls import TIMM_NAMES, Call, call, compiled, feature_map, plain, prepare
from benchmarks.harness import make_record, measure_calls
from benchmarks.options import Options
from benchmarks.targets import HOST
from foveate.experiment.environment import load_average
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.parts import Start

BASELINE = "plain host"
CASES = (
    (8, "channels_last"),
    (1, "NCHW"),
    (1, "channels_last"),
)  # batch size and layout; training is timed at the first


def measure(options: Options, *, host: str = "resnet50", size: int = 224) -> Iterator[dict[str, Any]]:
    """Yield a record for each mode (eager inference, compiled inference, eager training step) with all its cases.

    "plain host again" times the plain host a second time; the distance of its ratio from 1 shows the measurement noise.
    """
    forward, training = (kind in options.measures for kind in ("forward", "training"))
    for mode, wanted in {"eager": forward, "compiled": forward and options.compile, "training": training}.items():
        if not wanted:
            continue
        before = load_average()
        cases = [
            (batch, layout) for batch, layout in CASES[: 1 if mode == "training" else None] if layout in options.layouts
        ]
        results = [_case(host, mode, batch, layout, size, options) for batch, layout in cases]
        yield make_record(f"whole_models_{mode}", options.rounds, before, results)


def _case(host: str, mode: str, batch: int, layout: str, size: int, options: Options) -> dict[str, Any]:
    torch._dynamo.reset()
    measure = "training" if mode == "training" else "forward"
    mechanisms = [name for name in TIMM_NAMES if name in options.mechanisms]
    x = feature_map((batch, 3, size, size), layout)
    models = dict(_models(host, mechanisms, mode))
    calls: dict[str, Call] = {}
    # All hosts run the same code object; beyond the default limit the compiler would skip later hosts without an error.
    limit = torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True)
    with limit, torch.inference_mode() if measure == "forward" else nullcontext():
        for name, model in models.items():
            module = prepare(model, x, layout, measure)
            calls[name] = call(compiled(module) if mode == "compiled" else module, x, measure)
            calls[name]()
            print(f"{host} {mode}, batch {batch}, {layout}: {name} runs", flush=True)
        timings = measure_calls(calls, BASELINE, options.rounds)
    gc.collect()  # compiled models contain reference cycles, and there are many models
    print("; ".join(f"{name} {timing['ratio']:.3f}" for name, timing in timings.items()), flush=True)
    targets = {name: most for name, most in HOST.get(mode, {}).items() if name in mechanisms}
    return {
        "host": host,
        "mode": mode,
        "batch": batch,
        "layout": layout,
        "size": size,
        "targets": targets,
        "calls": timings,
    }


def _models(host: str, mechanisms: list[str], mode: str) -> Iterator[tuple[str, nn.Module]]:
    yield BASELINE, _host(host)
    yield "plain host again", _host(host)
    for name in mechanisms:
        yield f"foveate {name}", _attached(host, name)
    if "cbam" in mechanisms:
        yield "foveate cbam, identity start", _attached(host, "cbam", start="identity")
    for name in mechanisms:
        if mode != "training":
            yield f"plain {name}", _attached(host, lambda channels, name=name: plain(name, channels))
        yield f"timm {name}", _host(host, block_args={"attn_layer": TIMM_NAMES[name]})


def _host(name: str, **options: Any) -> nn.Module:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def _attached(host: str, mechanism: Any, start: Start = "paper") -> nn.Module:
    model = _host(host)
    foveate.attach(model, mechanism, where="residual", start=start)
    return model

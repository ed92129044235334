"""What attached attention costs a whole host, against the plain host and against timm's own attention of the same name."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

import foveate
from benchmarks.harness import SCHEMA, load_average, measure_calls, provenance
from foveate.models.torchvision_guard import ensure_torchvision

HOSTS = ("resnet18", "resnet50")
BATCHES = (1, 8)
LAYOUTS = ("NCHW", "channels_last")
MECHANISMS = ("se", "channel", "spatial", "cbam", "eca", "coordinate")
TIMM_NAMES = {"se": "se", "eca": "eca", "cbam": "cbam", "coordinate": "coord"}
BASELINE = "plain"


def measure(
    rounds: int, *, hosts: tuple[str, ...] = HOSTS, batches: tuple[int, ...] = BATCHES, size: int = 224, threads: int | None = None
) -> dict[str, Any]:
    """Time every host, batch size and layout with every kind of attention; a record for `harness.write`.

    "plain again" is the plain host a second time: how far its ratio is from 1 is the noise of the measurement.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    before = load_average()
    results = [
        {"host": host, "batch": batch, "layout": layout, "size": size, "calls": _case(models, batch, layout, size, rounds)}
        for host in hosts
        for models in [dict(_variants(host))]
        for layout in LAYOUTS
        for batch in batches
    ]
    return {"schema": SCHEMA, "name": "attach_overhead", "rounds": rounds, "provenance": provenance(threads, before), "results": results}


def _variants(host: str) -> Iterator[tuple[str, nn.Module]]:
    yield BASELINE, _host(host)
    yield "plain again", _host(host)
    for name in MECHANISMS:
        model = _host(host)
        foveate.attach(model, name, where="residual", start="paper")
        yield f"foveate {name}", model
    identity = _host(host)
    foveate.attach(identity, "cbam", where="residual", start="identity")
    yield "foveate cbam, identity start", identity
    for name, theirs in TIMM_NAMES.items():
        yield f"timm {name}", _host(host, block_args={"attn_layer": theirs})


def _host(name: str, **options: Any) -> nn.Module:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def _case(models: dict[str, nn.Module], batch: int, layout: str, size: int, rounds: int) -> dict[str, dict[str, float]]:
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    x = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0)).to(memory_format=memory)
    calls = {name: _call(model.to(memory_format=memory), x) for name, model in models.items()}  # pyright: ignore[reportCallIssue]
    with torch.inference_mode():
        return measure_calls(calls, BASELINE, rounds)


def _call(model: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: model(x)

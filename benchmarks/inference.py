"""Networks with attention, baked for inference, compared with the plain host as it is and with the same folding."""

import copy
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import foveate
from benchmarks.calls import TIMM_NAMES, Call, compiled
from benchmarks.harness import make_record
from benchmarks.options import Options
from foveate.experiment.environment import load_average
from foveate.experiment.latency import summary, time_rounds
from foveate.exporting.forms import file_call
from foveate.models import YOLOv4Tiny
from foveate.models.torchvision_guard import ensure_torchvision
from foveate.surgery.torch.inference import for_inference

PLAIN, BAKED = "plain host", "plain host, baked"
DEPTHWISE = "after depthwise"
CASES = (("resnet50", "residual"), ("mobilenetv2_100", "residual"), ("mobilenetv2_100", DEPTHWISE), ("YOLOv4-tiny", ""))
BATCHES = (8, 1)
YOLO_SIDE = 416
RUNTIMES = ("onnx", "openvino")


def measure(
    options: Options,
    *,
    cases: tuple[tuple[str, str], ...] = CASES,
    batches: tuple[int, ...] = BATCHES,
    size: int = 224,
    runtimes: tuple[str, ...] = RUNTIMES,
) -> Iterator[dict[str, Any]]:
    """Yield one record: each host with each mechanism, attached and baked, and the peers, by batch size."""
    before = load_average()
    results = [_case(host, where, batch, size, options, runtimes) for host, where in cases for batch in batches]
    yield make_record("inference", options.rounds, before, results)


def _case(host: str, where: str, batch: int, size: int, options: Options, runtimes: tuple[str, ...]) -> dict[str, Any]:
    torch._dynamo.reset()
    side = size if where else YOLO_SIDE
    x = torch.rand((batch, 3, side, side), generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    names = [name for name in TIMM_NAMES if name in options.mechanisms]
    with tempfile.TemporaryDirectory() as folder:
        calls = dict(_calls(host, where, names, x))
        if host.startswith("resnet"):
            calls |= dict(_peers(host, where, names, x, options.compile, runtimes, Path(folder)))
        with torch.inference_mode():
            for call in calls.values():
                call()
            seconds = time_rounds(calls, seconds=math.inf, least=options.rounds, most=options.rounds)
    timings = {name: summary(values, seconds[PLAIN]) for name, values in seconds.items()}
    folded = {name: summary(values, seconds[BAKED]) for name, values in seconds.items() if name.endswith(", baked")}
    ratios = "; ".join(f"{name} {timing['ratio']:.3f}" for name, timing in timings.items())
    print(f"{host} {where}, batch {batch}: {ratios}", flush=True)
    return {"host": host, "where": where, "batch": batch, "size": side, "calls": timings, "over_baked": folded}


def _calls(host: str, where: str, names: list[str], x: Tensor) -> Iterator[tuple[str, Call]]:
    plain = _host(host)
    yield PLAIN, _call(plain, x)
    yield f"{PLAIN} again", _call(_host(host), x)
    yield BAKED, _call(for_inference(copy.deepcopy(plain)), x)
    for name in names:
        model = _attached(host, where, name)
        yield name, _call(model, x)
        yield f"{name}, baked", _call(foveate.bake(model, example=x[:1], inference=True), x)


def _peers(
    host: str, where: str, names: list[str], x: Tensor, compiles: bool, runtimes: tuple[str, ...], folder: Path
) -> Iterator[tuple[str, Call]]:
    for name in names:
        peer = _host(host, block_args={"attn_layer": TIMM_NAMES[name]})
        yield f"{name}, timm", _call(peer, x)
        if compiles:
            yield f"{name}, timm compiled", _call(compiled(peer), x)
        for runtime in runtimes:
            path = folder / f"{name}{'.onnx' if runtime == 'onnx' else '.xml'}"
            written = foveate.export(_attached(host, where, name), path, x, dynamic=False).path
            yield f"{name}, {runtime}", file_call(written, len(x), None, torch.get_num_threads())


def _call(model: nn.Module, x: Tensor) -> Call:
    placed: Any = model.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return lambda: placed(x)


def _host(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    if name == "YOLOv4-tiny":
        return YOLOv4Tiny(**options).eval()
    ensure_torchvision()
    import timm

    return timm.create_model(name, **options).eval()


def _attached(host: str, where: str, mechanism: str) -> nn.Module:
    if not where:
        return _host(host, attention=mechanism)
    model = _host(host)
    foveate.attach(model, mechanism, where=_depthwise(model) if where == DEPTHWISE else where, start="paper")
    return model.eval()


def _depthwise(model: nn.Module) -> list[str]:
    """Return the places that timm's blocks have for SE, after the activation of the depthwise convolution."""
    return [name for name, _ in model.named_modules() if name.endswith(".se")]

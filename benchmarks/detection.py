"""YOLOv4-tiny inference: the cost of attention, other runtimes, the other steps of `predict`, and the growth of NMS."""

import gc
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.calls import TIMM_NAMES, Call, compiled
from benchmarks.detection_nms import COUNTS, PLACES, measure_growth
from benchmarks.harness import check_clock, make_record, measure_calls
from benchmarks.options import Options
from benchmarks.targets import DETECTION
from foveate.data.boxes.views import letterboxed
from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.boxes import Letterbox
from foveate.detection.heads import decode_all
from foveate.experiment.environment import load_average
from foveate.kernels import why_not
from foveate.models import YOLOv4Tiny
from foveate.models.detectors import detect, detections
from foveate.torch_utils.names import CHILD

BASELINE, WHOLE = "plain", "whole"
BATCHES = (1, 8)
PICTURE = (640, 480)
TOLERANCE = 1e-4  # relative to the largest value
# The standard deviation of the heads' weights when `predict` is timed. It is fifteen times the initial one, so that
# tens of candidates pass, as in a picture with objects.
SPREAD = 0.15
THRESHOLDS: dict[str, Any] = {"conf": CONF, "iou": IOU, "max_det": MAX_DET}

Outputs = tuple[Tensor, Tensor]


def measure(
    options: Options, *, size: int = 416, batches: tuple[int, ...] = BATCHES, counts: tuple[int, ...] = COUNTS
) -> Iterator[dict[str, Any]]:
    """Yield one record with results for the network at each batch size, for `predict`, and for each kind of NMS."""
    check_clock(options.clock)
    before = load_average()
    results = [_network(batch, size, options) for batch in batches]
    results.append(_predict(size, options))
    results += [measure_growth(kind, counts, options) for kind in PLACES]
    yield make_record("detection", options.rounds, before, results) | {"clock": options.clock, "packages": _versions()}


def _network(batch: int, size: int, options: Options) -> dict[str, Any]:
    """Time every variant of the network, and each attention's three sites separately on their inputs in the network."""
    torch._dynamo.reset()
    x = torch.rand((batch, 3, size, size), generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    names = [name for name in TIMM_NAMES if name in options.mechanisms]
    models = {
        BASELINE: _model(),
        f"{BASELINE} again": _model(),
        "not fused": _model(fused=False),
        "copies": _copying(_model()),
    }
    models |= {name: _model(name) for name in names}
    failed: dict[str, str] = {}
    calls: dict[str, Call] = {name: lambda model=model: model(x) for name, model in models.items()}
    run = _onnxruntime(models[BASELINE], x)
    with torch.inference_mode():
        expected = models[BASELINE](x)
        for name, call in [*list(calls.items())[1:], ("onnxruntime", run)]:
            _check(name, call(), expected)
        calls["onnxruntime"] = run
        if options.compile:
            try:
                faster = compiled(models[BASELINE])
                _check("compiled", faster(x), expected)
                calls["compiled"] = lambda: faster(x)
            except Exception as error:  # record a compiler failure and continue
                failed["compiled"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        for name in names:
            calls[f"{name}, its sites"], failed[name] = _sites(models[name], x)
        timings = measure_calls(calls, BASELINE, options.rounds, clock=options.clock)
    gc.collect()  # compiled models contain reference cycles
    print(f"batch {batch}:", "; ".join(f"{name} {timing['ratio']:.3f}" for name, timing in timings.items()), flush=True)
    failed = {name: reason for name, reason in failed.items() if reason}
    target = DETECTION["attention"]
    return {"part": "network", "batch": batch, "size": size, "target": target, "failed": failed, "calls": timings}


def _predict(size: int, options: Options) -> dict[str, Any]:
    """Time the steps of `foveate predict` from one loaded picture to its boxes, together and separately."""
    model = _model()
    torch.manual_seed(0)
    for head in (model.coarse_head, model.fine_head):
        nn.init.normal_(head.weight, std=SPREAD)
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURE[1], PICTURE[0], 3), np.uint8)
    letterbox = Letterbox(PICTURE, (size, size))

    def prepare() -> Tensor:
        return torch.stack([letterboxed(pixels, letterbox).expand(3, -1, -1)]).contiguous(
            memory_format=torch.channels_last
        )

    with torch.inference_mode():
        x = prepare()
        outputs = model(x)

        def after() -> Any:
            return letterbox.to_image(detections(model, outputs, **THRESHOLDS)[0].boxes)

        calls: dict[str, Call] = {
            WHOLE: lambda: letterbox.to_image(detect(model, prepare(), **THRESHOLDS)[0].boxes),
            "letterbox": prepare,
            "network": lambda: model(x),
            "decoding and NMS": after,
            "all but the network": lambda: (prepare(), after()),
        }
        timings = measure_calls(calls, WHOLE, options.rounds, clock=options.clock)
        scores = decode_all(torch, outputs, model.heads)[1]
    print("predict:", "; ".join(f"{name} {timing['ratio']:.3f}" for name, timing in timings.items()), flush=True)
    counts = {"candidates": int((scores > CONF).sum()), "kept": len(after())}
    return {
        "part": "predict",
        "size": size,
        "picture": list(PICTURE),
        **counts,
        "target": DETECTION["around"],
        "calls": timings,
    }


def _model(attention: str | None = None, fused: bool = True) -> YOLOv4Tiny:
    torch.manual_seed(0)
    model = YOLOv4Tiny(attention=attention).eval()
    return (model.fused() if fused else model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _copying(model: YOLOv4Tiny) -> YOLOv4Tiny:
    """Make each of the three sites return a copy: the lowest cost of any operation that makes a new map there."""
    for site in model.sites.values():
        site.register_forward_hook(lambda site, args, output: output.clone())
    return model


def _sites(model: YOLOv4Tiny, x: Tensor) -> tuple[Call, str]:
    """Return a call of only the three sites, and why one of them runs without a kernel."""
    met: dict[nn.Module, Tensor] = {}
    sites: list[Any] = list(model.sites.values())
    handles = [site.register_forward_pre_hook(lambda site, args: met.update({site: args[0]})) for site in sites]
    model(x)
    for handle in handles:
        handle.remove()
    reasons = {why_not(getattr(site, CHILD), met[site]) for site in sites}
    return lambda: [site(met[site]) for site in sites], "; ".join(sorted(filter(None, reasons)))


def _onnxruntime(model: nn.Module, x: Tensor) -> Call:
    """Return a call of the model's ONNX export on x by onnxruntime, with the same number of threads as torch."""
    import onnxruntime

    program: Any = torch.onnx.export(model, (x.contiguous(),), dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    inputs = {session.get_inputs()[0].name: x.contiguous().numpy()}
    return lambda: session.run(None, inputs)


def _check(name: str, outputs: Any, expected: Outputs) -> None:
    """Raise an error before a variant is timed whose outputs differ."""
    for output, wanted in zip(outputs, expected, strict=True):
        atol = TOLERANCE * float(wanted.abs().max())
        np.testing.assert_allclose(np.asarray(output), wanted.numpy(), rtol=0, atol=atol, err_msg=name)


def _versions() -> dict[str, str]:
    import onnxruntime

    return {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}

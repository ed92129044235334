"""OpenVINO's IR, by way of ONNX, which OpenVINO reads."""

import contextlib
import io
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from foveate.exporting.formats import Array, Runner, onnx
from foveate.exporting.subject import Subject

SUFFIX, COMPANIONS = ".xml", (".bin",)
DYNAMIC, NMS = True, True
PACKAGES = ("openvino", *onnx.PACKAGES)
QUANTISER = "nncf"
write_keras = None
ATTENTION = "attention"  # under which a file keeps the names of its operators
_DATA = ("Parameter", "Constant", "Result", "Convert")  # of the graph itself


def write(program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
    """Write the graph, and beside it the weights in float32."""
    import openvino

    between = path.with_suffix(onnx.SUFFIX)
    onnx.write(program, subject, between, notes)
    model = openvino.Core().read_model(between)  # OpenVINO's converter sends statistics of use; its reader does not
    attention = onnx.attention_nodes(between)
    between.unlink()
    for name, text in notes.items():
        model.set_rt_info(text, ["foveate", name])
    model.set_rt_info(" ".join(attention), ["foveate", ATTENTION])
    openvino.save_model(model, path, compress_to_fp16=False)


def open(path: Path, threads: int | None = None) -> Runner:
    """Return a function that runs the file on the CPU; without the hint, OpenVINO computes in bfloat16 where it can."""
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
    compiled = openvino.Core().compile_model(path, "CPU", options)

    def run(inputs: Sequence[Array]) -> list[Array]:
        found = compiled(list(inputs))
        return [found[output].copy() for output in compiled.outputs]

    return run


def operators(path: Path) -> dict[str, int]:
    """Return how often each operator occurs."""
    import openvino

    found = (node.get_type_name() for node in openvino.Core().read_model(path).get_ops())
    return dict(Counter(name for name in found if name not in _DATA))


def quantise(path: Path, images: Sequence[Array]) -> list[str]:
    """Replace a file by its INT8 form, by NNCF, and return the operators of attention, which stay in float."""
    import openvino

    model = openvino.Core().read_model(path)
    operators = list(model.get_ops())
    attention = {*model.get_rt_info(["foveate", ATTENTION]).astype(str).split()}
    kept = sorted({node.get_friendly_name() for node in operators} & attention)
    others = sorted({node.get_type_name() for node in operators} - {"Convolution", "GroupConvolution", "MatMul"})
    with _nncf() as nncf, contextlib.redirect_stdout(io.StringIO()):
        ignored = nncf.IgnoredScope(names=kept, types=others, validate=False)
        made = nncf.quantize(model, nncf.Dataset([*images]), ignored_scope=ignored, subset_size=len(images))
    quantised = path.with_name("quantised" + SUFFIX)
    openvino.save_model(made, quantised, compress_to_fp16=False)
    for suffix in (SUFFIX, *COMPANIONS):
        quantised.with_suffix(suffix).replace(path.with_suffix(suffix))
    return kept


@contextlib.contextmanager
def _nncf() -> Iterator[Any]:
    """Give NNCF, which sends no statistics of use and writes no log meanwhile."""
    telemetry = "openvino_telemetry"
    hidden = sys.modules.get(telemetry)
    sys.modules[telemetry] = None  # pyright: ignore[reportArgumentType]  # its import then fails, as NNCF expects
    try:
        import nncf
        from nncf.telemetry import decorator
    finally:
        del sys.modules[telemetry]
        if hidden is not None:
            sys.modules[telemetry] = hidden
    logger = logging.getLogger("nncf")
    level, sender = logger.level, decorator.telemetry
    logger.setLevel(logging.ERROR)
    decorator.telemetry = _Silent()  # where it was imported before
    try:
        yield nncf
    finally:
        decorator.telemetry = sender
        logger.setLevel(level)


class _Silent:
    """What takes NNCF's messages about its use, and sends none."""

    def start_session(self, *_: Any, **__: Any) -> None: ...

    def send_event(self, *_: Any, **__: Any) -> None: ...

    def end_session(self, *_: Any, **__: Any) -> None: ...

"""ONNX, by torch's exporter; onnxruntime runs it."""

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from foveate.errors import UsageError
from foveate.exporting.detector import suppress
from foveate.exporting.formats import Array, Runner
from foveate.exporting.subject import Subject
from foveate.torch_utils.names import CHILD

SUFFIX, COMPANIONS = ".onnx", ()
DYNAMIC, NMS = True, True
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
QUANTISER = "onnxruntime"
write_keras = None
_STANDARD = ("", "ai.onnx")  # the domains of the standard's own operators


def write(program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
    """Write one file with its weights inside.

    Raises UsageError for operators outside the standard.
    """
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(subject.input_names),
            output_names=list(subject.output_names),
            custom_translation_table={suppress._opoverload: _non_max_suppression},
            verbose=False,
        )
    assert made is not None  # noqa: S101  # it is only without dynamo
    made.model.metadata_props.update(notes)
    others = sorted(
        {f"{node.domain}::{node.op_type}" for node in made.model.graph.all_nodes() if node.domain not in _STANDARD}
    )
    if others or made.model.functions:
        raise UsageError(
            expected="a model of standard ONNX operators",
            received=", ".join(others) or "functions of its own",
            do="report it with the model: Foveate's operations have standard forms",
        )
    made.save(path, external_data=False)


def open(path: Path, threads: int | None = None) -> Runner:
    """Return a function that runs the file with onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # else its idle threads slow others down
    if threads is not None:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(inputs: Sequence[Array]) -> list[Array]:
        return [np.asarray(one) for one in session.run(None, dict(zip(names, inputs, strict=True)))]

    return run


def operators(path: Path) -> dict[str, int]:
    """Return how often each operator occurs."""
    import onnx

    return dict(Counter(node.op_type for node in onnx.load(path).graph.node))


def _non_max_suppression(boxes: Any, scores: Any, most: int, threshold: float, conf: float) -> Any:
    """Translate `foveate::suppress` into the operator of the standard."""
    from onnxscript import opset18

    op: Any = opset18

    limits = (op.Constant(value_ints=[most]), op.Constant(value_floats=[threshold]), op.Constant(value_floats=[conf]))
    return op.NonMaxSuppression(boxes, op.Transpose(scores, perm=[0, 2, 1]), *limits)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of the exporter and the quantiser, which are about their own steps."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", None)]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def quantise(path: Path, images: Sequence[Array]) -> list[str]:
    """Replace a file by its INT8 form (QDQ), and return the nodes of attention, which stay in float.

    Convolutions and matrix products become INT8, with a scale for each channel of the weights.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    kept = attention_nodes(path)
    (name,) = (one.name for one in onnx.load(path, load_external_data=False).graph.input)
    given = iter([{name: image} for image in images])

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, Array] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(given, None)

    made = path.with_name("quantised" + SUFFIX)
    with _quiet():
        quantize_static(
            path,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=kept,
        )
    made.replace(path)
    return kept


def attention_nodes(path: Path) -> list[str]:
    """Return the nodes that the exporter places in attention: attached, or called by the model itself."""
    import onnx

    nodes = onnx.load(path).graph.node
    places = {
        node.name: next((one.value for one in node.metadata_props if one.key == "namespace"), "") for node in nodes
    }
    return [name for name, place in places.items() if CHILD in place or "foveate.torch." in place]

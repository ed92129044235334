"""LiteRT (TFLite), by litert-torch, of Keras models by Keras. Batch and sides are those of the example."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from foveate.errors import UsageError
from foveate.exporting.formats import Array, Runner
from foveate.exporting.keras_models import write_litert
from foveate.exporting.subject import Subject

SUFFIX, COMPANIONS = ".tflite", ()
DYNAMIC, NMS = False, False
PACKAGES = ("litert-torch", "ai-edge-litert")
QUANTISER = quantise = None
write_keras = write_litert


def write(program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
    """Write one file. Inputs and outputs keep torch's layout, (N, C, H, W)."""
    import litert_torch  # pyright: ignore[reportMissingImports]  # in an environment of its own

    try:
        made = litert_torch.convert(program.module(), tuple(subject.inputs))
    except Exception as error:  # the converter raises nearly anything
        told = " ".join(str(error).split())[:300]
        raise UsageError(
            expected="a model that litert-torch converts",
            received=f"{type(error).__name__}: {told}",
            do="export to ONNX, or report it to litert-torch",
        ) from error
    made.export(str(path))


def open(path: Path, threads: int | None = None) -> Runner:
    """Return a function that runs the file with LiteRT's interpreter."""
    interpreter = _interpreter(path, threads)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(given: Sequence[Array]) -> list[Array]:
        for detail, x in zip(inputs, given, strict=True):
            interpreter.set_tensor(detail["index"], x)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outputs]

    return run


def operators(path: Path) -> dict[str, int]:
    """Return how often each operator occurs."""
    details = _interpreter(path, None)._get_ops_details()
    return dict(Counter(str(one["op_name"]) for one in details if one["op_name"] != "DELEGATE"))


def _interpreter(path: Path, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as missing:
        try:
            from tensorflow import lite  # pyright: ignore[reportMissingImports]  # which brings the same interpreter
        except ModuleNotFoundError:
            raise missing from None
        Interpreter = lite.Interpreter
    with warnings.catch_warnings(action="ignore"):  # TensorFlow's says that it moves to ai-edge-litert
        made = Interpreter(model_path=str(path), num_threads=threads)
    made.allocate_tensors()
    return made

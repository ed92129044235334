"""OpenVINO's IR, by way of ONNX, which OpenVINO reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.export import ExportedProgram

from foveate.exporting.formats import Array, Runner, onnx
from foveate.exporting.subject import Subject

SUFFIX, COMPANIONS = ".xml", (".bin",)
DYNAMIC, NMS = True, True
PACKAGES = ("openvino", *onnx.PACKAGES)
_DATA = ("Parameter", "Constant", "Result", "Convert")  # of the graph itself


def write(program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
    """Write the graph, and beside it the weights in float32."""
    import openvino

    between = path.with_suffix(onnx.SUFFIX)
    onnx.write(program, subject, between, notes)
    model = openvino.Core().read_model(between)  # OpenVINO's converter sends statistics of use; its reader does not
    between.unlink()
    for name, text in notes.items():
        model.set_rt_info(text, ["foveate", name])
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

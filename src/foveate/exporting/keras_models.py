"""Keras models of any backend: traced on Keras's torch backend, or written to LiteRT on its TensorFlow backend."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate.detection.heads import Head
from foveate.errors import MissingExtra, UsageError
from foveate.exporting.subject import Subject, Thresholds, numbered

_SIDE = 64  # pixels, of an input whose sides are open
TRACE = """
import json
import sys
from pathlib import Path
import foveate.keras
import keras
from foveate.exporting.detector import with_boxes
from foveate.exporting.formats import named
from foveate.exporting.keras_models import subject_of_keras
from foveate.exporting.program import trace
from foveate.exporting.subject import Thresholds
from foveate.exporting.targets import tailor

path, made = sys.argv[1:]
given = json.load(sys.stdin)
model = keras.saving.load_model(path, compile=False)
subject = with_boxes(subject_of_keras(model, given["shapes"]), given["boxes"], Thresholds(*given["limits"]))
program, tailored = tailor(trace(subject, dynamic=given["dynamic"]), given["target"], given["format"])
named(given["format"]).write(program, subject, Path(made), given["notes"])
print(json.dumps([count for _, count in tailored.rules]))
"""
WRITE = """
import json
import sys
import foveate.keras
import keras
import tensorflow

path, made = sys.argv[1:]
model = keras.saving.load_model(path, compile=False)
inputs = [keras.InputSpec(dtype="float32", shape=shape) for shape in json.load(sys.stdin)["shapes"]]
signature = inputs if len(inputs) == 1 else [inputs]
getattr(model, "model", model).export(made, format="litert", input_signature=signature, verbose=False)
print(json.dumps({"keras": keras.__version__, "tensorflow": tensorflow.__version__}))
"""


def is_keras(model: Any) -> bool:
    """Return whether a model is one of Keras; imports nothing."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def subject_of_keras(model: Any, example: Sequence[tuple[int, ...]] | tuple[int, ...] | None = None) -> Subject:
    """Return a Keras model, or the one inside a `foveate.keras.Detector`, as a subject.

    `example` is the shape of its input, or one for each. Raises UsageError for a model without a fixed structure of
    inputs, which is not functional.
    """
    heads = tuple(one for one in getattr(model, "heads", ()) if isinstance(one, Head))
    last = model.channels_last if heads else not _channels_first(model)
    model = model.model if heads else model
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise UsageError(
            expected="a functional or sequential Keras model that is built",
            received=f"a {type(model).__name__} without inputs",
            do="call it once, or build it with keras.Input",
        )
    one = example is not None and isinstance(example[0], int)
    shapes: Any = [example] if one else (example or [_closed(given.shape) for given in inputs])
    generator = torch.Generator().manual_seed(0)
    values = tuple(torch.rand(shape, generator=generator) for shape in shapes)
    return Subject(
        KerasModule(model),
        KerasReference(model),
        values,
        ("images",) if len(values) == 1 else numbered("input", len(values)),
        tuple(f"stride_{head.stride}" for head in heads) or numbered("output", len(model.outputs)),
        step=max((head.stride for head in heads), default=1),
        heads=heads,
        channels_last=last,
    )


class KerasModule(nn.Module):
    """A Keras model on the torch backend as a module that returns a tuple of tensors."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Call the model in inference mode."""
        import keras

        made = self.model(inputs[0] if len(inputs) == 1 else list(inputs), training=False)
        return tuple(keras.tree.flatten(made))


class KerasReference:
    """A Keras model on any backend, from tensors to tensors."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Return what the model returns in inference mode, in float32."""
        import keras

        arrays = [keras.ops.convert_to_tensor(x.numpy()) for x in inputs]
        made = self.model(arrays[0] if len(arrays) == 1 else arrays, training=False)
        found = keras.tree.flatten(made)
        return [torch.from_numpy(np.array(keras.ops.convert_to_numpy(one), np.float32)) for one in found]


def written_elsewhere(model: Any, subject: Subject, path: Path, limits: Thresholds, **given: Any) -> list[int]:
    """Trace, tailor and write a model of another backend in a process whose Keras runs on torch.

    `given` has the format, the target, whether sides are open, and the notes. Return how often each rule was applied.
    Raises UsageError where the model cannot be loaded there, as with layers of the user that are not registered.
    """
    given |= {"boxes": subject.boxes, "limits": [limits.conf, limits.iou, limits.max_det]}
    return json.loads(_elsewhere("torch", TRACE, model, subject, path, **given))


def write_litert(model: Any, subject: Subject, path: Path) -> dict[str, str]:
    """Write a model with the sizes of its example by Keras's own exporter; return the versions that did it.

    It runs in a process whose Keras runs on TensorFlow. Raises UsageError where the model cannot be loaded there,
    MissingExtra without TensorFlow.
    """
    if subject.boxes != "outputs":
        raise UsageError(
            expected="boxes='outputs' for a Keras detector in LiteRT, which Keras itself writes",
            received=f"boxes={subject.boxes!r}",
            do="decode with foveate.detection.heads.decode_all, or export to ONNX",
        )
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtra(
            expected="TensorFlow, with which Keras writes LiteRT",
            received="an environment without it",
            do="pip install tensorflow, or export to ONNX",
        )
    return json.loads(_elsewhere("tensorflow", WRITE, model, subject, path))


def _elsewhere(backend: str, script: str, model: Any, subject: Subject, path: Path, **given: Any) -> str:
    """Run a script on a saved model in a process with another backend of Keras; return the last line it prints."""
    shapes = [list(x.shape) for x in subject.inputs]
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-P", "-c", script, str(saved), str(path)]  # -P: import nothing of this folder
        rest = json.dumps({"shapes": shapes, **given})  # too long for an argument, if the notes are
        done = subprocess.run(command, env=environment, input=rest, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [""]
        raise UsageError(
            expected=f"a model that Keras saves, loads on its {backend} backend and converts there",
            received=lines[-1][:300],
            do="register its own layers with keras.saving.register_keras_serializable in an installed package",
        )
    return done.stdout.splitlines()[-1]


def _closed(shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return the shape of an input with a batch of one and usual sides where they are open."""
    return (1, *(_SIDE if side is None else side for side in shape[1:]))


def _channels_first(model: Any) -> bool:
    found = [layer.data_format for layer in model._flatten_layers() if hasattr(layer, "data_format")]
    return bool(found) and found[0] == "channels_first"

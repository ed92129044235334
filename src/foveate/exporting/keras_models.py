"""Keras models: the graph is traced on Keras's torch backend, whichever backend the model itself runs on."""

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

from foveate.errors import UsageError
from foveate.exporting.subject import Subject, numbered

_SIDE = 64  # pixels, of an input whose sides are open
SCRIPT = """
import sys
import foveate.keras
import keras
import torch
from foveate.exporting.keras_models import subject_of_keras
from foveate.exporting.program import trace

path, made, dynamic, *shapes = sys.argv[1:]
model = keras.saving.load_model(path, compile=False)
example = [tuple(map(int, shape.split("x"))) for shape in shapes]
torch.export.save(trace(subject_of_keras(model, example), dynamic=dynamic == "True"), made)
"""


def is_keras(model: Any) -> bool:
    """Return whether a model is one of Keras; imports nothing."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def subject_of_keras(model: Any, example: Sequence[tuple[int, ...]] | tuple[int, ...] | None = None) -> Subject:
    """Return a Keras model as a subject; `example` is the shape of its input, or one for each.

    Raises UsageError for a model without a fixed structure of inputs, which is not functional.
    """
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
    names = ("images",) if len(values) == 1 else numbered("input", len(values))
    last = not _channels_first(model)
    reference = KerasReference(model)
    return Subject(
        KerasModule(model), reference, values, names, numbered("output", len(model.outputs)), channels_last=last
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


def traced_elsewhere(model: Any, subject: Subject, *, dynamic: bool) -> torch.export.ExportedProgram:
    """Trace a model of another backend: save it, and load it in a process whose Keras runs on torch.

    Raises UsageError where it cannot be loaded there, as with layers of the user that are not registered.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved, made = Path(folder) / "model.keras", Path(folder) / "program.pt2"
        model.save(saved)
        shapes = ["x".join(map(str, x.shape)) for x in subject.inputs]
        command = [sys.executable, "-c", SCRIPT, str(saved), str(made), str(dynamic), *shapes]
        done = subprocess.run(
            command, env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [""]
            raise UsageError(
                expected="a model that Keras saves and loads on its torch backend",
                received=lines[-1][:300],
                do="register its own layers with keras.saving.register_keras_serializable in an installed package",
            )
        return torch.export.load(made)


def _closed(shape: Sequence[int | None]) -> tuple[int, ...]:
    """Return the shape of an input with a batch of one and usual sides where they are open."""
    return (1, *(_SIDE if side is None else side for side in shape[1:]))


def _channels_first(model: Any) -> bool:
    found = [layer.data_format for layer in model._flatten_layers() if hasattr(layer, "data_format")]
    return bool(found) and found[0] == "channels_first"

"""Load and save Darknet weights of a YOLOv4-tiny of torch or Keras, and exchange its weights as named arrays."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.errors import UsageError
from foveate.models import darknet_file
from foveate.models.darknet_file import Arrays

logger = logging.getLogger("foveate")


@dataclass(frozen=True)
class Loaded:
    """The result of loading a file: its version, its count of training images, and the layers that were not loaded."""

    version: tuple[int, int, int]
    seen: int
    kept: tuple[str, ...]


def load_darknet(model: Any, path: str | os.PathLike[str]) -> Loaded:
    """Load a Darknet file into a YOLOv4-tiny of torch or Keras; attention is not in the file and stays unchanged.

    From a file for another number of classes, everything but the heads is loaded; that is logged and returned.

    Raises:
        UsageError: no such file, or a model that is not a YOLOv4-tiny.
        DataError: a file that is truncated, too long or damaged; the model then stays unchanged.
    """
    network = _network(model)
    weights = darknet_file.read(Path(path), network.convs)
    kept = tuple(conv.name for conv in network.convs if conv not in weights.convs)
    if kept:
        heads = {conv.name: conv.outputs for conv in weights.convs}
        described = ", ".join(
            f"{conv.name} {heads[conv.name]} outputs, here {conv.outputs}"
            for conv in network.convs
            if conv.name in kept
        )
        logger.warning("%s was trained for other classes (%s): everything but the heads was loaded", path, described)
    network.write({name: named for name, named in weights.arrays.items() if name not in kept})
    return Loaded(weights.version, weights.seen, kept)


def save_darknet(model: Any, path: str | os.PathLike[str], *, seen: int = 0, version: int = 2) -> None:
    """Write a YOLOv4-tiny of torch or Keras as a Darknet file without its attention.

    `seen` is the number of images that it was trained on.

    Raises:
        UsageError: a model that is not a YOLOv4-tiny or is fused, or a number that the header cannot hold.
    """
    network = _network(model)
    darknet_file.write(Path(path), network.convs, network.read(), seen=seen, version=version)


def darknet_arrays(model: Any) -> Arrays:
    """Return copies of the weights of a YOLOv4-tiny of torch or Keras by layer, without attention.

    The layers are in Darknet's order; the arrays of a layer are "beta", "gamma", "mean" and "variance", or "bias", then
    "kernel" (outputs, inputs, k, k).
    """
    return _network(model).read()


def set_darknet_arrays(model: Any, arrays: Arrays) -> None:
    """Set the weights of a YOLOv4-tiny of torch or Keras from arrays like those of `darknet_arrays`.

    Raises:
        UsageError: arrays of another network; the model then stays unchanged.
    """
    network = _network(model)
    darknet_file.check(arrays, network.convs)
    network.write({conv: {name: np.asarray(array) for name, array in named.items()} for conv, named in arrays.items()})


def _network(model: Any) -> Any:
    """Return the reader and writer of a model's weights: `convs`, `read()`, `write(arrays)`. Raises UsageError."""
    torch, keras = sys.modules.get("torch"), sys.modules.get("keras")
    found = None
    if keras is not None and isinstance(
        model, keras.Model
    ):  # checked first: with Keras on torch, a Keras model is also a torch module
        from foveate.models import keras_yolov4_tiny

        found = keras_yolov4_tiny.network_of(model)
    elif torch is not None and isinstance(model, torch.nn.Module):
        from foveate.models import yolov4_tiny

        found = yolov4_tiny.network_of(model)
    if found is None:
        raise UsageError(
            expected="a foveate.models.YOLOv4Tiny, or a model of foveate.keras.yolov4_tiny",
            received=f"a {type(model).__name__}",
            do="pass the network itself, without its training module or wrappers",
        )
    return found

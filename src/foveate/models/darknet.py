"""Load and save Darknet weights of a YOLOv4-tiny of torch or Keras, and exchange its weights as named arrays."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foveate.errors import UsageError
from foveate.models import darknet_file
from foveate.models.darknet_file import Arrays
from foveate.models.first_convolution import fit_channels
from foveate.models.yolov4_tiny_layers import ConvSpec

logger = logging.getLogger("foveate")


@dataclass(frozen=True)
class Loaded:
    """The result of loading a file: its version, its count of training images, and the layers that were not loaded."""

    version: tuple[int, int, int]
    seen: int
    kept: tuple[str, ...]


def load_darknet(model: Any, path: str | os.PathLike[str]) -> Loaded:
    """Load a Darknet file into a YOLOv4-tiny of torch or Keras; attention is not in the file and stays unchanged.

    From a file for another number of classes, everything but the heads is loaded; from one that ends after a layer,
    such as yolov4-tiny.conv.29, the layers up to there. A first convolution for RGB is fitted to grey images, and the
    reverse. All that is logged, and the layers that were not loaded are returned.

    Raises:
        UsageError: no such file, or a model that is not a YOLOv4-tiny.
        DataError: a file that is truncated, too long or damaged; the model then stays unchanged.
    """
    network = _network(model)
    weights = darknet_file.read(Path(path), network.convs)
    first, theirs = network.convs[0], {conv.name: conv for conv in weights.convs}
    kernel = fit_channels(weights.arrays[first.name]["kernel"], first.inputs, path)
    arrays = {**weights.arrays, first.name: {**weights.arrays[first.name], "kernel": kernel}}
    kept = tuple(conv.name for conv in network.convs[1:] if theirs.get(conv.name) != conv)
    network.write({name: named for name, named in arrays.items() if name not in kept})
    for said in _differences(network.convs, theirs):
        logger.warning("%s %s", path, said)
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


def _differences(ours: Sequence[ConvSpec], theirs: Mapping[str, ConvSpec]) -> Iterator[str]:
    """Yield a sentence for each way in which a file's layers differ from the network's."""
    first = ours[0]
    if (given := theirs[first.name].inputs) != first.inputs:
        yield f"has a first convolution for {given} channels, which was fitted to {first.inputs}"
    if missing := [conv.name for conv in ours if conv.name not in theirs]:
        last = [conv.name for conv in ours if conv.name in theirs][-1]
        yield f"ends after {last!r}: {len(theirs)} of {len(ours)} convolutions were loaded, not {', '.join(missing)}"
    if other := [conv for conv in ours[1:] if theirs.get(conv.name, conv) != conv]:
        heads = [f"{conv.name} {theirs[conv.name].outputs} outputs, here {conv.outputs}" for conv in other]
        yield f"was trained for other classes ({', '.join(heads)}): everything but the heads was loaded"


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

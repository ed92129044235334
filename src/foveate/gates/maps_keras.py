"""Maps of the gates of a Keras model, as `foveate.gates.maps` keeps those of a torch model."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveate.gates.grad_cam_keras import grad_cam_keras
from foveate.gates.maps import FoundGates, Maps
from foveate.gates.record_keras import record


def capture_keras(
    model: Any,
    images: NDArray[np.uint8],
    inputs: NDArray,
    boxes: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    within: ArrayLike | None = None,
    batch: int = 16,
    cam: bool | Mapping[str, int] = False,
) -> Maps:
    """Run a Keras model on n inputs, batch by batch, and return what `capture` does, without features."""
    found = FoundGates(images, {}, boxes, within, len(inputs))
    for at in range(0, len(inputs), batch):
        found.begin(at)
        with record(model, max_bytes=None) as recording:
            output: Any = model(inputs[at : at + batch], training=False)
        for recorded in recording.gates:
            found.add(recorded)
        if not isinstance(output, list | tuple | dict) and len(output.shape) == 2:
            logits: Any = keras.ops.convert_to_numpy(output)
            found.add_classes(np.argmax(logits, 1))
    if cam is False:
        return found.arrays()
    explained = grad_cam_keras(model, inputs, None if cam is True else cam, batch=batch)
    return found.arrays() | ({} if explained is None else found.cam_arrays(explained.maps, explained.layer))

"""Maps of the gates of a Keras model, as `foveate.gates.maps` keeps those of a torch model."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

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
) -> Maps:
    """Run a Keras model on n inputs, batch by batch, and return what `capture` does, without features and Grad-CAM."""
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
    return found.arrays()

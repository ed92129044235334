"""All weights of a Keras model as safetensors, by their order: names of layers differ from build to build."""

from pathlib import Path
from typing import Any

import numpy as np

from foveate.errors import DataError, UsageError


def save(model: Any) -> bytes:
    """Return the content of a file with all weights of a model."""
    from safetensors.numpy import save as to_bytes

    return to_bytes({f"{number:05d}": np.array(value) for number, value in enumerate(model.get_weights())})


def load(model: Any, path: Path) -> None:
    """Set all weights of a model, or none.

    Raises UsageError for those of another model, DataError for a damaged file.
    """
    from safetensors.numpy import load as from_bytes

    try:
        arrays = [array for _, array in sorted(from_bytes(path.read_bytes()).items())]
    except Exception as error:  # damaged content raises nearly anything
        received = f"{path}: {type(error).__name__}: {str(error)[:200]}"
        raise DataError(expected="a safetensors file", received=received, do="download it again") from None
    shapes, found = [tuple(one.shape) for one in model.weights], [array.shape for array in arrays]
    if shapes != found:
        odd = next((pair for pair in zip(shapes, found, strict=False) if pair[0] != pair[1]), (len(shapes), len(found)))
        raise UsageError(
            expected=f"a host with the {len(found)} weights of {path}",
            received=f"a {type(model).__name__} with {len(shapes)}; the first difference: {odd[0]} instead of {odd[1]}",
            do="build the same network, for as many classes",
        )
    model.set_weights(arrays)

"""Read and set the weights of a Keras layer under the names and in the shapes of the torch binding."""

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

import keras
import numpy as np

from foveate import parts
from foveate.bind.keras.attention import Attention
from foveate.bind.weight_layouts import CONVOLUTION, FROM_TORCH, NORM, TO_TORCH, Arrays, array
from foveate.errors import UsageError

ops: Any = keras.ops  # Any, because the declared return types include None


def check_built(layer: Attention) -> None:
    """Refuse a layer that has no weights yet. Raises UsageError."""
    if not layer.built:
        raise UsageError(
            expected="a layer with weights",
            received=f"a {type(layer).__name__} that was never called",
            do="call it on a feature map, or layer.build(shape)",
        )


def state(layer: Attention) -> Arrays:
    """Return the weights of a built layer like the state dict of the torch module, without `num_batches_tracked`."""
    check_built(layer)
    return {
        name: _arranged(name, array(ops.convert_to_numpy(variable.value)), TO_TORCH)
        for name, variable in _variables(layer)
    }


def load_state(layer: Attention, weights: Mapping[str, Any]) -> None:
    """Set the weights of a built layer from a state dict as `state` returns it.

    Raises UsageError, with the layer as it was, where names or shapes differ.
    """
    check_built(layer)
    variables = dict(_variables(layer))
    given = {name: array(value) for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    arranged = {name: _arranged(name, value, FROM_TORCH) for name, value in given.items()}
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    received = {name: value.shape for name, value in arranged.items()}
    if wanted != received:
        odd = sorted(name for name in wanted.keys() | received.keys() if wanted.get(name) != received.get(name))
        raise UsageError(
            expected=f"weights for {type(layer).__name__}: {', '.join(variables)}",
            received=f"others at {', '.join(odd[:6])}",
            do="use the same mechanism, options, start and channels on both sides",
        )
    for name, variable in variables.items():
        variable.assign(arranged[name])


def _variables(layer: Attention) -> Iterator[tuple[str, Any]]:
    for path, part in parts.flat(layer.mechanism.parts(layer.channels)).items():
        inner = attrgetter(path)(layer)
        names = NORM if isinstance(part, parts.Norm) else CONVOLUTION
        yield from ((f"{path}.{name}", getattr(inner, names.get(name, name))) for name in part.weights())


def _arranged(name: str, value: np.ndarray[Any, Any], orders: Mapping[int, tuple[int, ...]]) -> np.ndarray[Any, Any]:
    is_kernel = name.endswith("weight") and value.ndim in orders
    return np.ascontiguousarray(value.transpose(orders[value.ndim])) if is_kernel else value

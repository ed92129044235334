"""Read and set the weights of a bound mechanism as NumPy arrays, with the same names in both frameworks."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from foveate.bind.weight_layouts import Arrays, array


def is_bound(module: Any) -> bool:
    """Return whether a module or layer is a bound mechanism of `foveate.torch` or `foveate.keras`."""
    return _is_keras(module) or _is_torch(module)


def check_built(module: Any) -> None:
    """Refuse a Keras layer that has no weights yet. Raises UsageError."""
    if _is_keras(module):
        from foveate.bind.keras import layer_weights

        layer_weights.check_built(module)


def read(module: Any) -> Arrays:
    """Return the weights under the torch binding's names and in its shapes."""
    if _is_keras(module):
        from foveate.bind.keras.layer_weights import state

        return state(module)
    return {name: array(value) for name, value in module.state_dict().items()}


def write(module: Any, weights: Mapping[str, Any]) -> None:
    """Set all weights from arrays of those names and shapes; only `num_batches_tracked` may be absent."""
    if _is_keras(module):
        from foveate.bind.keras.layer_weights import load_state

        load_state(module, weights)
        return
    import torch

    own = module.state_dict()
    counts = {
        name: value for name, value in own.items() if name.endswith("num_batches_tracked") and name not in weights
    }
    module.load_state_dict(
        {**{name: torch.as_tensor(np.array(value, order="C")) for name, value in weights.items()}, **counts},
        strict=True,
    )


def shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights by name; also works for a module on the meta device."""
    if _is_keras(module):
        return {name: value.shape for name, value in read(module).items()}
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def _is_keras(module: Any) -> bool:
    binding = sys.modules.get("foveate.bind.keras.attention")
    return binding is not None and isinstance(module, binding.Attention)


def _is_torch(module: Any) -> bool:
    binding = sys.modules.get("foveate.bind.torch.attention")
    return binding is not None and isinstance(module, binding.Attention)

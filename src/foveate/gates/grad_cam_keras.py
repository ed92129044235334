"""Grad-CAM of Keras models, by the gradients of JAX, TensorFlow or torch; see `grad_cam` for torch models."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from foveate.bind.keras.attention import Attention
from foveate.detection.heads import decode_all
from foveate.errors import UsageError
from foveate.gates.grad_cam import Cam, joined, targets
from foveate.gates.record_keras import channels_first, layers_in, replaced
from foveate.surgery.keras.graph import paths
from foveate.surgery.keras.host import SUFFIX

ops: Any = keras.ops  # Any, because the declared return types include None


def grad_cam_keras(
    model: Any, inputs: NDArray, classes: Mapping[str, int] | None = None, *, batch: int = 16
) -> Cam | None:
    """Return what `grad_cam` does, for a Keras model; a softmax that is the last layer, or in it, is left out.

    A detector is a `foveate.keras.Detector`. None also on a backend without gradients. Raises UsageError also where the
    scores do not use the last map; JAX cannot tell, and gives a map of zeros.
    """
    gradient, heads = _GRADIENTS.get(keras.backend.backend()), getattr(model, "heads", None)
    names = paths(model)
    with ExitStack() as undo:
        layers = _head_layers(model) if heads else _last_map(model, inputs[:1])
        final = None if heads else _last_layer(model, inputs[:1])
        if isinstance(final, keras.layers.Softmax):
            undo.enter_context(replaced(final, "call", lambda x, **kwargs: x))
        elif getattr(final, "activation", None) is keras.activations.softmax:
            undo.enter_context(replaced(final, "activation", keras.activations.linear))
        if gradient is None or not layers or _scores(model, inputs[:1]) is None:
            return None
        found: dict[str, list[NDArray[np.float32]]] = {}
        for at in range(0, len(inputs), batch):
            x = ops.convert_to_tensor(inputs[at : at + batch])
            scores = ops.convert_to_numpy(ops.stop_gradient(_scores(model, x)))
            for title, target in targets(scores, classes, bool(heads)).items():
                picked = np.eye(scores.shape[1], dtype="float32")[np.broadcast_to(target, len(x))]
                maps = [_cam(model, layer, x, picked, gradient, bool(heads)) for layer in layers]
                found.setdefault(title, []).append(joined(maps))
    shown = [(names.get(id(layer)) or str(layer.path)).removesuffix(SUFFIX) for layer in layers]
    return Cam({title: np.concatenate(parts) for title, parts in found.items()}, " and ".join(shown))


def _scores(model: Any, x: Any) -> Any:
    """Return the scores (n, classes) of inputs; None for a model that has none."""
    output = model(x, training=False)
    if hasattr(model, "heads"):
        scores = decode_all(ops, keras.tree.flatten(output), model.heads, model.channels_last)[1]
        return ops.max(scores, 1)
    is_logits = not isinstance(output, list | tuple | dict) and len(output.shape) == 2 and output.shape[1] > 1
    return output if is_logits else None


def _cam(model: Any, layer: Any, x: Any, picked: NDArray, gradient: Any, at_input: bool) -> NDArray[np.float32]:
    """Return the features of a layer, weighed by the mean gradient of the picked scores, (n, 1, h, w)."""
    seen: list[Any] = []

    def watched(change: Callable[[Any], Any]) -> Any:
        plain = layer.call

        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            return plain(change(x), *args, **kwargs) if at_input else change(plain(x, *args, **kwargs))

        return replaced(layer, "call", call)

    with watched(lambda features: [seen.append(features), features][1]):
        _scores(model, x)
    calls = len(seen)

    def score(added: Any) -> Any:
        seen.clear()
        with watched(lambda features: [seen.append(0), features + added if len(seen) == calls else features][1]):
            return ops.sum(_scores(model, x) * ops.convert_to_tensor(picked))

    features = seen[-1]
    slope = gradient(score, features * 0)
    if slope is None:
        raise UsageError(
            expected="scores that depend on the map that is returned last",
            received=f"the map of {layer.name!r}, which the scores do not use",
            do="explain without Grad-CAM (grad_cam=False), or remove that layer",
        )
    last = _is_last(model)
    weighed, by = (channels_first(part, last, "Grad-CAM") for part in (features, slope))
    return np.maximum((by.mean((2, 3), keepdims=True) * weighed).sum(1, keepdims=True), 0)


def _head_layers(model: Any) -> list[Any]:
    """Return the layers that make the outputs of a detector."""
    return [output._keras_history.operation for output in model.model.outputs]


def _last_map(model: Any, x: NDArray) -> list[Any]:
    """Return the layer that returns a map last, if any does."""
    last = _is_last(model)
    maps = [
        layer
        for layer, shape in _run(model, x)
        if len(shape) == 4 and min(shape[1:3] if last else shape[2:]) > 1 and layer is not model
    ]
    return maps[-1:]


def _last_layer(model: Any, x: NDArray) -> Any:
    """Return the innermost layer that returns the output."""
    ran = [layer for layer, _ in _run(model, x) if not isinstance(layer, keras.Model)]
    return ran[-1] if ran else None


def _run(model: Any, x: NDArray) -> list[tuple[Any, tuple[int, ...]]]:
    """Run a model; return its layers, but for those inside attention, in the order they return, with their shapes."""
    found: list[tuple[Any, tuple[int, ...]]] = []

    def noting(layer: Any, plain: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            output = plain(*args, **kwargs)
            found.append((layer, tuple(getattr(output, "shape", ()))))
            return output

        return call

    with ExitStack() as undo:
        for layer in _outside_attention(model):
            undo.enter_context(replaced(layer, "call", noting(layer, layer.call)))
        model(x, training=False)
    return found


def _outside_attention(model: Any) -> Iterator[Any]:
    every = list(layers_in(model))
    inside = {
        id(part) for layer in every if isinstance(layer, Attention) for part in layers_in(layer) if part is not layer
    }
    return (layer for layer in every if id(layer) not in inside)


def _is_last(model: Any) -> bool:
    """Return whether the maps of a model have their channels last."""
    formats = [layer.data_format for layer in layers_in(model) if getattr(layer, "data_format", None)]
    return (formats[-1] if formats else keras.config.image_data_format()) == "channels_last"


def _by_jax(function: Any, at: Any) -> Any:
    import jax

    return jax.grad(function)(at)


def _by_tensorflow(function: Any, at: Any) -> Any:
    import tensorflow

    with tensorflow.GradientTape() as tape:
        tape.watch(at)
        score = function(at)
    return tape.gradient(score, at)


def _by_torch(function: Any, at: Any) -> Any:
    import torch

    with torch.enable_grad():
        at = at.detach().requires_grad_()
        return torch.autograd.grad(function(at), at, allow_unused=True)[0]


_GRADIENTS = {"jax": _by_jax, "tensorflow": _by_tensorflow, "torch": _by_torch}

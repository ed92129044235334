"""Rebuild a functional or Sequential model over the same layers, with some layers added or left out."""

from collections.abc import Collection, Mapping
from typing import Any

import keras

from foveate.errors import UsageError
from foveate.surgery.keras.graph import graph_of, is_graph


def check(model: Any, touched: Collection[Any], path: str = "") -> None:
    """Raise UsageError unless every model that contains one of the touched layers, at any depth, can be rebuilt."""
    if not _holds(model, _ids(touched)):
        return
    if not is_graph(model) or not type(model).__init__.__module__.startswith("keras."):
        raise UsageError(
            expected="functional and Sequential models around each site",
            received=f"{path or 'a model'}: a {type(model).__name__} with its own constructor or call method",
            do="attach to the functional model inside it, or call the layer in your own code",
        )
    for layer in model.layers:
        check(layer, touched, f"{path}/{layer.name}" if path else layer.name)


def rebuilt(model: Any, following: Mapping[int, Any], dropped: Collection[Any]) -> Any:
    """Return the model with one more layer after each layer whose id is in `following`, without the dropped layers.

    An inner model is rebuilt only where it contains one of these; all other layers are shared.
    """
    return _Rebuild(following, _ids(dropped)).model(model)


class _Rebuild:
    def __init__(self, following: Mapping[int, Any], dropped: set[int]):
        self.following, self.dropped = following, dropped
        self.done: dict[int, Any] = {}

    def model(self, model: Any) -> Any:
        if id(model) not in self.done:
            held = _holds(model, self.dropped | self.following.keys())
            make = self._sequential if isinstance(model, keras.Sequential) else self._functional
            self.done[id(model)] = make(model) if held else model
        return self.done[id(model)]

    def _sequential(self, model: Any) -> Any:
        first = graph_of(model).inputs[0]
        layers = [keras.Input(batch_shape=first.shape, dtype=first.dtype, name=first.name)]
        for layer in model.layers:
            if id(layer) not in self.dropped:
                layers += [self._of(layer), *self._after(layer)]
        new = type(model)(layers, name=model.name)
        if model.compiled:
            new.compile_from_config(model.get_compile_config())
        return new

    def _functional(self, model: Any) -> Any:
        return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=self._call)

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) in self.dropped:
            return args[0]
        y = self._of(layer)(*args, **kwargs)
        for extra in self._after(layer):
            y = extra(y)
        return y

    def _of(self, layer: Any) -> Any:
        return self.model(layer) if is_graph(layer) else layer

    def _after(self, layer: Any) -> list[Any]:
        return [self.following[id(layer)]] if id(layer) in self.following else []


def _ids(layers: Collection[Any]) -> set[int]:
    return {id(layer) for layer in layers}


def _holds(model: Any, ids: Collection[int]) -> bool:
    return any(id(layer) in ids or _holds(layer, ids) for layer in getattr(model, "layers", ()))

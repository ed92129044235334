"""Rebuild a functional or Sequential model over the same weights, with some layers added or left out.

Each layer of the new model is a twin of the host's: an object of its own that shares the weights and the state. So the
`output` of a layer of the new model belongs to the new graph, with attention, and the host's layers are not called.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import keras

from foveate.errors import UsageError
from foveate.surgery.keras.graph import graph_of, is_graph

_REPLACES_WEIGHTS = ("quantize", "enable_lora")  # methods of layers


def check(model: Any, touched: Collection[Any], path: str = "") -> None:
    """Raise UsageError unless every model that contains one of the touched layers, at any depth, can be rebuilt."""
    if not _holds(model, _ids(touched)):
        return
    if not is_graph(model):
        raise UsageError(
            expected="functional and Sequential models around each site",
            received=f"{path or 'a model'}: a {type(model).__name__} with its own call method",
            do="attach to the functional model inside it, or call the layer in your own code",
        )
    if _own_constructor(model) and (steps := _own_steps(model)):
        raise UsageError(
            expected="a model that can be rebuilt as a plain keras.Model",
            received=f"{path or 'a model'}: a {type(model).__name__} with its own constructor and "
            f"{' and '.join(steps)}",
            do="attach to keras.Model(model.inputs, model.outputs), and give the result to your own training step",
        )
    for layer in model.layers:
        check(layer, touched, f"{path}/{layer.name}" if path else layer.name)


def rebuilt(model: Any, following: Mapping[int, Any], dropped: Collection[Any]) -> Any:
    """Return the model with one more layer after each layer whose id is in `following`, without the dropped layers.

    An inner model is rebuilt only where it contains one of these; another inner model is shared. A model of a class
    with its own constructor, such as a backbone of KerasHub, becomes a plain functional model.
    """
    return _Rebuild(following, _ids(dropped)).model(model)


class _Rebuild:
    def __init__(self, following: Mapping[int, Any], dropped: set[int]):
        self.following, self.dropped = following, dropped
        self.done: dict[int, Any] = {}
        self.twins: dict[int, Any] = {}

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
        if is_graph(layer):
            return self.model(layer)
        if isinstance(layer, keras.layers.Layer) and id(layer) not in self.twins:
            self.twins[id(layer)] = _twin(layer)
        return self.twins.get(id(layer), layer)

    def _after(self, layer: Any) -> list[Any]:
        return [self.following[id(layer)]] if id(layer) in self.following else []


def _twin(layer: Any) -> Any:
    """Return another object for a built layer, which shares its weights, its state and the layers inside it.

    It has no nodes yet: it was never called. Keras's own copies, by `copy` or by the config, would copy the weights.
    """
    twin = object.__new__(type(layer))
    vars(twin).update(vars(layer))
    vars(twin).update(_inbound_nodes=[], _outbound_nodes=[])
    for name in _REPLACES_WEIGHTS:
        if hasattr(layer, name):
            vars(twin)[name] = partial(_refuse, name)
    return twin


def _refuse(name: str, *args: Any, **kwargs: Any) -> None:
    """Raise UsageError: the layer's own method would replace the weights of one of two models that share them."""
    raise UsageError(
        expected=f"a model whose layers share their weights with no other model, for {name}",
        received="a model that shares them with the host that attention was attached to",
        do="save the model and load it again: its layers are then its own",
    )


def _own_constructor(model: Any) -> bool:
    return not type(model).__init__.__module__.startswith("keras.")


def _own_steps(model: Any) -> list[str]:
    """Return the steps of training that the class of a model overrides, which a plain model would lose."""
    steps = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")
    return [step for step in steps if not getattr(type(model), step).__module__.startswith("keras.")]


def _ids(layers: Collection[Any]) -> set[int]:
    return {id(layer) for layer in layers}


def _holds(model: Any, ids: Collection[int]) -> bool:
    return any(id(layer) in ids or _holds(layer, ids) for layer in getattr(model, "layers", ()))

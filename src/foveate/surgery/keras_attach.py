"""Attaching attention to functional and Sequential Keras models: a new graph over the same layers, and the way back."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import keras

from foveate import cost, mechanisms
from foveate.bind.keras import Attention, attention
from foveate.errors import UsageError
from foveate.spec import Mechanism, Start
from foveate.surgery.keras_graph import Graph, graph_of, is_graph, read
from foveate.surgery.plans import Plan, Site, describe
from foveate.surgery.presets import PRESETS
from foveate.surgery.record import Call, Record

SUFFIX = "_foveate_attention"  # of the name of an attached layer, after its site's
Predicate: TypeAlias = Callable[[str, Any, tuple[int, ...]], bool]
Where: TypeAlias = "str | type[Any] | Predicate | Sequence[Where]"


def plan(
    model: Any,
    mechanism: str | Mechanism | type[Any],
    where: Where = "residual",
    *,
    example: Any = None,
    start: Start = "identity",
    **options: Any,
) -> Plan:
    """Return where `attach` would put attention in the model, and at what cost. Changes nothing; arguments and errors as there."""
    return _prepare(model, mechanism, where, example, start, options)[0]


def attach(
    model: Any,
    mechanism: str | Mechanism | type[Any],
    where: Where = "residual",
    *,
    example: Any = None,
    start: Start = "identity",
    **options: Any,
) -> Any:
    """Return a new model that shares the layers and weights of a functional or Sequential one, with attention after each chosen layer.

    Args:
        model: the host, which stays as it is; training one trains the other. Models inside it are rewritten likewise.
        mechanism: a name ("cbam"), a `Mechanism`, its class, or a class of `foveate.keras`.
        where: "residual" (the branch that enters each residual addition), "stage" (the end of each run of layers of one
            resolution), a pattern of layer names such as "conv[45]_*_3_bn" or "resnet50/*_3_bn", a layer type, a predicate
            `(name, layer, shape (N, C, H, W)) -> bool`, or a list.
        example: the shape of the input where the model leaves it open, such as (1, 224, 224, 3).
        start: "identity" leaves the output equal at first; "paper" is the published behaviour.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: a model that cannot be rewritten (subclassed), or whatever else cannot work.
    """
    _, after = _prepare(model, mechanism, where, example, start, options)
    return rebuilt(model, after)


def detach(model: Any) -> Any:
    """Return a model without the attached attention, which shares the layers of this one; the model itself where it has none."""
    return rebuilt(model, None) if attached(model) else model


def attached(model: Any) -> dict[str, Attention]:
    """Return the attached attention of a model, by the path of its site."""
    return dict(_attached(model, ""))


def choose(record: Record, layers: Mapping[str, Any], where: Where) -> list[Call]:
    """Return the first call of every chosen site, in the order of the graph. Raises UsageError."""
    calls = {call.name: call for call in reversed(record.calls)}
    names = set(_select(record, layers, where))
    chosen = [call for name, call in reversed(calls.items()) if name in names]
    for call in chosen:
        shapes = [again.shape for again in record.calls if again.name == call.name]
        if any(shape is None or len(shape) != 4 for shape in shapes) or len({shape[1] for shape in shapes if shape}) != 1:
            raise UsageError(
                expected=f"the output of {call.name!r} as one feature map of one number of channels",
                received=", ".join("several tensors" if shape is None else f"the shape {shape}" for shape in shapes),
                do="choose a layer that outputs a feature map",
            )
    return chosen


def make_layers(model: Any, graph: Graph, calls: Sequence[Call], of: Callable[[Call], tuple[Mechanism, Start]]) -> dict[str, Attention]:
    """Return new attention for each call's layer, in its data format and precision. Raises UsageError for a site that has some."""
    taken = attached(model)
    made = {}
    for call in calls:
        name = call.name.removesuffix(SUFFIX)
        if name in taken:
            raise UsageError(
                expected="a site without attention",
                received=f"{name!r}, which has a {type(taken[name]).__name__} attached",
                do="detach(model) first, or choose other sites",
            )
        mechanism, start = of(call)
        common = {"name": name.rpartition("/")[2] + SUFFIX, "dtype": graph.layers[call.name].dtype_policy}
        made[call.name] = attention(mechanism, start=start, data_format=graph.formats[call.name], **common)
    return made


def rebuilt(model: Any, after: Mapping[str, Any] | None) -> Any:
    """Return a new graph over the same layers, with a layer more after each path in `after`, or without the attached ones for None."""
    return _rebuilt(model, after, "", {})


def _attached(model: Any, prefix: str) -> Any:
    for layer in getattr(model, "layers", ()):
        if _is_attached(layer):
            yield prefix + layer.name.removesuffix(SUFFIX), layer
        elif is_graph(layer):
            yield from _attached(layer, f"{prefix}{layer.name}/")


def _is_attached(layer: Any) -> bool:
    return isinstance(layer, Attention) and layer.name.endswith(SUFFIX)


def _prepare(model: Any, mechanism: Any, where: Where, example: Any, start: Start, options: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """Choose the sites and build their attention beside the model. Raises UsageError."""
    bound = _bound(mechanism, options)
    graph = read(model, example)
    chosen = choose(graph.record, graph.layers, where)
    made = make_layers(model, graph, chosen, lambda call: (bound, start))
    sites = [Site(call.name, call.shape or (), cost.measure(bound, call.shape or (), start=start)) for call in chosen]
    return Plan(bound.name, bound.options(), start, describe(where), model.count_params(), sites), made


def _bound(mechanism: Any, options: dict[str, Any]) -> Mechanism:
    if isinstance(mechanism, type) and issubclass(mechanism, Attention):
        mechanism = mechanism.kind
    bound = mechanisms.resolve(mechanism, **options)
    if bound is None:
        raise UsageError(
            expected="a mechanism's name, a Mechanism, or a class of foveate.keras",
            received=repr(mechanism),
            do=f"use one of {', '.join(mechanisms.names())}",
        )
    return bound


def _select(record: Record, layers: Mapping[str, Any], where: Any) -> list[str]:
    maps = [call for call in record.calls if call.shape is not None and len(call.shape) == 4]
    if isinstance(where, str):
        found = PRESETS[where](record) if where in PRESETS else [name for name in layers if _matches(where, name)]
    elif isinstance(where, type):
        found = [name for name, layer in layers.items() if isinstance(layer, where)]
    elif isinstance(where, Sequence) and where:
        found = [name for each in where for name in _select(record, layers, each)]
    elif callable(where):
        found = [call.name for call in maps if where(call.name, layers[call.name], call.shape)]
    else:
        do = f"use one of {', '.join(map(repr, PRESETS))}, or a name pattern"
        raise UsageError(expected="where as a preset, a name pattern, a layer type, a predicate, or a list", received=repr(where), do=do)
    if not found:
        raise UsageError(
            expected="where to choose at least one layer",
            received=f"{describe(where)!r}, which chooses none",
            do=_other_ways(record, maps, where),
        )
    return found


def _other_ways(record: Record, maps: Sequence[Call], where: Any) -> str:
    """Say what would choose something, the nearest names first."""
    names = list(dict.fromkeys(call.name for call in maps))
    others = [preset for preset in PRESETS if preset != where and PRESETS[preset](record)]
    close = difflib.get_close_matches(where, names, 3, cutoff=0.4) if isinstance(where, str) else []
    if not names:
        return "use a model with feature maps (N, H, W, C)"
    layers = f"name layers, such as {', '.join(map(repr, close or names[-3:]))}"
    return " or ".join([*(f"use where={preset!r}" for preset in others), layers])


def _matches(pattern: str, name: str) -> bool:
    """Whether a name of the model itself, or a path into models inside it, fits; `*` stays within one name, as in `resnet50/*_bn`."""
    wanted, parts = pattern.split("/"), name.split("/")
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))


def _rebuilt(model: Any, after: Mapping[str, Any] | None, prefix: str, done: dict[int, Any]) -> Any:
    """Rebuild a model, or one inside it whose path is the prefix; `done` are those that were met before."""
    if id(model) in done:
        return done[id(model)]
    if not type(model).__init__.__module__.startswith("keras."):
        raise UsageError(
            expected="functional and Sequential models",
            received=f"{prefix or 'a model'}: a {type(model).__name__} with a constructor of its own",
            do="attach to the functional model inside it, or use the layer by hand",
        )
    inner = {id(layer): _rebuilt(layer, after, f"{prefix}{layer.name}/", done) for layer in model.layers if is_graph(layer)}

    def drops(layer: Any) -> bool:
        return after is None and _is_attached(layer)

    def following(layer: Any) -> list[Any]:
        path = f"{prefix}{layer.name}"
        return [after[path]] if after and path in after else []

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        y = args[0] if drops(layer) else layer(*args, **kwargs)
        for extra in following(layer):
            y = extra(y)
        return y

    if isinstance(model, keras.Sequential):
        kept = [layer for layer in model.layers if not drops(layer)]
        layers = [each for layer in kept for each in (inner.get(id(layer), layer), *following(layer))]
        first = graph_of(model).inputs[0]
        given = keras.Input(batch_shape=first.shape, dtype=first.dtype, name=first.name)
        new = keras.Sequential([given, *layers], name=model.name)
        if model.compiled:
            new.compile_from_config(model.get_compile_config())
    else:
        new = keras.models.clone_model(model, clone_function=lambda layer: inner.get(id(layer), layer), call_function=call)
    done[id(model)] = new
    return new

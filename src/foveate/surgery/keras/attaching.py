"""Attaching attention to functional and Sequential Keras models: a new graph over the same layers, and the way back."""

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import keras

from foveate import cost, mechanisms
from foveate.bind.keras import Attention, attention
from foveate.cost import Cost
from foveate.errors import ReductionWarning, UsageError
from foveate.spec import Mechanism, Start
from foveate.surgery.core.plans import Plan, Site, describe
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call
from foveate.surgery.keras.graph import Graph, every_path, paths, read
from foveate.surgery.keras.rebuild import check, rebuilt

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
    state = random.getstate()  # the first weights are drawn from it
    try:
        return _prepare(model, mechanism, where, example, start, options)[0]
    finally:
        random.setstate(state)


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
        model: the host, which stays as it is; training one trains the other. Models inside it that hold a site are
            rewritten likewise; a layer that models share has one attention wherever it runs.
        mechanism: a name ("cbam"), a `Mechanism`, its class, or a class of `foveate.keras`.
        where: "residual" (the branch that enters each residual addition), "stage" (the end of each run of layers of one
            resolution), a pattern of layer names such as "conv[45]_*_3_bn", "resnet50/*_3_bn" or "**/*_bn", a layer type, a
            predicate `(name, layer, shape (N, C, H, W)) -> bool`, or a list.
        example: the shape of the input where the model leaves it open, such as (1, 224, 224, 3).
        start: "identity" leaves the output equal at first; "paper" is the published behaviour.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: a model that cannot be rewritten (subclassed), or whatever else cannot work; the host is then as it was.
    """
    _, graph, made = _prepare(model, mechanism, where, example, start, options)
    return insert(model, graph, made)


def detach(model: Any) -> Any:
    """Return a model without the attached attention, which shares the layers of this one; the model itself where it has none."""
    found = attached(model).values()
    check(model, found)
    return rebuilt(model, {}, found) if found else model


def attached(model: Any) -> dict[str, Attention]:
    """Return the attached attention of a model, by the path of its site."""
    names = paths(model)
    layers = (layer for _, layer in every_path(model) if isinstance(layer, Attention) and layer.name.endswith(SUFFIX))
    return {names[id(layer)].removesuffix(SUFFIX): layer for layer in layers}


def choose(graph: Graph, where: Where) -> list[Call]:
    """Return the first call of every chosen site, in the order in which they run. Raises UsageError."""
    selector = Selector(graph.trace, graph.layers, keras.layers.Layer, "layer", "/", aliases=graph.paths)
    calls = {call.name: call for call in reversed(graph.trace.calls)}
    names = set(selector.select(where))
    for name in names:
        selector.check_maps(name, [call for call in graph.trace.calls if call.name == name])
    return [call for name, call in reversed(calls.items()) if name in names]


def make_layers(model: Any, graph: Graph, calls: Sequence[Call], of: Callable[[Call], tuple[Mechanism, Start]]) -> dict[str, Attention]:
    """Return new, built attention for each call's layer, in its data format and precision. Raises UsageError, the model untouched."""
    taken = attached(model)
    for call in calls:
        _check_free(call.name, graph, taken)
    check(model, [graph.layers[call.name] for call in calls])
    return {call.name: _make(call, graph, *of(call)) for call in calls}


def insert(model: Any, graph: Graph, made: Mapping[str, Attention]) -> Any:
    """Return the model with the attention that was made for it after each of its sites."""
    new = rebuilt(model, {id(graph.layers[path]): layer for path, layer in made.items()}, ())
    wanted, got = attached(model).keys() | made.keys(), attached(new).keys()
    if got != wanted:
        raise UsageError(
            expected=f"attention after {', '.join(sorted(wanted))}",
            received=f"a model with attention after {', '.join(sorted(got)) or 'none'}",
            do="choose other sites, and report the model: the plan should have refused it",
        )
    return new


def _prepare(
    model: Any, mechanism: Any, where: Where, example: Any, start: Start, options: dict[str, Any]
) -> tuple[Plan, Graph, dict[str, Attention]]:
    """Choose the sites and build their attention beside the model. Raises UsageError."""
    bound = _bound(mechanism, options)
    graph = read(model, example)
    chosen = choose(graph, where)
    made = make_layers(model, graph, chosen, lambda call: (bound, start))
    sites = [Site(call.name, call.shape or (), _cost(bound, start, call.name, graph)) for call in chosen]
    return Plan(bound.name, bound.options(), start, describe(where), _count_host(model), sites), graph, made


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


def _check_free(site: str, graph: Graph, taken: Mapping[str, Attention]) -> None:
    """Raise UsageError where a site has attention, or a layer has the name that its attention would get."""
    name = site.removesuffix(SUFFIX)
    if name in taken:
        raise UsageError(
            expected="a site without attention",
            received=f"{name!r}, which has a {type(taken[name]).__name__} attached",
            do="detach(model) first, or choose other sites",
        )
    for path, known in graph.paths.items():
        if known == site and path + SUFFIX in graph.paths:
            raise UsageError(
                expected=f"a model where no layer is called {path + SUFFIX!r}, as the attention of {site!r} will be",
                received="a model with one that is no attached attention",
                do="give that layer another name, or choose other sites",
            )


def _make(call: Call, graph: Graph, mechanism: Mechanism, start: Start) -> Attention:
    """Return built attention for a site. Raises UsageError where it is not known where the channels are, or they would change."""
    if call.name not in graph.formats:
        raise UsageError(
            expected=f"a site whose channels are the second or the last axis, {call.name!r}",
            received=f"the shape {call.shape}, made by a reshape or the like, and no layer that tells",
            do="choose a layer before or after it that has a data format, such as a convolution",
        )
    data_format = graph.formats[call.name]
    common = {"name": call.name.rpartition("/")[2] + SUFFIX, "dtype": graph.layers[call.name].dtype_policy}
    layer = attention(mechanism, start=start, data_format=data_format, **common)
    channels = (call.shape or (0, 0))[1]
    shape = (None, None, None, channels) if data_format == "channels_last" else (None, channels, None, None)
    layer.build(shape)
    with warnings.catch_warnings(action="ignore", category=ReductionWarning):  # given once, when the layer was built
        output = layer.compute_output_shape(shape)
    if output != shape:
        raise UsageError(
            expected=f"attention that keeps the {channels} channels of {call.name!r}",
            received=f"{type(layer).__name__}, which gives {output[shape.index(channels)]}",
            do="use options that keep the channels, such as out_channels=None",
        )
    return layer


def _cost(mechanism: Mechanism, start: Start, site: str, graph: Graph) -> Cost:
    """Return the cost of all calls of a site in one run, which share their weights."""
    with warnings.catch_warnings(action="ignore", category=ReductionWarning):
        shapes = [call.shape or () for call in graph.trace.calls if call.name == site]
        costs = [cost.measure(mechanism, shape, start=start) for shape in shapes]
    return replace(sum(costs, Cost()), parameters=costs[0].parameters)


def _count_host(model: Any) -> int:
    """Count the weights of a model without its attention, trained or frozen; the statistics of norms are none."""
    ours = {id(weight) for layer in attached(model).values() for weight in layer.weights}
    found = {id(weight): weight for layer in model._flatten_layers() for weight in layer._trainable_variables}
    return sum(math.prod(weight.shape) for key, weight in found.items() if key not in ours)

"""Read a functional Keras model as a trace of values and calls, without running it or calling a layer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from foveate.bind.keras.parts import DataFormat
from foveate.errors import UsageError
from foveate.surgery.core.trace import Call, Trace, Value
from foveate.surgery.keras.example import Shape, shapes
from foveate.surgery.keras.layouts import AXES, Layouts

CONVOLUTIONS = tuple(
    getattr(keras.layers, name)
    for name in (
        "Conv2D",
        "DepthwiseConv2D",
        "SeparableConv2D",
        "Conv2DTranspose",
        "Conv1D",
        "DepthwiseConv1D",
        "SeparableConv1D",
        "Dense",
    )
)
LAYERS = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU")
OPERATIONS = (
    *(
        "Relu",
        "Relu6",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Gelu",
        "Silu",
        "HardSilu",
        "Sigmoid",
        "HardSigmoid",
        "LogSigmoid",
        "Tanh",
    ),
    *("HardTanh", "TanhShrink", "SoftShrink", "HardShrink", "Softplus", "Softsign", "Squareplus", "Threshold", "Clip"),
)
# The presets' names of operations, by class name: the class of a layer, or of an operation such as x + y.
NAMES = {
    # CustomScaleLayer of InceptionResNet adds one input, scaled, to the other.
    **dict.fromkeys(("Add", "CustomScaleLayer"), "add"),
    **dict.fromkeys(("Multiply", "LayerScale", "Rescaling"), "mul"),
    **dict.fromkeys(("Divide", "TrueDivide", "DivideNoNan"), "div"),
    **dict.fromkeys(("Negative",), "neg"),
    **dict.fromkeys(("Cast", "SaturateCast", "Copy", "StopGradient"), "copy"),
    **dict.fromkeys((*LAYERS, *OPERATIONS), "relu"),
    **dict.fromkeys(("UpSampling2D", "Resizing", "Resize"), "upsample"),
    **dict.fromkeys(("GetItem", "Slice", "Split"), "slice"),
}
# Layers that return their input outside training; as in torch, the layer before them is the site.
PASSING = {
    "Identity",
    "Dropout",
    "SpatialDropout2D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "StochasticDepth",
}


@dataclass(frozen=True)
class Graph:
    """The trace of a model, with shapes (N, C, H, W), and its layers by path, "model/layer".

    `formats` are the data formats of the layers that make maps, where they are known. A layer that several models share
    has several paths; `paths` maps each of them to the main one.
    """

    trace: Trace
    layers: Mapping[str, Any]
    formats: Mapping[str, DataFormat]
    paths: Mapping[str, str]


def is_graph(layer: Any) -> bool:
    """Return whether a layer is a functional or Sequential model with known inputs, so that its graph is known."""
    return graph_of(layer) is not None


def graph_of(model: Any) -> Any:
    """Return the functional graph that a model runs, None where it has none or overrides `call`."""
    graph = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return (
        graph
        if hasattr(graph, "_run_through_graph") and getattr(graph, "inputs", None) and not _own_call(model)
        else None
    )


def every_path(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every layer of a model and of its inner graphs with its path; a shared layer comes once for each path."""
    for layer in getattr(model, "layers", ()):
        yield f"{prefix}{layer.name}", layer
        if is_graph(layer):
            yield from every_path(layer, f"{prefix}{layer.name}/")


def paths(model: Any) -> dict[int, str]:
    """Return the main path of each layer, by its id: the shortest, and of these the first in alphabetical order."""
    found: dict[int, str] = {}
    for path, layer in every_path(model):
        found[id(layer)] = min(found.get(id(layer), path), path, key=lambda path: (path.count("/"), path))
    return found


def read(model: Any, example: Any = None) -> Graph:
    """Read the graph of a model without running it.

    `example` is the shape of the input, such as (1, 224, 224, 3), or a list or a dict of shapes; an open batch size
    becomes 1, an open height or width 224. Raises UsageError for a model without a known graph, and for an example that
    does not fit.
    """
    graph = graph_of(model)
    if graph is None:
        why = (
            ("with its own call method" if _own_call(model) else "")
            if isinstance(model, keras.Model)
            else "which is not a model"
        )
        raise UsageError(
            expected="a functional or Sequential Keras model with known inputs",
            received=", ".join(filter(None, (f"a {type(model).__name__}", why))),
            do="call the layer in the model's own call method: y = foveate.keras.CBAM(start='identity')(y)",
        )
    reader = _Reader(paths(model))
    sizes = shapes(graph._inputs_struct, example)
    inputs = [reader.given(tensor.dtype, shape) for tensor, shape in zip(graph.inputs, sizes, strict=True)]
    outputs = reader.run(model, keras.tree.pack_sequence_as(graph._inputs_struct, inputs))
    found = [reader.index[id(tensor)] for tensor in keras.tree.flatten(outputs)]
    trace, layers, formats = reader.finish(inputs, found)
    return Graph(trace, layers, formats, {path: reader.paths[id(layer)] for path, layer in every_path(model)})


@dataclass(frozen=True)
class _Made:
    op: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    learns: bool


class _Reader:
    """Follow a graph and build its trace at the end, when the channel axes of all values are known."""

    def __init__(self, paths: Mapping[int, str]) -> None:
        self.paths, self.index = paths, dict[int, int]()
        self._made: list[_Made] = []
        self._noted: list[tuple[Any, int | None, int, int]] = []  # layer, output, and first and last value made inside
        self._layouts = Layouts()
        self._alive: list[Any] = []  # keeps tensors alive, so that no id is reused

    def given(self, dtype: Any, shape: Shape) -> Any:
        tensor = keras.KerasTensor(shape, dtype=dtype)
        self._layouts.give(self._make(tensor, "input", (), False))
        return tensor

    def run(self, model: Any, inputs: Any) -> Any:
        return graph_of(model)._run_through_graph(
            inputs, call_fn=lambda op, *args, **kwargs: self._call(op, args, kwargs)
        )

    def finish(self, inputs: list[Any], outputs: list[int]) -> tuple[Trace, dict[str, Any], dict[str, DataFormat]]:
        axes, values = self._layouts.axes(), list[Value]()
        for index, made in enumerate(self._made):
            depth = max((values[parent].depth for parent in made.parents), default=0) + made.learns
            ancestors = 0
            for parent in made.parents:
                ancestors |= values[parent].ancestors | 1 << parent
            shape, axis = _as_nchw(made.shape, axes.get(index))
            values.append(Value(made.op, made.parents, shape, depth, ancestors, axis))
        calls = [self._as_call(values, *noted) for noted in self._noted]
        by_axis: dict[int | None, Any] = {axis: data_format for data_format, axis in AXES.items()}
        layers = {self.paths[id(layer)]: layer for layer, *_ in self._noted}
        formats = {
            self.paths[id(layer)]: by_axis.get(axes.get(index)) for layer, index, *_ in self._noted if index is not None
        }
        return (
            Trace(inputs, values, calls, outputs),
            layers,
            {path: data_format for path, data_format in formats.items() if data_format},
        )

    def _call(self, op: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        first = len(self._made)
        if is_graph(op):
            outputs = self.run(op, args[0] if args else kwargs["inputs"])
        else:
            outputs = op.compute_output_spec(*args, **kwargs)
            parents = tuple(
                self.index[id(leaf)] for leaf in keras.tree.flatten((args, dict(kwargs))) if id(leaf) in self.index
            )
            maps = [parent for parent in parents if len(self._made[parent].shape) == 4]
            for tensor in keras.tree.flatten(outputs):
                if _passes(op) and len(parents) == 1:
                    self._alive.append(tensor)
                    self.index[id(tensor)] = parents[0]
                else:
                    value = self._make(tensor, _name(op), parents, isinstance(op, CONVOLUTIONS))
                    self._layouts.make(op, maps, value if len(tensor.shape) == 4 else None)
        if isinstance(op, keras.layers.Layer):
            index = self.index[id(outputs)] if isinstance(outputs, keras.KerasTensor) else None
            self._noted.append((op, index, first, len(self._made)))
        return outputs

    def _make(self, tensor: Any, op: str, parents: tuple[int, ...], learns: bool) -> int:
        self.index[id(tensor)] = len(self._made)
        self._alive.append(tensor)
        self._made.append(_Made(op, parents, tuple(tensor.shape), learns))
        return len(self._made) - 1

    def _as_call(self, values: Sequence[Value], layer: Any, index: int | None, first: int, end: int) -> Call:
        shape = None if index is None else values[index].shape
        learnt = [values[place].shape for place in range(first, end) if self._made[place].learns]
        squeezes = shape is None or shape[2:] != (1, 1)
        convolutions = sum(not (squeezes and inside[2:] == (1, 1)) for inside in learnt)
        through = index is not None and index < first
        name = self.paths[id(layer)]
        kind = {"kind": type(layer), "parent": is_graph(layer), "dtype": layer.dtype_policy}
        return Call(name, index, shape, through, convolutions, first=first, **kind)


def _own_call(model: Any) -> bool:
    """Return whether the class of a model overrides Keras's `call`."""
    found = (getattr(type(model), name, None) for name in ("__call__", "call", "compute_output_spec"))
    return not all(getattr(method, "__module__", "keras.").startswith("keras.") for method in found)


def _name(op: Any) -> str:
    kind = type(op).__name__
    return NAMES.get(kind, kind.lower())


def _passes(op: Any) -> bool:
    idle = isinstance(op, keras.layers.Activation) and op.activation is keras.activations.linear
    return idle or type(op).__name__ in PASSING


def _as_nchw(shape: tuple[int, ...], axis: int | None) -> tuple[tuple[int, ...], int | None]:
    """Return a shape as (N, C, H, W) with its channel axis; unchanged for another or an unknown channel axis."""
    if len(shape) != 4 or axis not in AXES.values():
        return shape, axis
    return ((shape[0], shape[3], shape[1], shape[2]) if axis == 3 else shape), 1

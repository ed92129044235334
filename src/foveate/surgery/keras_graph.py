"""A functional Keras model as the values and calls that the presets read. Nothing runs, and no layer notes a call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from foveate.bind.keras_ops import DataFormat
from foveate.errors import UsageError
from foveate.surgery.record import Call, Record, Value

Shape = tuple[int | None, ...]
SIZE = 224  # of a height or width that the model leaves open
CONVOLUTIONS = tuple(
    getattr(keras.layers, name)
    for name in ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Conv1D", "DepthwiseConv1D", "SeparableConv1D", "Dense")
)
# Operations under the names that the presets know, by class name: a layer's, or that of an operation such as x + y.
NAMES = {
    **dict.fromkeys(("Add", "CustomScaleLayer"), "add"),  # the second, of InceptionResNet, adds one input to the other, scaled
    **dict.fromkeys(("Multiply", "LayerScale", "Rescaling"), "mul"),
    **dict.fromkeys(("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Relu", "Relu6", "Silu", "HardSilu", "Gelu", "Sigmoid"), "relu"),
    **dict.fromkeys(("UpSampling2D", "Resizing"), "upsample"),
    **dict.fromkeys(("GetItem", "Slice", "Split"), "slice"),
}
# What hands its input on outside training, so that its site would be the layer before it, as in torch.
PASSING = {"Identity", "Dropout", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "StochasticDepth"}


@dataclass(frozen=True)
class Graph:
    """A model's record, whose shapes are (N, C, H, W); its layers by path, "model/layer"; the data formats of those that make maps."""

    record: Record
    layers: Mapping[str, Any]
    formats: Mapping[str, DataFormat]


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model whose layers and connections are known: functional or Sequential, with known inputs."""
    return graph_of(layer) is not None


def graph_of(model: Any) -> Any:
    """Return the functional graph of a model, None where it has none."""
    graph = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return graph if hasattr(graph, "_run_through_graph") and getattr(graph, "inputs", None) else None


def read(model: Any, example: Any = None) -> Graph:
    """Return what there is to know of a model without running it.

    `example` is the shape of the input (1, 224, 224, 3), or a list of shapes; what it leaves open is taken as 1 sample and 224 pixels.
    Raises UsageError for a model that is no graph.
    """
    graph = graph_of(model)
    if graph is None:
        raise UsageError(
            expected="a functional or Sequential Keras model with known inputs",
            received=f"a {type(model).__name__}" + ("" if isinstance(model, keras.Model) else ", which is no model"),
            do="use the layer by hand in the model's call: y = foveate.keras.CBAM(start='identity')(y)",
        )
    reader = _Reader()
    inputs = [reader.given(tensor.dtype, shape) for tensor, shape in zip(graph.inputs, _shapes(graph, example), strict=True)]
    outputs = reader.run(model, keras.tree.pack_sequence_as(graph._inputs_struct, inputs), "")
    found = [reader.index[id(tensor)] for tensor in keras.tree.flatten(outputs)]
    return Graph(Record(inputs, reader.values, reader.calls, found), reader.layers, reader.formats)


class _Reader:
    def __init__(self) -> None:
        self.values: list[Value] = []
        self.calls: list[Call] = []
        self.layers: dict[str, Any] = {}
        self.formats: dict[str, DataFormat] = {}
        self.index: dict[int, int] = {}
        self._laid: list[DataFormat] = []  # how each value is laid out, as far as the layers before it tell
        self._alive: list[Any] = []  # so that no id is used twice

    def given(self, dtype: Any, shape: Shape) -> Any:
        tensor = keras.KerasTensor(shape, dtype=dtype)
        self._make(tensor, "input", (), False, _usual())
        return tensor

    def run(self, model: Any, inputs: Any, prefix: str) -> Any:
        return graph_of(model)._run_through_graph(inputs, call_fn=lambda op, *args, **kwargs: self._call(op, prefix, args, kwargs))

    def _call(self, op: Any, prefix: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        path, first = f"{prefix}{op.name}", len(self.values)
        if is_graph(op):
            outputs = self.run(op, args[0], f"{path}/")
        else:
            outputs = op.compute_output_spec(*args, **kwargs)
            parents = tuple(self.index[id(leaf)] for leaf in keras.tree.flatten((args, dict(kwargs))) if id(leaf) in self.index)
            laid = self._layout(op, parents)
            for tensor in keras.tree.flatten(outputs):
                if _passes(op) and len(parents) == 1:
                    self._alive.append(tensor)
                    self.index[id(tensor)] = parents[0]
                else:
                    self._make(tensor, _name(op), parents, isinstance(op, CONVOLUTIONS), laid)
        if isinstance(op, keras.layers.Layer):
            self._note(op, path, outputs, first)
        return outputs

    def _layout(self, op: Any, parents: Sequence[int]) -> DataFormat:
        """Return how an operation lays its output out: as it says itself, else as its inputs are."""
        match getattr(op, "data_format", None):
            case "channels_last" | "channels_first" as own:
                return own
        maps = [parent for parent in parents if len(self.values[parent].shape) == 4]
        laid = self._laid[maps[0]] if maps else _usual()
        if isinstance(op, keras.layers.Permute) and len(op.dims) == 3:
            place = op.dims.index(3 if laid == "channels_last" else 1)
            return "channels_first" if place == 0 else "channels_last" if place == 2 else laid
        return laid

    def _make(self, tensor: Any, op: str, parents: tuple[int, ...], learns: bool, laid: DataFormat) -> None:
        depth = max((self.values[parent].depth for parent in parents), default=0) + learns
        ancestors = 0
        for parent in parents:
            ancestors |= self.values[parent].ancestors | 1 << parent
        self.index[id(tensor)] = len(self.values)
        self._alive.append(tensor)
        self._laid.append(laid)
        shape = _as_nchw(tuple(tensor.shape), laid)
        self.values.append(Value(op, parents, shape, depth, ancestors, 1 if len(shape) == 4 else None))

    def _note(self, layer: Any, path: str, outputs: Any, first: int) -> None:
        self.layers[path] = layer
        inside = [value for value in self.values[first:] if value.parents]
        convolutions = max((value.depth for value in inside), default=0) - min((value.depth for value in inside), default=0)
        one = outputs if isinstance(outputs, keras.KerasTensor) else None
        index = None if one is None else self.index[id(one)]
        shape = None if index is None else self.values[index].shape
        if index is not None and shape is not None and len(shape) == 4:
            self.formats[path] = self._laid[index]
        through = index is not None and index < first
        self.calls.append(Call(path, index, shape, through, convolutions, type(layer), parent=is_graph(layer), dtype=layer.dtype_policy))


def _name(op: Any) -> str:
    kind = type(op).__name__
    return NAMES.get(kind, kind.lower())


def _usual() -> DataFormat:
    return "channels_last" if keras.config.image_data_format() == "channels_last" else "channels_first"


def _passes(op: Any) -> bool:
    idle = isinstance(op, keras.layers.Activation) and op.activation is keras.activations.linear
    return idle or type(op).__name__ in PASSING


def _as_nchw(shape: tuple[int, ...], laid: DataFormat) -> tuple[int, ...]:
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 and laid == "channels_last" else shape


def _shapes(graph: Any, example: Any) -> list[Shape]:
    """Return a whole shape for every input. Raises UsageError for an example that does not fit."""
    shapes = [tuple(tensor.shape) for tensor in graph.inputs]
    if example is None:
        given = shapes
    else:
        given = [tuple(one) for one in ([example] if all(isinstance(size, int) for size in example) else example)]
    fits = len(given) == len(shapes) and all(map(_fits, given, shapes))
    if not fits:
        raise UsageError(
            expected=f"example as the shape of the input, {', '.join(map(str, shapes))}",
            received=repr(example),
            do="pass a shape such as (1, 224, 224, 3), or leave it out",
        )
    return [tuple((1 if axis == 0 else SIZE) if size is None else size for axis, size in enumerate(shape)) for shape in given]


def _fits(given: Shape, shape: Shape) -> bool:
    return len(given) == len(shape) and all(b is None or a is None or a == b for a, b in zip(given, shape, strict=True))

"""The arguments of the two operations after x, with their schemas, gate shapes, kept values and multiply-adds."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, get_type_hints

import torch
from torch import Tensor

Shape = Sequence[int]

_AROUND = "int before, float before_slope, Tensor? shortcut, int activation, float slope"
AROUND = len(_AROUND.split(","))
"""How many arguments of a finishing form are between x and those of its operation."""

PREPARED_SCHEMA = (
    "foveate::prepared_(Tensor(a!) x, int number, Tensor? shortcut=None, int activation=0, float slope=0., "
    "int before=0, float before_slope=0.) -> bool"
)

_TYPES: dict[Any, str] = {Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool", float: "float"}


class ChannelSpatial(NamedTuple):
    """x * channel gate * spatial gate, each scale * sigmoid(logits), or with `hard` the channels' hard sigmoid.

    With `greater` it is the greater of x * channel gate and x * spatial gate, and `conv` a layer over the channels.
    With `full` it is x times SimAM's gate for each value, from the mean and the deviation of the channel.

    The logits of the channels are those of two layers, of `expand` alone (eSE), of a convolution along the channels,
    `reduce` alone (ECA), of GCT's competition where the pools are Euclidean norms, or of SRM's layer and norm where one
    pool is the deviation. Each gate may be absent. The arguments of the spatial gate, and rare ones, have defaults,
    because every argument passed through torch costs time.
    """

    reduce: Tensor | None
    reduce_bias: Tensor | None
    expand: Tensor | None
    expand_bias: Tensor | None
    average: bool
    maximum: bool
    scale: float
    hard: bool = False
    conv: Tensor | None = None
    conv_bias: Tensor | None = None
    norm_weight: Tensor | None = None
    norm_bias: Tensor | None = None
    norm_mean: Tensor | None = None
    norm_var: Tensor | None = None
    eps: float = 0.0
    training: bool = False
    parallel: bool = False
    euclidean: bool = False
    deviation: bool = False
    pool_eps: float = 0.0
    greater: bool = False
    full: bool = False

    def gates(self, x: Tensor) -> tuple[Shape | None, Shape | None]:
        """Return the shapes of the two gates, None for an absent one."""
        n, c, h, w = x.shape
        channel = self.reduce is not None or self.expand is not None
        return (n, c, 1, 1) if channel else None, None if self.conv is None else (n, 1, h, w)

    def kept(self, x: Tensor) -> int:
        """Count the floats that backward needs beside x and the weights."""
        n, c, h, w = x.shape
        spatial = 0 if self.conv is None else n * h * w * (1 if self.greater else 3)
        channel = 0 if self.reduce is self.expand else n * c
        hidden = 0 if self.reduce is None or self.expand is None or self.euclidean else self.reduce.shape[0]
        pools = self.average + self.maximum + self.euclidean + self.deviation
        return spatial + channel + pools * n * (c + hidden)

    def statistics(self) -> int:
        """Count the channels whose batch statistics are returned."""
        return self.norm_weight.numel() if self.training and self.norm_weight is not None else 0

    def scaled(self, x: Tensor, channel: Tensor, spatial: Tensor) -> Tensor:
        """Return x scaled by the gates."""
        if self.greater:
            return torch.maximum(x * channel, x * spatial)
        for gate, shape in zip((channel, spatial), self.gates(x), strict=True):
            x = x if shape is None else x * gate
        return x

    def normed(self, x: Tensor) -> int:
        """Count the values of each channel of the norm."""
        n, _, h, w = x.shape
        return n if self.conv is None else n * h * w

    def macs(self, x: Tensor) -> int:
        """Count the multiply-adds as the plain convolutions have them."""
        n, c, h, w = x.shape
        spatial = 0 if self.conv is None else n * h * w * math.prod(self.conv.shape)
        if self.euclidean:
            return spatial
        if self.reduce is None:
            return spatial + (0 if self.expand is None else n * c * c)
        if self.expand is None:
            return spatial + n * c * (2 if self.deviation else self.reduce.shape[2])
        return (self.average + self.maximum) * 2 * n * c * self.reduce.shape[0] + spatial


class Coordinate(NamedTuple):
    """x * row gate * column gate, each scale * sigmoid(logits), from one squeeze of the row and column means."""

    squeeze: Tensor
    squeeze_bias: Tensor | None
    norm_weight: Tensor
    norm_bias: Tensor
    norm_mean: Tensor | None
    norm_var: Tensor | None
    row: Tensor
    row_bias: Tensor | None
    column: Tensor
    column_bias: Tensor | None
    scale: float
    eps: float
    training: bool
    hardswish: bool

    def gates(self, x: Tensor) -> tuple[Shape | None, Shape | None]:
        """Return the shapes of the two gates."""
        n, c, h, w = x.shape
        return (n, c, h, 1), (n, c, 1, w)

    def kept(self, x: Tensor) -> int:
        """Count the floats that backward needs beside x and the weights."""
        n, _, h, w = x.shape
        return n * self.squeeze.shape[0] * (h + w)

    def statistics(self) -> int:
        """Count the channels whose batch statistics are returned."""
        return self.squeeze.shape[0] if self.training else 0

    def scaled(self, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return x scaled by the gates."""
        return x * row * column

    def normed(self, x: Tensor) -> int:
        """Count the values of each channel of the norm."""
        n, _, h, w = x.shape
        return n * (h + w)

    def macs(self, x: Tensor) -> int:
        """Count the multiply-adds as the plain convolutions have them."""
        n, c, h, w = x.shape
        return 2 * n * c * self.squeeze.shape[0] * (h + w)


def schemas(
    name: str, signature: type[ChannelSpatial | Coordinate], gates: Sequence[str], learnable: Sequence[str]
) -> dict[str, str]:
    """Return the torch schema of each form of an operation, by name; the C++ library must have registered the same."""
    rest = ", ".join(arguments(signature))
    gradients = ", ".join(["Tensor dx", *(f"Tensor d_{weight}" for weight in learnable)])
    forms = {
        name: (f"Tensor x, {rest}", "Tensor y, Tensor kept, Tensor statistics"),
        f"{name}_": (f"Tensor(a!) x, {rest}", ""),
        f"{name}_finish_": (f"Tensor(a!) x, {_AROUND}, {rest}", ""),
        f"{name}_gates": (f"Tensor x, {rest}", ", ".join(f"Tensor {gate}" for gate in gates)),
        f"{name}_prepare": (f"int channels, {rest}", "int number"),
        f"{name}_backward": (f"Tensor dy, Tensor kept, Tensor x, {rest}", gradients),
    }
    return {form: f"foveate::{form}({given}) -> ({returned})" for form, (given, returned) in forms.items()}


def arguments(signature: type[ChannelSpatial | Coordinate]) -> list[str]:
    """Return the arguments after x in the form of a schema, such as "Tensor? conv=None"."""
    defaults = {name: f"={default}" for name, default in signature._field_defaults.items()}
    return [f"{_TYPES[kind]} {name}{defaults.get(name, '')}" for name, kind in get_type_hints(signature).items()]

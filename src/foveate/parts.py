"""The parts of mechanisms, with the names and shapes of their weights, and what every backend makes of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar, assert_never

GateKind = Literal["channel", "spatial", "row", "column", "full"]
Activation = Literal["sigmoid", "hard_sigmoid", "tanh", "linear"]
NormKind = Literal["batch", "layer", "group", "instance"]
Start = Literal["paper", "identity"]
Shape: TypeAlias = tuple[int, ...]
Layer = TypeVar("Layer")
STATISTICS = ("running_mean", "running_var")
NOT_LEARNT = (*STATISTICS, "constant")
ACTIVATIONS: Mapping[Activation, Callable[[float], float]] = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "hard_sigmoid": lambda z: min(max(z + 3, 0), 6) / 6,
    "tanh": math.tanh,
    "linear": lambda z: z,
}


@dataclass(frozen=True)
class Conv:
    """A convolution, (N, inputs, H, W) -> (N, outputs, H, W), by default with "same" zero padding and stride 1.

    `kernel` is the size k, or (kh, kw). "valid" padding adds no zeros. `last` marks, here and below, the last learnable
    layer before a gate or an addition. The identity start sets its weights to 0; `zero` does so at every start.
    """

    inputs: int
    outputs: int
    kernel: int | tuple[int, int] = 1
    bias: bool = True
    last: bool = False
    groups: int = 1
    dilation: int = 1
    stride: int = 1
    padding: Literal["same", "valid"] = "same"
    zero: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The height and width of the kernel."""
        return (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel

    @property
    def pads(self) -> tuple[int, int]:
        """The zeros before the first row and column, as many as after the last."""
        kh, kw = self.size
        return (self.dilation * (kh - 1) // 2, self.dilation * (kw - 1) // 2) if self.padding == "same" else (0, 0)

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the weights by name, here and below those of the torch layer."""
        weight = self.outputs, self.inputs // self.groups, *self.size
        return {"weight": weight, **({"bias": (self.outputs,)} if self.bias else {})}


@dataclass(frozen=True)
class ChannelConv:
    """A convolution along a sequence of channels with "same" zero padding; see `Ops.to_sequence`."""

    kernel: int
    bias: bool = False
    last: bool = False

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the weights by name."""
        return {"weight": (1, 1, self.kernel), **({"bias": (1,)} if self.bias else {})}


@dataclass(frozen=True)
class Norm:
    """A normalisation with a weight and a bias for each channel.

    "batch" normalises over (N, H, W), where in training each channel needs more than one value; "layer" over the
    channels at each position; "group" over the positions and the channels of a group; "instance" over the positions.
    """

    channels: int
    momentum: float = 0.1
    eps: float = 1e-5
    last: bool = False
    kind: NormKind = "batch"
    groups: int = 1
    zero: bool = False

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the weights by name."""
        statistics = STATISTICS if self.kind == "batch" else ()
        return dict.fromkeys(("weight", "bias", *statistics), (self.channels,))


@dataclass(frozen=True)
class Scale:
    """A learnt factor, and with `bias` a summand: one number, or one for each of `size` channels.

    They are `first` and `first_bias` at first.
    """

    size: int = 1
    bias: bool = False
    last: bool = False
    first: float = 1.0
    first_bias: float = 0.0

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the weights by name."""
        return {"weight": (self.size,), **({"bias": (self.size,)} if self.bias else {})}


@dataclass(frozen=True)
class Constant:
    """A factor (C, H, W) that is not learnt, called with a map (N, C, H, W); saved as `constant`."""

    values: tuple[tuple[tuple[float, ...], ...], ...]

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the weights by name."""
        return {"constant": (len(self.values), len(self.values[0]), len(self.values[0][0]))}


@dataclass(frozen=True)
class Gate:
    """A gate, called as `p.gate(x, logits)`: x * scale * (offset + activation(logits)).

    A "full" gate has a value for each channel and position. The scale is 1 in the published gate. With the identity
    start the logits `first`, those of last layers of 0, leave x unchanged (for a sigmoid of 0 the scale is 2), unless
    `published` is set. The recording of gates and the kernels also work on this part.
    """

    kind: GateKind
    published: bool = False
    activation: Activation = "sigmoid"
    offset: float = 0.0
    first: float = 0.0

    @property
    def at_zero(self) -> float:
        """The published gate where the last layers are 0."""
        return self.offset + ACTIVATIONS[self.activation](self.first)

    def scale(self, start: Start) -> float:
        """Return the number that multiplies the gate."""
        return 1 / self.at_zero if start == "identity" and self.at_zero and not self.published else 1.0

    def weights(self) -> dict[str, Shape]:
        """Return no weights."""
        return {}


@dataclass(frozen=True)
class Replace:
    """A replacement, called as `p.replace(x, y)`: returns y, whose height and width are those of x over `stride`.

    With the identity start it returns x + y, where y is 0 before training and must have the shape of x.
    """

    inputs: int
    outputs: int
    stride: int = 1

    def weights(self) -> dict[str, Shape]:
        """Return no weights."""
        return {}


Part: TypeAlias = Conv | ChannelConv | Norm | Scale | Constant | Gate | Replace
Parts: TypeAlias = Mapping[str, "Part | Parts"]


def flat(parts: Parts) -> dict[str, Part]:
    """Return every part by its path, such as "spatial.conv"."""
    found: dict[str, Part] = {}
    for name, part in parts.items():
        if isinstance(part, Mapping):
            found |= {f"{name}.{path}": inner for path, inner in flat(part).items()}
        else:
            found[name] = part
    return found


def weights(parts: Parts) -> dict[str, Shape]:
    """Return the shapes of all weights by name, such as "spatial.conv.weight", in the order of the parts."""
    return {f"{path}.{name}": shape for path, part in flat(parts).items() for name, shape in part.weights().items()}


@dataclass(frozen=True)
class Norms:
    """A norm as a function, with its weights for `Ops.weight`."""

    norm: Callable[[Any], Any]
    weight: Any

    def __call__(self, x: Any) -> Any:
        """Return the normalised map."""
        return self.norm(x)


class Maker(ABC, Generic[Layer]):
    """What every backend offers: a layer for each part. A backend that lacks one cannot be instantiated."""

    start: Start

    def make(self, parts: Parts, prefix: str = "") -> dict[str, Layer]:
        """Return the layer of every part under its name; `prefix` is the path of the parts, with a dot at its end."""
        return {name: self.layer(part, prefix + name) for name, part in parts.items()}

    def layer(self, part: "Part | Parts", path: str) -> Layer:
        """Return the layer of a part."""
        match part:
            case Conv():
                return self.conv(part, path)
            case ChannelConv():
                return self.channel_conv(part, path)
            case Norm():
                return self.norm(part, path)
            case Scale():
                return self.scale(part, path)
            case Constant():
                return self.constant(part, path)
            case Gate():
                return self.gate(part, path)
            case Replace():
                return self.replace(part, path)
            case Mapping():
                return self.group(part, path)
            case _:
                assert_never(part)

    def is_zero(self, part: Conv | ChannelConv | Norm | Scale) -> bool:
        """Return whether the first weights are 0."""
        return getattr(part, "zero", False) or (part.last and self.start == "identity")

    @abstractmethod
    def conv(self, part: Conv, path: str) -> Layer:
        """Return a convolution, called with x."""

    @abstractmethod
    def channel_conv(self, part: ChannelConv, path: str) -> Layer:
        """Return a convolution along the channels, called with a sequence."""

    @abstractmethod
    def norm(self, part: Norm, path: str) -> Layer:
        """Return a normalisation, called with x."""

    @abstractmethod
    def scale(self, part: Scale, path: str) -> Layer:
        """Return a learnt factor, called with x."""

    @abstractmethod
    def constant(self, part: Constant, path: str) -> Layer:
        """Return a constant factor, called with x."""

    @abstractmethod
    def gate(self, part: Gate, path: str) -> Layer:
        """Return a gate, called with x and logits."""

    @abstractmethod
    def replace(self, part: Replace, path: str) -> Layer:
        """Return a replacement, called with x and y."""

    @abstractmethod
    def group(self, parts: Parts, path: str) -> Layer:
        """Return a holder whose attributes are the layers of the parts of an inner mechanism."""

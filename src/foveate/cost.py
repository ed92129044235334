"""The cost of a mechanism, computed by running its forward on shapes instead of arrays."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from types import SimpleNamespace
from typing import Any, TypeAlias

from foveate import parts, spec
from foveate.ops import Axes, Ops

BYTES_PER_ELEMENT = 4
Layer: TypeAlias = "Callable[..., Shape]"


@dataclass(frozen=True)
class Cost:
    """Parameters, and the work of one call. Costs can be added.

    `macs` are the multiply-adds of convolutions and matrix products, bias excluded. `elementwise` counts one operation
    per element for pointwise arithmetic and per input element for reductions; a sigmoid is one, a norm two (scale,
    shift), a softmax three. `bytes` is the float32 memory traffic when every operation reads its inputs and parameters
    and writes its output once, without fusion.
    """

    parameters: int = 0
    macs: int = 0
    elementwise: int = 0
    bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.elementwise + other.elementwise,
            self.bytes + other.bytes,
        )


def measure(mechanism: spec.Mechanism, *shapes: Sequence[int], start: parts.Start = "paper") -> Cost:
    """Return the cost of one call on inputs of these shapes, (N, C, H, W) or another rank that the mechanism takes."""
    return run(mechanism, Meter(), *shapes, start=start)[0]


def run(
    mechanism: spec.Mechanism, meter: "Meter", *shapes: Sequence[int], start: parts.Start = "paper"
) -> "tuple[Cost, Shape]":
    """Run one call on a meter; return its cost and the output."""
    layers = CostParts(meter, start)
    holder = layers.group(mechanism.parts(shapes[0][1]))
    output = mechanism.forward(meter, holder, *(Shape(spec.as_2d(shape), meter) for shape in shapes))
    return Cost(layers.parameters, meter.macs, meter.elementwise, meter.elements * BYTES_PER_ELEMENT), output


class Meter(Ops["Shape"]):
    """The vocabulary of `foveate.ops` over shapes; sums the work of all operations."""

    c, h, w, hw = (1,), (2,), (3,), (2, 3)

    def __init__(self) -> None:
        self.macs = self.elementwise = self.elements = 0

    def work(
        self,
        shape: Sequence[int],
        *inputs: "Shape",
        macs: int = 0,
        operations: int = 0,
        weights: int = 0,
        scalar: int = 0,
        calls: int = 1,
    ) -> "Shape":
        """Count one operation that reads the inputs and weights and writes an array of this shape.

        For predicted times: `scalar` is the number of steps that frameworks compute one value at a time on a CPU, and
        `calls` how many times longer than an addition it takes on a map of a few values.
        """
        output = Shape(tuple(shape), self)
        self.add(macs, operations, output.count + sum(x.count for x in inputs) + weights, scalar, calls)
        return output

    def add(self, macs: int, operations: int, elements: int, scalar: int, calls: int) -> None:
        """Add one operation to the sums."""
        self.macs += macs
        self.elementwise += operations
        self.elements += elements

    def pointwise(self, *inputs: "Shape", operations: int = 1) -> "Shape":
        """Count elementwise arithmetic on broadcast inputs."""
        shape = tuple(max(sizes) for sizes in zip(*(x.shape for x in inputs), strict=True))
        return self.work(shape, *inputs, operations=operations * math.prod(shape))

    def exponential(self, x: "Shape", operations: int = 1) -> "Shape":
        """Count elementwise arithmetic with an exponential in it, the longest step."""
        return self.work(x.shape, x, operations=operations * x.count, scalar=x.count)

    def reduction(self, x: "Shape", axes: Axes) -> "Shape":
        """Count a reduction that keeps its axes."""
        return self.work([1 if axis in axes else size for axis, size in enumerate(x.shape)], x, operations=x.count)

    mean = max = sum = norm = logsumexp = reduction  # pyright: ignore[reportAssignmentType]

    def variance(
        self,
        x: "Shape",
        axes: Axes,
        unbiased: bool = False,
        mean: "Shape | None" = None,
        squares: "Shape | None" = None,
    ) -> "Shape":
        return self.reduction(x, axes)

    def softmax(self, x: "Shape", axes: Axes) -> "Shape":
        return self.exponential(x, operations=3)

    def maximum(self, a: "Shape", b: "Shape") -> "Shape":
        return self.pointwise(a, b)

    def average(self, xs: "Sequence[Shape]") -> "Shape":
        return reduce(lambda y, x: self.pointwise(y, x, operations=3), xs)

    def relu(self, x: "Shape") -> "Shape":
        return self.pointwise(x)

    hardswish = relu

    def sqrt(self, x: "Shape", eps: float = 0.0) -> "Shape":
        return self.pointwise(x, operations=2 if eps else 1)

    def sigmoid(self, x: "Shape") -> "Shape":
        return self.exponential(x)

    tanh = silu = gelu = sigmoid

    def concat(self, xs: "Sequence[Shape]", axes: Axes) -> "Shape":
        return self.work(_with(xs[0].shape, axes[0], sum(x.shape[axes[0]] for x in xs)), *xs)

    def split(self, x: "Shape", sizes: Sequence[int], axes: Axes) -> "list[Shape]":
        return [Shape(_with(x.shape, axes[0], size), self) for size in sizes]

    def size(self, x: "Shape", axes: Axes) -> int:
        return x.shape[axes[0]]

    def swap(self, x: "Shape", a: Axes, b: Axes) -> "Shape":
        return Shape(_with(_with(x.shape, a[0], x.shape[b[0]]), b[0], x.shape[a[0]]), self)

    def transpose(self, x: "Shape") -> "Shape":
        return Shape((x.shape[0], math.prod(x.shape[2:]), x.shape[1], 1), self)

    def matmul(self, a: "Shape", b: "Shape") -> "Shape":
        return self.work((*a.shape[:2], *b.shape[2:]), a, b, macs=a.shape[1] * b.count)

    def group(self, x: "Shape", groups: int) -> "Shape":
        return Shape((x.shape[0] * groups, x.shape[1] // groups, *x.shape[2:]), self)

    def ungroup(self, x: "Shape", groups: int) -> "Shape":
        return Shape((x.shape[0] // groups, x.shape[1] * groups, *x.shape[2:]), self)

    def shuffle(self, x: "Shape", groups: int) -> "Shape":
        return self.work(x.shape, x)

    def pool(self, x: "Shape", kind: str, window: int, stride: int = 1, padding: int = 0) -> "Shape":
        sizes = [(size + 2 * padding - window) // stride + 1 for size in x.shape[2:]]
        operations = window**2 * math.prod((*x.shape[:2], *sizes))
        return self.work((*x.shape[:2], *sizes), x, operations=operations, scalar=operations)

    def adaptive_pool(self, x: "Shape", kind: str, size: tuple[int, int]) -> "Shape":
        shape = (*x.shape[:2], *size)
        operations = max(x.count, math.prod(shape))
        return self.work(shape, x, operations=operations, scalar=operations)

    def resize(self, x: "Shape", like: "Shape", method: str) -> "Shape":
        shape = (*x.shape[:2], *like.shape[2:])
        return self.work(shape, x, operations=math.prod(shape))

    def local_conv(self, x: "Shape", weights: "Shape", kernel: int) -> "Shape":
        return self.work(x.shape, x, weights, operations=2 * kernel**2 * x.count)

    def to_sequence(self, x: "Shape") -> "Shape":
        return Shape((x.shape[0], 1, math.prod(x.shape[1:])), self)

    def from_sequence(self, s: "Shape", like: "Shape") -> "Shape":
        return Shape(like.shape, self)

    def attend(self, queries: "Shape", keys: "Shape", values: "Shape", scale: float) -> "Shape":
        pairs = queries.shape[0] * math.prod(queries.shape[2:]) * math.prod(keys.shape[2:])
        shape = (*values.shape[:2], *queries.shape[2:])
        return self.work(
            shape, queries, keys, values, macs=pairs * (queries.shape[1] + values.shape[1]), operations=3 * pairs
        )

    def criss_cross(self, queries: "Shape", keys: "Shape", values: "Shape") -> "Shape":
        n, c, h, w = values.shape
        pairs = n * h * w * (h + w)
        return self.work(values.shape, queries, keys, values, macs=pairs * (queries.shape[1] + c), operations=3 * pairs)

    def weight(self, norm: Any) -> "Shape":
        return norm.weight

    def apply(self, mechanism: spec.Mechanism, p: Any, *xs: "Shape") -> "Shape":
        return mechanism.forward(self, p, *xs)


class CostParts(parts.Maker[Any]):
    """The parts as functions over shapes; counts their parameters."""

    def __init__(self, meter: Meter, start: parts.Start):
        self.meter, self.start = meter, start
        self.parameters = 0

    def conv(self, part: parts.Conv, path: str) -> Layer:
        weights, taps = self._own(part), math.prod(part.weights()["weight"])
        narrow = part.outputs // part.groups < 8 and math.prod(part.size) > 1
        calls = 12 if narrow else 1

        def conv(x: Shape) -> Shape:
            sizes = [
                (size + 2 * pad - part.dilation * (k - 1) - 1) // part.stride + 1
                for size, pad, k in zip(x.shape[2:], part.pads, part.size, strict=True)
            ]
            shape = (x.shape[0], part.outputs, *sizes)
            macs = taps * math.prod((x.shape[0], *sizes))
            scalar = macs if part.dilation > 1 < part.groups else 0
            return self.meter.work(shape, x, macs=macs, weights=weights, scalar=scalar, calls=calls)

        return conv

    def channel_conv(self, part: parts.ChannelConv, path: str) -> Layer:
        weights = self._own(part)
        return lambda s: self.meter.work(s.shape, s, macs=part.kernel * s.count, weights=weights)

    def norm(self, part: parts.Norm, path: str) -> Layer:
        weights = self._own(part)
        return parts.Norms(
            lambda x: self.meter.work(x.shape, x, operations=2 * x.count, weights=weights),
            Shape((1, part.channels, 1, 1), self.meter),
        )

    def scale(self, part: parts.Scale, path: str) -> Layer:
        weights = self._own(part)
        return lambda x: self.meter.work(x.shape, x, operations=(1 + part.bias) * x.count, weights=weights)

    def constant(self, part: parts.Constant, path: str) -> Layer:
        weights = self._own(part)
        return lambda x: self.meter.work(x.shape, x, operations=x.count, weights=weights)

    def gate(self, part: parts.Gate, path: str) -> Layer:
        operations = 1 + (part.scale(self.start) != 1) + (part.offset != 0)
        activate = self.meter.pointwise if part.activation == "linear" else self.meter.exponential
        return lambda x, logits: self.meter.pointwise(x, activate(logits, operations=operations))

    def replace(self, part: parts.Replace, path: str) -> Layer:
        return lambda x, y: y if self.start == "paper" else self.meter.pointwise(x, y)

    def group(self, parts: parts.Parts, path: str = "") -> Any:
        return SimpleNamespace(**self.make(parts, f"{path}." if path else ""))

    def _own(self, part: parts.Part) -> int:
        """Count the parameters of a part; return the number of its weights, with its statistics."""
        sizes = {name: math.prod(shape) for name, shape in part.weights().items()}
        self.parameters += sum(size for name, size in sizes.items() if name not in parts.NOT_LEARNT)
        return sum(sizes.values())


@dataclass(frozen=True)
class Shape:
    """An array that has a shape but no values."""

    shape: tuple[int, ...]
    meter: Meter

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def _with(self, other: "Shape | float") -> "Shape":
        return self.meter.pointwise(self, *([other] if isinstance(other, Shape) else []))

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = _with

    def __pow__(self, exponent: int) -> "Shape":
        return self.meter.pointwise(self)

    def __neg__(self) -> "Shape":
        return self.meter.pointwise(self)


def _with(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])

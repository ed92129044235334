"""The operations that mechanisms are written in; axes have names (`F.c`, `F.hw`) because bindings differ in layout."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

Axes: TypeAlias = tuple[int, ...]
Pooling: TypeAlias = Literal["mean", "mean_inside", "max"]
Resize: TypeAlias = Literal["nearest", "bilinear", "aligned"]


class Arithmetic(Protocol):
    """What the arrays of every backend can do: + - * / with arrays, whose axes of size 1 are stretched, and numbers.

    `x**2` takes less time than `x * x` where gradients are computed.
    """

    def __add__(self, other: Self | float, /) -> Self: ...
    def __sub__(self, other: Self | float, /) -> Self: ...
    def __mul__(self, other: Self | float, /) -> Self: ...
    def __truediv__(self, other: Self | float, /) -> Self: ...
    def __radd__(self, other: float, /) -> Self: ...
    def __rsub__(self, other: float, /) -> Self: ...
    def __rmul__(self, other: float, /) -> Self: ...
    def __pow__(self, exponent: int, /) -> Self: ...
    def __neg__(self) -> Self: ...


Array = TypeVar("Array", bound=Arithmetic)


class Bound(Protocol[Array]):
    """The parts of a mechanism as layers: `p.gate(x, logits)`, and `p.spatial.conv(x)` for those of an inner one."""

    def __getattr__(self, name: str, /) -> "Bound[Array]": ...
    def __call__(self, *xs: Array) -> Array: ...  # noqa: D102


class Ops(ABC, Generic[Array]):
    """The operations that every backend implements; one that lacks an operation cannot be instantiated.

    Shapes below are written (N, C, H, W); a backend may order the axes otherwise. Reductions keep their axes, size 1.
    """

    c: Axes
    h: Axes
    w: Axes
    hw: Axes

    @abstractmethod
    def mean(self, x: Array, axes: Axes) -> Array:
        """Mean over the axes."""

    @abstractmethod
    def max(self, x: Array, axes: Axes) -> Array:
        """Maximum over the axes; equal maxima share the gradient."""

    @abstractmethod
    def sum(self, x: Array, axes: Axes) -> Array:
        """Sum over the axes."""

    @abstractmethod
    def variance(
        self,
        x: Array,
        axes: Axes,
        unbiased: bool = False,
        mean: Array | None = None,
        squares: Array | None = None,
    ) -> Array:
        """Mean squared deviation over the axes; `unbiased` divides by n - 1. That of a single value is 0.

        `mean` is the mean over the axes and `squares` are the squared deviations from it, where the mechanism has them.
        """

    @abstractmethod
    def norm(self, x: Array, axes: Axes) -> Array:
        """Euclidean norm over the axes, sqrt(sum x^2); its gradient at 0 is 0."""

    @abstractmethod
    def logsumexp(self, x: Array, axes: Axes) -> Array:
        """Smooth maximum, log(sum(exp(x))) over the axes."""

    @abstractmethod
    def softmax(self, x: Array, axes: Axes) -> Array:
        """Shares exp(x) / sum(exp(x)) over one axis, or over all positions."""

    @abstractmethod
    def sqrt(self, x: Array, eps: float = 0.0) -> Array:
        """Square root of x + eps, where x is not negative; its gradient at 0 is 0."""

    @abstractmethod
    def maximum(self, a: Array, b: Array) -> Array:
        """Greater of two values; equal ones share the gradient."""

    @abstractmethod
    def average(self, xs: Sequence[Array]) -> Array:
        """Mean of maps, without rounding where all are equal."""
        y = xs[0]
        for count, x in enumerate(xs[1:], 2):
            y = y + (x - y) / count
        return y

    @abstractmethod
    def sigmoid(self, x: Array) -> Array:
        """Logistic function, 1 / (1 + exp(-x))."""

    @abstractmethod
    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""

    @abstractmethod
    def silu(self, x: Array) -> Array:
        """SiLU, x * sigmoid(x)."""

    @abstractmethod
    def gelu(self, x: Array) -> Array:
        """GELU with the error function, x * (1 + erf(x / sqrt(2))) / 2."""

    @abstractmethod
    def relu(self, x: Array) -> Array:
        """Rectify, max(x, 0)."""

    @abstractmethod
    def hardswish(self, x: Array) -> Array:
        """Hard-swish, x * clip(x + 3, 0, 6) / 6."""

    @abstractmethod
    def concat(self, xs: Sequence[Array], axes: Axes) -> Array:
        """Join along one axis."""

    @abstractmethod
    def split(self, x: Array, sizes: Sequence[int], axes: Axes) -> Sequence[Array]:
        """Split along one axis into the given sizes."""

    @abstractmethod
    def size(self, x: Array, axes: Axes) -> int:
        """Length of one axis."""

    @abstractmethod
    def swap(self, x: Array, a: Axes, b: Axes) -> Array:
        """Exchange two axes."""

    @abstractmethod
    def transpose(self, x: Array) -> Array:
        """Exchange channels and positions, (N, C, H, W) -> (N, H * W, C, 1)."""

    @abstractmethod
    def matmul(self, a: Array, b: Array) -> Array:
        """Multiply maps as matrices of channels x positions.

        (N, D, Hk, Wk), (N, C, H, W) -> (N, D, H, W), with C = Hk * Wk.
        """

    @abstractmethod
    def group(self, x: Array, groups: int) -> Array:
        """Treat groups of channels as samples, (N, groups * C, H, W) -> (N * groups, C, H, W)."""

    @abstractmethod
    def ungroup(self, x: Array, groups: int) -> Array:
        """Undo `group`."""

    @abstractmethod
    def shuffle(self, x: Array, groups: int) -> Array:
        """Take one channel of each group in turn: channel g * m + i goes to i * groups + g, with m = C / groups."""

    @abstractmethod
    def pool(self, x: Array, kind: Pooling, window: int, stride: int = 1, padding: int = 0) -> Array:
        """Pool square windows of a padded map. Only "mean" counts the padding, as zeros."""

    @abstractmethod
    def adaptive_pool(self, x: Array, kind: Literal["mean", "max"], size: tuple[int, int]) -> Array:
        """Pool to a height and width: cell i of L covers rows floor(i H / L) to ceil((i + 1) H / L) - 1."""

    @abstractmethod
    def resize(self, x: Array, like: Array, method: Resize) -> Array:
        """Resize a map to the height and width of another one; "aligned" is bilinear with aligned corners."""

    @abstractmethod
    def local_conv(self, x: Array, weights: Array, kernel: int) -> Array:
        """Convolve every position with its own k x k weights, with zero padding.

        (N, C, H, W), (N, G * k * k, H, W) -> (N, C, H, W). Channel c has the weights of group c modulo G.
        """

    @abstractmethod
    def to_sequence(self, x: Array) -> Array:
        """Reshape a map, such as a pooled vector, to a sequence for `ChannelConv`: all channels of each position."""

    @abstractmethod
    def from_sequence(self, s: Array, like: Array) -> Array:
        """Undo `to_sequence` of a map of the shape of `like`."""

    @abstractmethod
    def attend(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        """Weight values by softmax(scale * q k^T) over positions.

        (N, D, Hq, Wq), (N, D, Hk, Wk), (N, C, Hk, Wk) -> (N, C, Hq, Wq).
        """

    @abstractmethod
    def criss_cross(self, queries: Array, keys: Array, values: Array) -> Array:
        """Weight values by softmax(q k^T) over the H + W - 1 positions in the row and the column of each position.

        (N, D, H, W), (N, D, H, W), (N, C, H, W) -> (N, C, H, W).
        """

    def attend_linear(self, queries: Array, keys: Array, values: Array) -> Array:
        """Weight values by q k^T / (number of keys), without a softmax; shapes as in `attend`.

        Backends need not implement it.
        """
        shares = self.softmax(0 * self.mean(keys, self.c), self.hw)  # 1 / number of keys
        return self.matmul(self.matmul(values, self.transpose(keys * shares)), queries)

    def attend_channels(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        """Weight channels by softmax(scale * q k^T) over the channels of the keys.

        (N, C, H, W), (N, D, H, W), (N, D, Hv, Wv) -> (N, C, Hv, Wv). Backends need not implement it.
        """
        energy = self.matmul(queries, self.transpose(keys)) * scale  # (N, C, D, 1)
        return self.matmul(self.softmax(energy, self.h), values)

    def attention_pool(self, x: Array, scores: Array) -> Array:
        """Sum x weighted by softmax(scores) over the positions, once for each of M maps of scores.

        (N, C, H, W), (N, M, H, W) -> (N, C, M, 1). Backends need not implement it.
        """
        return self.matmul(x, self.transpose(self.softmax(scores, self.hw)))

    @abstractmethod
    def weight(self, norm: Bound[Array]) -> Array:
        """Return the weights of a norm as a constant map (1, C, 1, 1): no gradient flows through them."""

    @abstractmethod
    def apply(self, mechanism: Any, p: Any, *xs: Array) -> Array:
        """Run another mechanism on its bound parts p, with a kernel where the binding has one."""

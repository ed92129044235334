"""The operations that mechanisms are written in; axes have names (`F.c`, `F.hw`) because bindings differ in layout."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

Array: TypeAlias = Any
Axes: TypeAlias = tuple[int, ...]


class Ops(Protocol):
    """The operations that every binding implements.

    Shapes below are written (N, C, H, W); a binding may order the axes otherwise. Reductions keep their axes, size 1.
    """

    c: Axes
    h: Axes
    w: Axes
    hw: Axes

    def mean(self, x: Array, axes: Axes) -> Array:
        """Mean over the axes."""
        ...

    def max(self, x: Array, axes: Axes) -> Array:
        """Maximum over the axes; equal maxima share the gradient."""
        ...

    def norm(self, x: Array, axes: Axes) -> Array:
        """Euclidean norm over the axes, sqrt(sum x^2); its gradient at 0 is 0."""
        ...

    def logsumexp(self, x: Array, axes: Axes) -> Array:
        """Smooth maximum, log(sum(exp(x))) over the axes."""
        ...

    def relu(self, x: Array) -> Array:
        """Rectify, max(x, 0)."""
        ...

    def hardswish(self, x: Array) -> Array:
        """Hard-swish, x * clip(x + 3, 0, 6) / 6."""
        ...

    def concat(self, xs: Sequence[Array], axes: Axes) -> Array:
        """Join along one axis."""
        ...

    def split(self, x: Array, sizes: Sequence[int], axes: Axes) -> Sequence[Array]:
        """Split along one axis into the given sizes."""
        ...

    def size(self, x: Array, axes: Axes) -> int:
        """Length of one axis."""
        ...

    def swap(self, x: Array, a: Axes, b: Axes) -> Array:
        """Exchange two axes."""
        ...

    def to_sequence(self, v: Array) -> Array:
        """Reshape a pooled vector (N, C, 1, 1) to a sequence of C channels for `ChannelConv`."""
        ...

    def from_sequence(self, s: Array) -> Array:
        """Undo `to_sequence`."""
        ...

    def attend(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        """Weight values by softmax(scale * q k^T) over positions.

        (N, D, Hq, Wq), (N, D, Hk, Wk), (N, C, Hk, Wk) -> (N, C, Hq, Wq).
        """
        ...

    def apply(self, mechanism: Any, p: Any, *xs: Array) -> Array:
        """Run another mechanism on its bound parts p, with a kernel where the binding has one."""
        ...

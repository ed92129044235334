"""The vocabulary of `foveate.ops` over `keras.ops`, for both data formats; N, H and W may be unknown."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras

from foveate.bind.keras.parts import DataFormat, tanh
from foveate.ops import Axes, Ops
from foveate.spec import Mechanism

Tensor: TypeAlias = Any
ops: Any = keras.ops  # Any, because the declared return types include None


FLOAT16_MAX = 65504.0


def _wide(x: Tensor) -> Tensor:
    """Return half precision as float32, for sums over a map."""
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x


class KerasOps(Ops[Tensor]):
    """The vocabulary for one data format, (N, H, W, C) or (N, C, H, W)."""

    def __init__(self, data_format: DataFormat):
        last = data_format == "channels_last"
        self.data_format: DataFormat = data_format
        self.c, self.h, self.w, self.hw = ((3,), (1,), (2,), (1, 2)) if last else ((1,), (2,), (3,), (2, 3))

    def mean(self, x: Tensor, axes: Axes) -> Tensor:
        if keras.backend.standardize_dtype(x.dtype) == "float64":  # Keras's own mean computes in float32 on JAX
            return ops.sum(x, axes, keepdims=True) / ops.sum(ops.ones_like(x), axes, keepdims=True)
        return ops.mean(x, axes, keepdims=True)

    def max(self, x: Tensor, axes: Axes) -> Tensor:
        return ops.max(x, axes, keepdims=True)

    def sum(self, x: Tensor, axes: Axes) -> Tensor:
        return ops.cast(ops.sum(_wide(x), axes, keepdims=True), x.dtype)

    def variance(self, x: Tensor, axes: Axes, unbiased: bool = False) -> Tensor:
        wide = _wide(x)
        count = ops.sum(ops.ones_like(wide), axes, keepdims=True)
        deviations = wide - ops.sum(wide, axes, keepdims=True) / count
        squares = ops.sum(deviations * deviations, axes, keepdims=True)
        return ops.cast(squares / ops.maximum(count - int(unbiased), 1), x.dtype)

    def norm(self, x: Tensor, axes: Axes) -> Tensor:
        squares = ops.sum(ops.square(_wide(x)), axes, keepdims=True)
        norm = ops.where(
            squares > 0, ops.sqrt(ops.where(squares > 0, squares, ops.ones_like(squares))), ops.zeros_like(squares)
        )
        if keras.backend.standardize_dtype(x.dtype) == "float16":
            norm = ops.minimum(norm, FLOAT16_MAX)  # infinite, the gate would be NaN
        return ops.cast(norm, x.dtype)

    def logsumexp(self, x: Tensor, axes: Axes) -> Tensor:
        return ops.cast(ops.logsumexp(_wide(x), axes, keepdims=True), x.dtype)

    def softmax(self, x: Tensor, axes: Axes) -> Tensor:
        wide = _wide(x)
        shares = ops.exp(wide - ops.stop_gradient(ops.max(wide, axes, keepdims=True)))
        return ops.cast(shares / ops.sum(shares, axes, keepdims=True), x.dtype)

    def sqrt(self, x: Tensor) -> Tensor:
        zero = x == 0
        return ops.where(zero, ops.zeros_like(x), ops.sqrt(ops.where(zero, ops.ones_like(x), x)))

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        # ops.maximum converts float64 to float32 on torch
        return ops.where(a > b, a, ops.where(b > a, b, (a + b) / 2))

    def sigmoid(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)

    def tanh(self, x: Tensor) -> Tensor:
        return tanh(x)

    def silu(self, x: Tensor) -> Tensor:
        return ops.silu(x)

    def gelu(self, x: Tensor) -> Tensor:
        return x * (1 + ops.erf(x * 0.5**0.5)) / 2

    def relu(self, x: Tensor) -> Tensor:
        return ops.relu(x)

    def hardswish(self, x: Tensor) -> Tensor:
        return ops.hard_silu(x)

    def concat(self, xs: Sequence[Tensor], axes: Axes) -> Tensor:
        return ops.concatenate(list(xs), axes[0])

    def split(self, x: Tensor, sizes: Sequence[Any], axes: Axes) -> Sequence[Tensor]:
        pieces, start = [], 0
        for size in sizes:  # slices, because a size may be unknown until the graph runs
            pieces.append(x[(slice(None),) * axes[0] + (slice(start, start + size),)])
            start = start + size
        return pieces

    def size(self, x: Tensor, axes: Axes) -> Any:
        return ops.shape(x)[axes[0]]

    def swap(self, x: Tensor, a: Axes, b: Axes) -> Tensor:
        return ops.swapaxes(x, a[0], b[0])

    def transpose(self, x: Tensor) -> Tensor:
        positions = self._positions(x)
        return (
            ops.swapaxes(positions, 1, 2)[:, :, None] if self.data_format == "channels_last" else positions[..., None]
        )

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        product = self._positions(b) @ self._positions(a)
        return self._map(product, b)

    def group(self, x: Tensor, groups: int) -> Tensor:
        axis, shape = self.c[0], [*ops.shape(x)]
        split = ops.reshape(x, (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))
        first = split if axis == 1 else ops.transpose(split, (0, 3, 1, 2, 4))
        return ops.reshape(first, (-1, *ops.shape(first)[2:]))

    def ungroup(self, x: Tensor, groups: int) -> Tensor:
        axis, shape = self.c[0], [*ops.shape(x)]
        split = ops.reshape(x, (-1, groups, *shape[1:]))
        if axis != 1:
            split = ops.transpose(split, (0, 2, 3, 1, 4))
        return ops.reshape(split, (-1, *shape[1:axis], groups * shape[axis], *shape[axis + 1 :]))

    def pool(self, x: Tensor, kind: Literal["mean", "max"], window: int, stride: int = 1, padding: int = 0) -> Tensor:
        pads = [(padding, padding) if axis in self.hw else (0, 0) for axis in range(4)]
        inside = ops.pad(ops.ones_like(x), pads) > 0
        x = ops.pad(x, pads)  # with another value than 0, torch gets float32 from Keras
        x = x if kind == "mean" else ops.where(inside, x, ops.full_like(x, -float("inf")))
        for axis in self.hw:  # one axis after the other, by slices: Keras has pooling for channels last only on CPUs
            last = ops.shape(x)[axis] - window
            before = (slice(None),) * axis
            shifted = [x[(*before, slice(start, last + start + 1, stride))] for start in range(window)]
            joined = functools.reduce(operator.add if kind == "mean" else self.maximum, shifted)
            x = joined / window if kind == "mean" else joined
        return x

    def resize(self, x: Tensor, like: Tensor, method: Literal["nearest", "bilinear"]) -> Tensor:
        for axis in self.hw:
            before, after = ops.shape(x)[axis], ops.shape(like)[axis]
            places = ops.arange(after, dtype="int32")
            if method == "nearest":
                x = ops.take(x, places * before // after, axis)
                continue
            places = ops.maximum((2 * places + 1) * before - after, 0)
            first = places // (2 * after)
            second = ops.minimum(first + 1, before - 1)
            share = ops.cast(places - first * 2 * after, x.dtype) / ops.cast(2 * after, x.dtype)
            share = ops.reshape(share, [-1 if each == axis else 1 for each in range(4)])
            x = ops.take(x, first, axis) * (1 - share) + ops.take(x, second, axis) * share
        return x

    def to_sequence(self, v: Tensor) -> Tensor:
        return ops.reshape(v, (-1, v.shape[self.c[0]], 1))

    def from_sequence(self, s: Tensor) -> Tensor:
        channels = s.shape[1]
        return ops.reshape(s, (-1, 1, 1, channels) if self.data_format == "channels_last" else (-1, channels, 1, 1))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        q, k, v = (self._positions(t) for t in (queries, keys, values))
        energy = (q * scale) @ ops.swapaxes(k, 1, 2)  # ops.matmul converts float64 to float32 on JAX and torch
        # Keras warns about a softmax over one position.
        shares = energy * 0 + 1 if energy.shape[2] == 1 else ops.cast(ops.softmax(_wide(energy)), energy.dtype)
        return self._map(shares @ v, queries)

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor) -> Tensor:
        y = self._by_kernel(mechanism, p, *xs)
        return mechanism.forward(self, p, *xs) if y is None else y

    def _by_kernel(self, mechanism: Mechanism, p: Any, x: Tensor, *others: Tensor) -> Tensor | None:
        if others or keras.config.backend() != "torch":
            return None
        from foveate.bind.keras import kernels

        return kernels.run(mechanism, p, x, self.data_format)

    def _map(self, t: Tensor, like: Tensor) -> Tensor:
        """Reshape (N, H * W, C) to a map of the height and width of another one."""
        n, h, w = (ops.shape(like)[axis] for axis in (0, self.h[0], self.w[0]))
        maps = ops.reshape(t, (n, h, w, t.shape[2]))
        return maps if self.data_format == "channels_last" else ops.transpose(maps, (0, 3, 1, 2))

    def _positions(self, t: Tensor) -> Tensor:
        """Reshape a map to (N, H * W, C)."""
        last = t if self.data_format == "channels_last" else ops.transpose(t, (0, 2, 3, 1))
        return ops.reshape(last, (ops.shape(last)[0], -1, last.shape[3]))


OPS: dict[DataFormat, KerasOps] = {
    "channels_last": KerasOps("channels_last"),
    "channels_first": KerasOps("channels_first"),
}

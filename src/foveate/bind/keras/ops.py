"""The vocabulary of `foveate.ops` over `keras.ops`, for both data formats; N, H and W may be unknown."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import keras

from foveate.bind.keras.parts import DataFormat, tanh
from foveate.ops import Axes, Ops, Pooling, Resize
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

    def variance(
        self, x: Tensor, axes: Axes, unbiased: bool = False, mean: Tensor | None = None, squares: Tensor | None = None
    ) -> Tensor:
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

    def sqrt(self, x: Tensor, eps: float = 0.0) -> Tensor:
        if eps:
            return ops.sqrt(x + eps)
        zero = x == 0
        return ops.where(zero, ops.zeros_like(x), ops.sqrt(ops.where(zero, ops.ones_like(x), x)))

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        # ops.maximum converts float64 to float32 on torch
        return ops.where(a > b, a, ops.where(b > a, b, (a + b) / 2))

    def average(self, xs: Sequence[Tensor]) -> Tensor:
        return super().average(xs)

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

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        axis, shape = self.c[0], [*ops.shape(x)]
        split = ops.reshape(x, (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))
        return ops.reshape(ops.swapaxes(split, axis, axis + 1), shape)

    def pool(self, x: Tensor, kind: Pooling, window: int, stride: int = 1, padding: int = 0) -> Tensor:
        if kind == "mean_inside":
            means, shares = (self.pool(each, "mean", window, stride, padding) for each in (x, ops.ones_like(x)))
            return means / shares
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

    def adaptive_pool(self, x: Tensor, kind: Literal["mean", "max"], size: tuple[Any, Any]) -> Tensor:
        for axis, after in zip(self.hw, size, strict=True):
            before, cells = ops.shape(x)[axis], ops.arange(after, dtype="int32")[:, None]
            first, last = cells * before // after, ((cells + 1) * before + after - 1) // after - 1
            window = first + ops.arange(before // after + 2, dtype="int32")
            picked, inner = ops.take(x, ops.minimum(window, last), axis), axis + 1
            if kind == "max":
                x = ops.max(picked, inner)
                continue
            inside = ops.cast(window <= last, x.dtype) / ops.cast(last - first + 1, x.dtype)
            shape = (*[1] * axis, *ops.shape(inside), *[1] * (3 - axis))
            x = ops.cast(ops.sum(_wide(picked * ops.reshape(inside, shape)), inner), x.dtype)
        return x

    def resize(self, x: Tensor, like: Tensor, method: Resize) -> Tensor:
        for axis in self.hw:
            before, after = ops.shape(x)[axis], ops.shape(like)[axis]
            places = ops.arange(after, dtype="int32")
            if method == "nearest":
                x = ops.take(x, places * before // after, axis)
                continue
            if method == "aligned":
                places, unit = places * (before - 1), ops.maximum(after - 1, 1)
            else:
                places, unit = ops.maximum((2 * places + 1) * before - after, 0), 2 * after
            first = places // unit
            second = ops.minimum(first + 1, before - 1)
            share = ops.cast(places - first * unit, x.dtype) / ops.cast(unit, x.dtype)
            share = ops.reshape(share, [-1 if each == axis else 1 for each in range(4)])
            x = ops.take(x, first, axis) * (1 - share) + ops.take(x, second, axis) * share
        return x

    def local_conv(self, x: Tensor, weights: Tensor, kernel: int) -> Tensor:
        axis, (h, w), shape = self.c[0], (ops.shape(x)[a] for a in self.hw), [*ops.shape(x)]
        groups = weights.shape[axis] // kernel**2

        def of_groups(maps: Tensor) -> Tensor:
            return ops.reshape(maps, (*shape[:axis], maps.shape[axis] // groups, groups, *shape[axis + 1 :]))

        padded = ops.pad(x, [(kernel // 2,) * 2 if a in self.hw else (0, 0) for a in range(4)])
        taps = self.shuffle(weights, groups)  # all groups of the first tap, then those of the second
        y = 0.0
        for tap, one in enumerate(self.split(taps, [groups] * kernel**2, self.c)):
            down, right = divmod(tap, kernel)
            seen = (slice(down, down + h), slice(right, right + w))
            moved = padded[(slice(None), *seen)] if axis == 3 else padded[(slice(None), slice(None), *seen)]
            y = y + of_groups(moved) * of_groups(one)
        return ops.reshape(y, shape)

    def to_sequence(self, x: Tensor) -> Tensor:
        last = self._positions(x)
        return ops.reshape(last, (-1, ops.shape(last)[1] * last.shape[2], 1))

    def from_sequence(self, s: Tensor, like: Tensor) -> Tensor:
        return self._map(ops.reshape(s, ops.shape(self._positions(like))), like)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        q, k, v = (self._positions(t) for t in (queries, keys, values))
        energy = (q * scale) @ ops.swapaxes(k, 1, 2)  # ops.matmul converts float64 to float32 on JAX and torch
        # Keras warns about a softmax over one position.
        shares = energy * 0 + 1 if energy.shape[2] == 1 else ops.cast(ops.softmax(_wide(energy)), energy.dtype)
        return self._map(shares @ v, queries)

    def criss_cross(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        last = self.data_format == "channels_last"
        q, k, v = (t if last else ops.transpose(t, (0, 2, 3, 1)) for t in (queries, keys, values))
        h, w = ops.shape(v)[1:3]
        own = ops.expand_dims(ops.arange(h), 1) == ops.arange(h)  # also in the row
        in_row = q @ ops.swapaxes(k, 2, 3)
        q, k, columns = (ops.swapaxes(t, 1, 2) for t in (q, k, v))
        in_column = q @ ops.swapaxes(k, 2, 3)
        in_column = ops.where(own, ops.full_like(in_column, -float("inf")), in_column)
        shares = self.softmax(ops.concatenate([ops.swapaxes(in_column, 1, 2), in_row], 3), (3,))
        of_column, of_row = self.split(shares, [h, w], (3,))
        mixed = ops.swapaxes(ops.swapaxes(of_column, 1, 2) @ columns, 1, 2) + of_row @ v
        return mixed if last else ops.transpose(mixed, (0, 3, 1, 2))

    def weight(self, norm: Any) -> Tensor:
        layer = getattr(norm, "func", norm)  # with `training` fixed, as `Called` passes a batch norm
        weight = ops.cast(ops.convert_to_tensor(layer.gamma), layer.compute_dtype)
        return ops.stop_gradient(
            ops.reshape(weight, (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1))
        )

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

"""The vocabulary of `foveate.ops` over `keras.ops`, for both data formats; N, H and W may be unknown."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from foveate.bind.keras.parts import DataFormat
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
        mixed = shares @ v
        n, h, w = (ops.shape(queries)[axis] for axis in (0, self.h[0], self.w[0]))
        maps = ops.reshape(mixed, (n, h, w, v.shape[2]))
        return maps if self.data_format == "channels_last" else ops.transpose(maps, (0, 3, 1, 2))

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor) -> Tensor:
        y = self._by_kernel(mechanism, p, *xs)
        return mechanism.forward(self, p, *xs) if y is None else y

    def _by_kernel(self, mechanism: Mechanism, p: Any, x: Tensor, *others: Tensor) -> Tensor | None:
        if others or keras.config.backend() != "torch":
            return None
        from foveate.bind.keras import kernels

        return kernels.run(mechanism, p, x, self.data_format)

    def _positions(self, t: Tensor) -> Tensor:
        """Reshape a map to (N, H * W, C)."""
        last = t if self.data_format == "channels_last" else ops.transpose(t, (0, 2, 3, 1))
        return ops.reshape(last, (ops.shape(last)[0], -1, last.shape[3]))


OPS: dict[DataFormat, KerasOps] = {
    "channels_last": KerasOps("channels_last"),
    "channels_first": KerasOps("channels_first"),
}

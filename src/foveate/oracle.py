"""The oracle: a reference implementation in NumPy float64, written to be correct rather than fast."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from foveate import parts, spec
from foveate.ops import Axes, Ops, Pooling, Resize

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = dict[str, Array]
Layer = Callable[..., Array]


def evaluate(
    mechanism: spec.Mechanism,
    weights: Mapping[str, Any],
    *inputs: Any,
    training: bool = False,
    start: parts.Start = "paper",
) -> tuple[Array, Weights]:
    """Run a mechanism on x (N, C, H, W) with weights under the bindings' names; return the output and the weights.

    A mechanism of any rank also takes (N, C, L) and (N, C, D, H, W).
    In training, batch norms use the statistics of the batch, and the returned weights hold the updated running
    statistics.
    """
    state = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    arrays = [np.asarray(x, np.float64) for x in inputs]
    layers = NumpyParts(state, training, start).group(mechanism.parts(arrays[0].shape[1]), "")
    y = mechanism.forward(NumpyOps(), layers, *(x.reshape(spec.as_2d(x.shape)) for x in arrays))
    like = spec.kept(mechanism, arrays)
    return y if like.ndim == 4 else y.reshape(*y.shape[:2], *like.shape[2:]), state


class NumpyOps(Ops[Any]):
    """The vocabulary of `foveate.ops` on (N, C, H, W) float64 arrays."""

    c, h, w, hw = (1,), (2,), (3,), (2, 3)

    def mean(self, x: Array, axes: Axes) -> Array:
        return x.mean(axes, keepdims=True)

    def max(self, x: Array, axes: Axes) -> Array:
        return x.max(axes, keepdims=True)

    def sum(self, x: Array, axes: Axes) -> Array:
        return x.sum(axes, keepdims=True)

    def variance(
        self, x: Array, axes: Axes, unbiased: bool = False, mean: Array | None = None, squares: Array | None = None
    ) -> Array:
        count = math.prod(x.shape[axis] for axis in axes)
        return ((x - self.mean(x, axes)) ** 2).sum(axes, keepdims=True) / max(count - unbiased, 1)

    def norm(self, x: Array, axes: Axes) -> Array:
        return np.sqrt((x * x).sum(axes, keepdims=True))

    def logsumexp(self, x: Array, axes: Axes) -> Array:
        peak = x.max(axes, keepdims=True)
        return peak + np.log(np.exp(x - peak).sum(axes, keepdims=True))

    def softmax(self, x: Array, axes: Axes) -> Array:
        share = np.exp(x - x.max(axes, keepdims=True))
        return share / share.sum(axes, keepdims=True)

    def sqrt(self, x: Array, eps: float = 0.0) -> Array:
        return np.sqrt(x + eps)

    def maximum(self, a: Array, b: Array) -> Array:
        return np.maximum(a, b)

    def average(self, xs: Sequence[Array]) -> Array:
        return super().average(xs)

    def sigmoid(self, x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def tanh(self, x: Array) -> Array:
        return np.tanh(x)

    def silu(self, x: Array) -> Array:
        return x / (1 + np.exp(-x))

    def gelu(self, x: Array) -> Array:
        return x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))) / 2

    def relu(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def hardswish(self, x: Array) -> Array:
        return x * np.clip(x + 3, 0, 6) / 6

    def concat(self, xs: Sequence[Array], axes: Axes) -> Array:
        return np.concatenate(xs, axes[0])

    def split(self, x: Array, sizes: Sequence[int], axes: Axes) -> Sequence[Array]:
        return np.split(x, np.cumsum(sizes)[:-1], axes[0])

    def size(self, x: Array, axes: Axes) -> int:
        return x.shape[axes[0]]

    def swap(self, x: Array, a: Axes, b: Axes) -> Array:
        return x.swapaxes(a[0], b[0])

    def transpose(self, x: Array) -> Array:
        return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)[..., None]

    def matmul(self, a: Array, b: Array) -> Array:
        return np.einsum("ndk,nkhw->ndhw", a.reshape(*a.shape[:2], -1), b)

    def group(self, x: Array, groups: int) -> Array:
        return x.reshape(x.shape[0] * groups, -1, *x.shape[2:])

    def ungroup(self, x: Array, groups: int) -> Array:
        return x.reshape(x.shape[0] // groups, -1, *x.shape[2:])

    def shuffle(self, x: Array, groups: int) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(x.shape)

    def pool(self, x: Array, kind: Pooling, window: int, stride: int = 1, padding: int = 0) -> Array:
        if kind == "mean_inside":
            means, shares = (self.pool(each, "mean", window, stride, padding) for each in (x, np.ones_like(x)))
            return means / shares
        outside = 0.0 if kind == "mean" else -np.inf
        padded = np.pad(x, [(0, 0)] * 2 + [(padding, padding)] * 2, constant_values=outside)
        windows = sliding_window_view(padded, (window, window), (2, 3))[:, :, ::stride, ::stride]
        return windows.mean((4, 5)) if kind == "mean" else windows.max((4, 5))

    def adaptive_pool(self, x: Array, kind: Literal["mean", "max"], size: tuple[int, int]) -> Array:
        reduce = self.mean if kind == "mean" else self.max
        for axis, after in zip(self.hw, size, strict=True):
            before = x.shape[axis]
            cells = [range(i * before // after, -(-(i + 1) * before // after)) for i in range(after)]
            x = np.concatenate([reduce(x.take(cell, axis), (axis,)) for cell in cells], axis)
        return x

    def resize(self, x: Array, like: Array, method: Resize) -> Array:
        for axis in self.hw:
            before, after = x.shape[axis], like.shape[axis]
            if method == "nearest":
                x = x.take(np.arange(after) * before // after, axis)
                continue
            if method == "aligned":
                places = np.arange(after) * (before - 1) / max(after - 1, 1)
            else:
                places = np.maximum((np.arange(after) + 0.5) * before / after - 0.5, 0)
            first = np.floor(places).astype(int)
            share = (places - first).reshape([-1 if each == axis else 1 for each in range(4)])
            second = np.minimum(first + 1, before - 1)
            x = x.take(first, axis) * (1 - share) + x.take(second, axis) * share
        return x

    def local_conv(self, x: Array, weights: Array, kernel: int) -> Array:
        n, _, h, w = x.shape
        pads = [(kernel // 2, kernel // 2)] * 2
        windows = sliding_window_view(np.pad(x, [(0, 0), (0, 0), *pads]), (kernel, kernel), (2, 3))
        taps = weights.reshape(n, -1, kernel, kernel, h, w)
        of_groups = windows.reshape(n, -1, taps.shape[1], h, w, kernel, kernel)
        return np.einsum("nrghwuv,nguvhw->nrghw", of_groups, taps).reshape(x.shape)

    def to_sequence(self, x: Array) -> Array:
        return np.moveaxis(x, 1, 3).reshape(x.shape[0], 1, -1)

    def from_sequence(self, s: Array, like: Array) -> Array:
        n, c, h, w = like.shape
        return np.moveaxis(s.reshape(n, h, w, c), 3, 1)

    def attend(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        q, k, v = (t.reshape(*t.shape[:2], -1) for t in (queries, keys, values))
        energy = scale * np.einsum("ncq,nck->nqk", q, k)
        share = np.exp(energy - energy.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return np.einsum("nqk,nck->ncq", share, v).reshape(*v.shape[:2], *queries.shape[2:])

    def criss_cross(self, queries: Array, keys: Array, values: Array) -> Array:
        h, w = queries.shape[2:]
        energy = np.einsum("ndhw,nduv->nhwuv", queries, keys)
        rows, columns = np.arange(h), np.arange(w)
        seen = (rows[:, None, None, None] == rows[:, None]) | (columns[:, None, None] == columns)
        energy = np.where(seen, energy, -np.inf)
        share = np.exp(energy - energy.max((3, 4), keepdims=True))
        return np.einsum("nhwuv,ncuv->nchw", share / share.sum((3, 4), keepdims=True), values)

    def weight(self, norm: Any) -> Array:
        return norm.weight[None, :, None, None]

    def apply(self, mechanism: spec.Mechanism, p: Any, *xs: Array) -> Array:
        return mechanism.forward(self, p, *xs)


ACTIVATIONS: Mapping[parts.Activation, Callable[[Array], Array]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "linear": lambda x: x,
}


class NumpyParts(parts.Maker[Any]):
    """The parts as functions that read their weights from `state` by their paths, and update its statistics."""

    def __init__(self, state: Weights, training: bool, start: parts.Start):
        self.state, self.training, self.start = state, training, start

    def conv(self, part: parts.Conv, path: str) -> Layer:
        weight, bias = self._weights(path)
        return lambda x: _convolve(x, weight, bias, part.pads, part.groups, part.dilation)[
            :, :, :: part.stride, :: part.stride
        ]

    def channel_conv(self, part: parts.ChannelConv, path: str) -> Layer:
        weight, bias = self._weights(path)
        return lambda s: _convolve(s[:, :, None], weight[:, :, None], bias, (0, part.kernel // 2))[:, :, 0]

    def norm(self, part: parts.Norm, path: str) -> Layer:
        if part.kind == "batch":
            prefix, state = f"{path}.", self.state
            return parts.Norms(
                lambda x: _normalise(x, state, prefix, part.momentum, part.eps, self.training), state[f"{path}.weight"]
            )
        weight, bias = self.state[f"{path}.weight"][:, None, None], self.state[f"{path}.bias"][:, None, None]
        groups = {"layer": 1, "group": part.groups, "instance": part.channels}[part.kind]
        axes = (2,) if part.kind == "layer" else (2, 3, 4)

        def norm(x: Array) -> Array:
            z = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
            z = (z - z.mean(axes, keepdims=True)) / np.sqrt(z.var(axes, keepdims=True) + part.eps)
            return z.reshape(x.shape) * weight + bias

        return parts.Norms(norm, self.state[f"{path}.weight"])

    def scale(self, part: parts.Scale, path: str) -> Layer:
        weight, bias = self._weights(path)
        return lambda x: x * weight[:, None, None] + (0.0 if bias is None else bias[:, None, None])

    def constant(self, part: parts.Constant, path: str) -> Layer:
        return lambda x: x * self.state[f"{path}.constant"]

    def gate(self, part: parts.Gate, path: str) -> Layer:
        scale, activate = part.scale(self.start), ACTIVATIONS[part.activation]
        return lambda x, logits: x * (scale * (part.offset + activate(logits)))

    def replace(self, part: parts.Replace, path: str) -> Layer:
        return lambda x, y: y if self.start == "paper" else x + y

    def group(self, parts: parts.Parts, path: str) -> Any:
        return SimpleNamespace(**self.make(parts, f"{path}." if path else ""))

    def _weights(self, path: str) -> tuple[Array, Array | None]:
        return self.state[f"{path}.weight"], self.state.get(f"{path}.bias")


def _convolve(
    x: Array, weight: Array, bias: Array | None, pads: tuple[int, int], groups: int = 1, dilation: int = 1
) -> Array:
    """Convolve with stride 1; the kernels of a group see its share of the channels."""
    kh, kw = ((size - 1) * dilation + 1 for size in weight.shape[2:])
    padded = np.pad(x, [(0, 0), (0, 0), *((pad, pad) for pad in pads)])
    windows = sliding_window_view(padded, (kh, kw), (2, 3))[..., ::dilation, ::dilation]
    shares = zip(np.split(windows, groups, 1), np.split(weight, groups), strict=True)
    y = np.concatenate([np.einsum("nchwuv,ocuv->nohw", *share) for share in shares], 1)
    return y if bias is None else y + bias[:, None, None]


def _normalise(x: Array, state: Weights, prefix: str, momentum: float, eps: float, training: bool) -> Array:
    mean, variance = state[prefix + "running_mean"], state[prefix + "running_var"]
    if training:
        batch_mean, batch_variance, count = x.mean((0, 2, 3)), x.var((0, 2, 3)), x.size // x.shape[1]
        state[prefix + "running_mean"] = mean + momentum * (batch_mean - mean)
        state[prefix + "running_var"] = variance + momentum * (batch_variance * count / (count - 1) - variance)
        if prefix + "num_batches_tracked" in state:
            state[prefix + "num_batches_tracked"] = state[prefix + "num_batches_tracked"] + 1
        mean, variance = batch_mean, batch_variance
    scale = state[prefix + "weight"] / np.sqrt(variance + eps)
    return x * scale[:, None, None] + (state[prefix + "bias"] - mean * scale)[:, None, None]

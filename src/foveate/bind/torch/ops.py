"""The vocabulary of `foveate.ops` in torch, on (N, C, H, W) tensors of any memory format."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from foveate.bind.torch.maximum import amax
from foveate.kernels import dispatch
from foveate.ops import Axes, Ops, Pooling, Resize
from foveate.spec import Mechanism

# From these numbers of pairs on, torch's fused attention is used. It is faster than a matrix of all pairs where queries
# and values are as wide; otherwise the narrower are filled up, which costs time and saves memory.
PAIRS, PAIRS_OF_WIDTHS = 2**21, 2**24


class TorchOps(Ops[Tensor]):
    """Reductions over axes, not adaptive pooling, so that every H and W runs and exports. Holds no state."""

    c, h, w, hw = (1,), (2,), (3,), (2, 3)

    def mean(self, x: Tensor, axes: Axes) -> Tensor:
        return x.mean(axes, keepdim=True)

    def max(self, x: Tensor, axes: Axes) -> Tensor:
        return amax(x, axes)

    def sum(self, x: Tensor, axes: Axes) -> Tensor:
        return x.sum(axes, keepdim=True)

    def variance(
        self, x: Tensor, axes: Axes, unbiased: bool = False, mean: Tensor | None = None, squares: Tensor | None = None
    ) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):  # whose squares could be too large
            biased = x.var(axes, correction=0, keepdim=True)
        else:  # torch's own takes ten times as long on a CPU
            if squares is None:
                squares = (x - (x.mean(axes, keepdim=True) if mean is None else mean)) ** 2
            biased = squares.mean(axes, keepdim=True)
        if not unbiased:
            return biased
        count = math.prod([x.shape[axis] for axis in axes])
        return biased * (count / max(count - 1, 1))

    def norm(self, x: Tensor, axes: Axes) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=axes, keepdim=True)  # summed in float32 for half precision
        if not isinstance(x, Tensor) or x.dtype != torch.float16:  # not a tensor: traced by FX, without a precision
            return norm
        return norm.nan_to_num(nan=float("nan"))  # at most the largest number: infinite, the gate would be NaN

    def logsumexp(self, x: Tensor, axes: Axes) -> Tensor:
        for axis in reversed(axes):  # one after the other: over both, float16 overflows above 65504 positions
            x = x.logsumexp(axis, keepdim=True)
        return x

    def softmax(self, x: Tensor, axes: Axes) -> Tensor:
        if len(axes) == 1:
            return x.softmax(axes[0])
        return x.flatten(2).softmax(2).unflatten(2, x.shape[2:])

    def sqrt(self, x: Tensor, eps: float = 0.0) -> Tensor:
        if eps:
            return (x + eps).sqrt()
        if not torch.is_grad_enabled():
            return x.sqrt()
        zero = x == 0
        return x.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)

    def average(self, xs: Sequence[Tensor]) -> Tensor:
        y = xs[0]
        for count, x in enumerate(xs[1:], 2):
            y = torch.lerp(y, x, 1 / count)  # one pass
        return y

    def sigmoid(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def tanh(self, x: Tensor) -> Tensor:
        return x.tanh()

    def silu(self, x: Tensor) -> Tensor:
        return functional.silu(x)

    def gelu(self, x: Tensor) -> Tensor:
        return functional.gelu(x)

    def relu(self, x: Tensor) -> Tensor:
        return functional.relu(x)

    def hardswish(self, x: Tensor) -> Tensor:
        return functional.hardswish(x)

    def concat(self, xs: Sequence[Tensor], axes: Axes) -> Tensor:
        return torch.cat(list(xs), axes[0])

    def split(self, x: Tensor, sizes: Sequence[int], axes: Axes) -> Sequence[Tensor]:
        return x.split(list(sizes), axes[0])

    def size(self, x: Tensor, axes: Axes) -> int:
        return x.shape[axes[0]]

    def swap(self, x: Tensor, a: Axes, b: Axes) -> Tensor:
        return x.transpose(a[0], b[0])

    def transpose(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2).unsqueeze(3)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        # squeeze keeps strides of a single column that make the product fast; flatten alone does not. In ONNX, it may
        # only drop an axis of length 1.
        columns = b if torch.compiler.is_exporting() else b.squeeze(3)
        return (a.flatten(2) @ columns.flatten(2)).unflatten(2, b.shape[2:])

    def group(self, x: Tensor, groups: int) -> Tensor:
        return x.unflatten(1, (groups, -1)).flatten(0, 1)

    def ungroup(self, x: Tensor, groups: int) -> Tensor:
        return x.unflatten(0, (-1, groups)).flatten(1, 2)

    def shuffle(self, x: Tensor, groups: int) -> Tensor:
        return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)

    def pool(self, x: Tensor, kind: Pooling, window: int, stride: int = 1, padding: int = 0) -> Tensor:
        if kind == "max":
            return functional.max_pool2d(x, window, stride, padding)
        return functional.avg_pool2d(x, window, stride, padding, count_include_pad=kind == "mean")

    def adaptive_pool(self, x: Tensor, kind: Literal["mean", "max"], size: tuple[int, int]) -> Tensor:
        if not torch.compiler.is_compiling():
            if x.shape[2:] == size:
                return x
            if kind == "mean" and (window := _window(x, size)):
                return functional.avg_pool2d(x, window)
            return (functional.adaptive_avg_pool2d if kind == "mean" else functional.adaptive_max_pool2d)(x, size)
        for axis, after in zip(self.hw, size, strict=True):  # torch's own is exported for the size of the example only
            x = _adaptive(x.movedim(axis, 3), kind, after).movedim(3, axis)
        return x

    def resize(self, x: Tensor, like: Tensor, method: Resize) -> Tensor:
        if method == "nearest":
            return functional.interpolate(x, like.shape[2:], mode=method)
        return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=method == "aligned")

    def local_conv(self, x: Tensor, weights: Tensor, kernel: int) -> Tensor:
        h, w = x.shape[2:]
        taps = weights.unflatten(1, (-1, kernel * kernel))
        padded = functional.pad(x, [kernel // 2] * 4).unflatten(1, (-1, taps.shape[1]))
        y = torch.zeros_like(x).unflatten(1, (-1, taps.shape[1]))
        for tap in range(kernel * kernel):  # one after the other: all neighbours at once are kernel^2 maps
            down, right = divmod(tap, kernel)
            y = torch.addcmul(y, padded[..., down : down + h, right : right + w], taps[:, None, :, tap])
        return y.flatten(1, 2)

    def to_sequence(self, x: Tensor) -> Tensor:
        return x.movedim(1, 3).flatten(1).unsqueeze(1)

    def from_sequence(self, s: Tensor, like: Tensor) -> Tensor:
        n, c, h, w = like.shape
        return s.reshape(n, h, w, c).movedim(3, 1)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        q, k, v = (t.flatten(2) for t in (queries, keys, values))
        if torch.compiler.is_compiling() or _is_large(q, k, v):
            mixed = _attend_fused(q, k, v, scale)
        else:
            mixed = v @ ((q if scale == 1 else scale * q).mT @ k).softmax(2).mT
        return mixed.unflatten(2, queries.shape[2:])

    def criss_cross(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        h, w = values.shape[2:]
        q, k, v = (t.permute(0, 3, 2, 1) for t in (queries, keys, values))  # (N, W, H, C), one matrix for each column
        own = torch.full_like(q[0, 0, :, 0], -math.inf).diag()  # a position itself, which is also in its row
        in_column = (q @ k.mT + own).transpose(1, 2)
        q, k, rows = (t.transpose(1, 2) for t in (q, k, v))
        shares = torch.cat([in_column, q @ k.mT], 3).softmax(3)
        of_column, of_row = shares.split([h, w], 3)
        mixed = of_column.transpose(1, 2) @ v + (of_row @ rows).transpose(1, 2)
        return mixed.permute(0, 3, 2, 1)

    def weight(self, norm: Any) -> Tensor:
        return norm.weight.detach()[None, :, None, None]

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor, inplace: bool = False) -> Tensor:
        y = dispatch.run(mechanism, p, *xs, inplace=inplace) if len(xs) == 1 else None
        return _as_laid_out(xs[0], mechanism.forward(self, p, *xs)) if y is None else y


class PositionOps(TorchOps):
    """The vocabulary for maps of another rank, which have positions but neither rows nor columns."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("h", "w", "pool", "adaptive_pool", "resize", "local_conv", "criss_cross"):
            raise AttributeError(name=name, obj=self)
        return super().__getattribute__(name)


def _as_laid_out(x: Tensor, y: Tensor) -> Tensor:
    """Return y in channels last if x is: groups of channels lose the memory format."""
    if torch.compiler.is_compiling() or not _is_channels_last(x) or _is_channels_last(y):
        return y
    return y.contiguous(memory_format=torch.channels_last)


def _is_channels_last(x: Tensor) -> bool:
    """Return whether channels lie side by side in memory, by the strides, which transforms such as vmap have too."""
    return x.dim() == 4 and x.stride(1) == 1


def _window(x: Tensor, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the window of the pooling that gives the same bits as the adaptive one and is faster, or None."""
    (height, width), (rows, columns) = x.shape[2:], size
    if height % rows or width % columns:
        return None
    window = height // rows, width // columns
    return window if all(side & (side - 1) == 0 for side in window) else None  # else the two divide differently


def _adaptive(x: Tensor, kind: str, after: int) -> Tensor:
    """Pool the last axis to `after` cells, as `Ops.adaptive_pool` says."""
    before = x.shape[3]
    cells = torch.arange(after, device=x.device)
    first, last = (cells * before // after)[:, None], ((cells + 1) * before + after - 1)[:, None] // after - 1
    if kind == "max":
        window = first + torch.arange(before // after + 2, device=x.device)
        return x[..., torch.minimum(window, last)].amax(4)
    places = torch.arange(before, device=x.device)
    inside = (first <= places) & (places <= last)
    return x @ inside.to(x.dtype).mT / (last - first + 1).mT


OPS, POSITIONS = TorchOps(), PositionOps()


def as_2d(x: Tensor, rank: int) -> Tensor:
    """View a map of that rank as (N, C, H, W), as `foveate.spec.as_2d` says."""
    return x if rank == 4 else x.unsqueeze(3) if rank == 3 else x.flatten(3)


def from_2d(y: Tensor, like: Tensor, rank: int) -> Tensor:
    """View what a mechanism made as a map of that rank again, with the positions of `like`."""
    return y if rank == 4 else y.squeeze(3) if rank == 3 else y.unflatten(3, like.shape[3:])


def _is_large(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Return whether so many pairs of positions meet that their matrix takes more memory or time than it saves."""
    return q.shape[2] * k.shape[2] >= (PAIRS if q.shape[1] == v.shape[1] else PAIRS_OF_WIDTHS)


def _attend_fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend without a matrix of all pairs; torch needs one width for all three, and rows of positions in memory."""
    width = max(q.shape[1], v.shape[1])
    a, b, c = (functional.pad(t.mT, (0, width - t.shape[1])).contiguous().unsqueeze(1) for t in (q, k, v))
    mixed = functional.scaled_dot_product_attention(a, b, c, scale=scale).squeeze(1)
    return mixed[..., : v.shape[1]].mT

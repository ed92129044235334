"""The vocabulary of `foveate.ops` in torch, on (N, C, H, W) tensors of any memory format."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foveate.kernels import dispatch
from foveate.ops import Axes, Ops
from foveate.spec import Mechanism


class TorchOps(Ops[Tensor]):
    """Reductions over axes, not adaptive pooling, so that every H and W runs and exports. Holds no state."""

    c, h, w, hw = (1,), (2,), (3,), (2, 3)

    def mean(self, x: Tensor, axes: Axes) -> Tensor:
        return x.mean(axes, keepdim=True)

    def max(self, x: Tensor, axes: Axes) -> Tensor:
        return x.amax(axes, keepdim=True)

    def norm(self, x: Tensor, axes: Axes) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=axes, keepdim=True)  # summed in float32 for half precision
        if not isinstance(x, Tensor) or x.dtype != torch.float16:  # not a tensor: traced by FX, without a precision
            return norm
        return norm.nan_to_num(nan=float("nan"))  # at most the largest number: infinite, the gate would be NaN

    def logsumexp(self, x: Tensor, axes: Axes) -> Tensor:
        for axis in reversed(axes):  # one after the other: over both, float16 overflows above 65504 positions
            x = x.logsumexp(axis, keepdim=True)
        return x

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

    def to_sequence(self, v: Tensor) -> Tensor:
        return v.flatten(1).unsqueeze(1)

    def from_sequence(self, s: Tensor) -> Tensor:
        return s.transpose(1, 2).unsqueeze(3)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
        q, k, v = (t.flatten(2).transpose(1, 2).unsqueeze(1) for t in (queries, keys, values))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        return mixed.squeeze(1).transpose(1, 2).unflatten(2, queries.shape[2:])

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor, inplace: bool = False) -> Tensor:
        y = dispatch.run(mechanism, p, *xs, inplace=inplace) if len(xs) == 1 else None
        return mechanism.forward(self, p, *xs) if y is None else y


class PositionOps(TorchOps):
    """The vocabulary for maps of another rank, which have positions but neither rows nor columns."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("h", "w"):
            raise AttributeError(name=name, obj=self)
        return super().__getattribute__(name)


OPS, POSITIONS = TorchOps(), PositionOps()


def as_2d(x: Tensor, rank: int) -> Tensor:
    """View a map of that rank as (N, C, H, W), as `foveate.spec.as_2d` says."""
    return x if rank == 4 else x.unsqueeze(3) if rank == 3 else x.flatten(3)


def from_2d(y: Tensor, like: Tensor, rank: int) -> Tensor:
    """View what a mechanism made as a map of that rank again, with the positions of `like`."""
    return y if rank == 4 else y.squeeze(3) if rank == 3 else y.unflatten(3, like.shape[3:])

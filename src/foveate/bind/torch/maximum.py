"""The maximum over axes, with a faster gradient and a faster walk through memory than torch's own."""

from typing import Any

import torch
from torch import Tensor

from foveate.kernels import dispatch


def amax(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return `x.amax(axes, keepdim=True)` of x (N, C, H, W), its bits and its gradient, which equal maxima share."""
    if type(x) is not Tensor or dispatch.why_not_eager() is not None:
        return x.amax(axes, keepdim=True)
    if x.requires_grad and torch.is_grad_enabled():
        return _Amax.apply(x, axes)  # pyright: ignore[reportReturnType]
    return _reduce(torch.amax, x, axes)


class _Amax(torch.autograd.Function):
    """torch's own backward counts the maxima in int64 and divides a whole map: three to eight times the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        y = _reduce(torch.amax, x, axes)
        ctx.save_for_backward(x, y)
        ctx.axes = axes
        return y

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        largest = torch.eq(x, y, out=torch.empty_like(x))  # 1 or 0 in the type of x
        return largest * (dy[0] / _reduce(torch.sum, largest, ctx.axes)), None


def _reduce(reduction: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Reduce in the order of memory: over rows or columns in channels last, torch takes up to 40 times as long."""
    if axes not in ((2,), (3,)) or x.stride(1) != 1 or x.is_contiguous():
        return reduction(x, axes, keepdim=True)
    return reduction(x.permute(0, 2, 3, 1), axes[0] - 1, keepdim=True).permute(0, 3, 1, 2).contiguous()

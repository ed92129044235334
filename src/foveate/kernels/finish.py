"""The rest of a residual block with the attention, in one pass: activation(attention(x) + shortcut)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate.kernels import chosen, dispatch, ops, table
from foveate.kernels.table import Unfit
from foveate.kernels.torch_modules import TORCH
from foveate.spec import Mechanism

ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "silu", "hardswish")
"""The activations of the kernels, by their numbers."""


def activation(name: str, slope: float = 0.0) -> Callable[[Tensor], Tensor] | None:
    """Return torch's function of an activation, None for "none"; `slope` is that of a leaky ReLU."""
    if name == "none":
        return None
    return partial(F.leaky_relu, negative_slope=slope) if name == "leaky_relu" else getattr(F, name)


def run(
    x: Tensor, shortcut: Tensor | None, name: str, slope: float = 0.0, mechanism: Mechanism | None = None, p: Any = None
) -> Tensor | None:
    """Overwrite x (N, C, H, W) with activation(mechanism(x) + shortcut); return None where no kernel can.

    Without a mechanism it is activation(x + shortcut). x is then as it was where None is returned.
    """
    if chosen.choice in dispatch.PLAIN or torch.compiler.is_compiling() or not _fit(x, shortcut):
        return None
    number = ACTIVATIONS.index(name)
    try:
        if mechanism is None:
            dispatch.check_input(x)
            return ops.finish_(x, shortcut, number, slope) if x.dim() == 4 else None
        if x.dim() != 4 or table.inner(mechanism, p):
            return None
        found = dispatch.find(mechanism, p, x, TORCH)
    except Unfit:
        return None
    if found.norm is not None or any(isinstance(value, Tensor) and _learns(value) for value in found.args):
        return None
    return found.operation.finish_(x, shortcut, number, slope, *found.args)


def _fit(x: Tensor, shortcut: Tensor | None) -> bool:
    if ops.unavailable is not None or _learns(x) or dispatch.why_not_eager() is not None:
        return False
    return shortcut is None or (
        type(shortcut) is Tensor
        and shortcut.shape == x.shape
        and shortcut.dtype is x.dtype
        and shortcut.is_cpu
        and not _learns(shortcut)
    )


def _learns(x: Tensor) -> bool:
    return torch.is_grad_enabled() and x.requires_grad

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
    if chosen.choice in dispatch.PLAIN or torch.compiler.is_compiling() or x.dim() != 4:
        return None
    if mechanism is not None and table.inner(mechanism, p):
        return None
    try:
        if mechanism is None:
            dispatch.check_call(x)
            found = None
        else:
            found = dispatch.find(mechanism, p, x, TORCH)
    except Unfit:
        return None
    if not _fits(shortcut, x) or ops.learn(x, shortcut, *(found.args if found else ())):
        return None
    number = ACTIVATIONS.index(name)
    if found is None:
        return ops.finish_(x, shortcut, number, slope)
    return None if found.norm is not None else found.operation.finish_(x, shortcut, number, slope, *found.args)


def _fits(shortcut: Tensor | None, x: Tensor) -> bool:
    if shortcut is None:
        return True
    alike = shortcut.shape == x.shape and shortcut.dtype is x.dtype and shortcut.device == x.device
    return type(shortcut) is Tensor and alike

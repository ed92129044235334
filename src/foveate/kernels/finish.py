"""What surrounds attention in a block, in the same passes: activation(attention(before(x)) + shortcut)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate.kernels import chosen, dispatch, ops, table
from foveate.kernels.table import Unfit
from foveate.kernels.torch_modules import TORCH
from foveate.spec import Mechanism

ACTIVATIONS = ("none", "relu", "relu6", "leaky_relu", "silu", "hardswish")
"""The activations of the kernels, by their numbers."""


class Activation(NamedTuple):
    """One of ACTIVATIONS; `slope` is that of a leaky ReLU."""

    name: str = "none"
    slope: float = 0.0

    @property
    def number(self) -> int:
        """The number that the kernels take."""
        return ACTIVATIONS.index(self.name)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the activated x, by torch's own function."""
        if self.name == "none":
            return x
        return F.leaky_relu(x, self.slope) if self.name == "leaky_relu" else getattr(F, self.name)(x)


NONE = Activation()


def add(x: Tensor, shortcut: Tensor | None, activation: Activation) -> Tensor | None:
    """Overwrite x (N, C, H, W) with activation(x + shortcut); return None, with x as it was, where no kernel can."""
    if _off() or x.dim() != 4:
        return None
    try:
        dispatch.check_call(x)
    except Unfit:
        return None
    if not fits(shortcut, x) or ops.learn(x, shortcut):
        return None
    return ops.finish_(x, shortcut, activation.number, activation.slope)


def attend(
    mechanism: Mechanism, p: Any, x: Tensor, before: Activation, shortcut: Tensor | None, activation: Activation
) -> Tensor | None:
    """Overwrite x (N, C, H, W) with activation(mechanism(before(x)) + shortcut).

    Return None, with x as it was, where no kernel can.
    """
    if _off() or x.dim() != 4 or table.inner(mechanism, p):
        return None
    try:
        found = dispatch.find(mechanism, p, x, TORCH)
    except Unfit:
        return None
    if found.norm is not None or not fits(shortcut, x) or ops.learn(x, shortcut, *found.args):
        return None
    around = before.number, before.slope, shortcut, activation.number, activation.slope
    return found.operation.finish_(x, *around, *found.args)


def _off() -> bool:
    return chosen.choice in dispatch.PLAIN or torch.compiler.is_compiling()


def fits(shortcut: Tensor | None, x: Tensor) -> bool:
    """Return whether a kernel can add the shortcut to x."""
    if shortcut is None:
        return True
    alike = shortcut.shape == x.shape and shortcut.dtype is x.dtype and shortcut.device == x.device
    return type(shortcut) is Tensor and alike

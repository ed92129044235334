"""The tolerance of computed numbers against the truth, defined only here.

Fixed bounds, relative to the greatest magnitude, serve where a test is about something else than rounding.

Where rounding itself is the question, the bound is measured, in float64 and so alike on every processor: the plain
operations run several times, each time with every result rounded to the dtype, on a grid of its own (`Rounded`). How
far these runs lie from the truth is what rounding does to this computation, with all that magnifies it (a batch norm of
few values, a sum that cancels). A correct program rounds at other places and in another order; it may be SPREADS times
as far from the truth.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

T = TypeVar("T")

# The greatest error against float64 over the greatest magnitude. Raising one is the last resort.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}
GOLDEN = {torch.float64: 1e-9, torch.float32: 2e-5}

GRIDS = 4
SPREADS = 6.0

NORMS = {op: run for op, run in decomposition_table.items() if "batch_norm" in str(op)}
EXACT = ("amax", "detach", "view", "expand", "copy_")  # operations that select or move values and compute no new ones


class Rounded(TorchDispatchMode):
    """Round every result of float64 operations to a dtype, on a grid scaled by `scale`; equal values stay equal.

    A library may add the n terms of a sum one after another, which rounds n times. For terms of both signs, that gives
    an error of about sqrt(n) / 2 roundings of the result. In bfloat16, libraries add in float32 and round once.
    """

    def __init__(self, dtype: torch.dtype, scale: float):
        super().__init__()
        self.dtype, self.scale = dtype, scale

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if func in NORMS:
            with self:  # its steps are rounded one by one
                return NORMS[func](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if func.is_view or name in EXACT:
            return result
        if name == "convolution_backward":
            return tuple(self.round(one, n) for one, n in zip(result, _terms_backward(*args[:3]), strict=True))
        return tree_map(lambda value: self.round(value, _terms(name, args, value)), result)

    def round(self, value: Any, terms: float = 1) -> Any:
        """Return the value, rounded as the sum of this number of terms would be."""
        if not isinstance(value, Tensor) or value.dtype != torch.float64:
            return value
        nearest = (value * self.scale).to(self.dtype).double() / self.scale
        roundings = max(1.0, math.sqrt(terms) / 2) if self.dtype == torch.float32 else 1.0
        return nearest if roundings == 1 else value + roundings * (nearest - value)


def _terms(name: str, args: tuple[Any, ...], result: Any) -> float:
    """Return of how many terms each value of the result is the sum."""
    if name in ("sum", "mean", "var_mean", "var") and result.numel():
        return args[0].numel() / result.numel()
    if name == "convolution":
        return args[1][0].numel()
    return args[-1].shape[-2] if name in ("mm", "bmm", "addmm") else 1


def _terms_backward(dy: Tensor, x: Tensor, weight: Tensor) -> tuple[float, float, float]:
    """Return the same for the gradients of a convolution: of its input, its weight and its bias."""
    positions = dy.numel() / dy.shape[1]
    return weight.numel() / weight.shape[1], positions, positions


def with_roundings(call: Callable[[], T], dtype: torch.dtype) -> list[T]:
    """Return the result of the call, in float64, on each grid."""
    found = []
    for i in range(GRIDS):
        with Rounded(dtype, 1 + (0.5 + i * 0.618) % 1):  # spread over an octave
            found.append(call())
    return found


def allowance(exact: Tensor, rounded: Iterable[Tensor]) -> float:
    """Return the largest allowed error, from the truth and the results with roundings."""
    return SPREADS * max(error(exact, one) for one in rounded)


def error(exact: Tensor, got: Tensor) -> float:
    """Return the largest difference, infinity if one is NaN."""
    difference = (got.double() - exact.double()).abs().max().item()
    return difference if difference == difference else float("inf")


def distance(got: Tensor, want: Tensor) -> float:
    """Return the largest difference over the largest wanted magnitude, infinity if a difference is NaN."""
    return error(want.detach(), got.detach()) / want.detach().double().abs().max().item()

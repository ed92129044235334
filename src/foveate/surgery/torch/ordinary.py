"""Bound mechanisms as ordinary modules: a generated forward over their layers, for tracing and scripting."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveate.bind.torch.attention import Attention
from foveate.bind.torch.ops import TorchOps, as_2d, from_2d
from foveate.spec import Mechanism, kept

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class OrdinaryAttention(fx.GraphModule):
    """A mechanism whose forward is generated code, without checks and kernels."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "OrdinaryAttention":
        made = super().__deepcopy__(memo)
        for name in {"qconfig", *HOOKS} & vars(self).keys():  # which a GraphModule leaves behind
            setattr(made, name, copy.deepcopy(getattr(self, name), memo))
        return made  # pyright: ignore[reportReturnType]


class _PlainOps(TorchOps):
    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor, inplace: bool = False) -> Tensor:
        return mechanism.forward(self, p, *xs)

    def sqrt(self, x: Tensor, eps: float = 0.0) -> Tensor:
        with torch.enable_grad():  # the generated code may be trained, whatever the mode is now
            return super().sqrt(x, eps)


class _Tracer(fx.Tracer):
    """Every layer is a leaf. Conditions on sizes only guard errors in a mechanism, so that none holds."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def to_bool(self, obj: Any) -> bool:
        return False


class _Plain(nn.Module):
    """The parts of a mechanism, and its forward for the tracer."""

    def __init__(self, attention: Attention, ranks: Sequence[int]):
        super().__init__()
        self.mechanism, self.ranks = attention.mechanism, ranks
        self._modules.update(attention._modules)
        self.training = attention.training

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)

    def compute(self, *maps: Tensor) -> Tensor:
        y = _PlainOps().apply(self.mechanism, self, *map(as_2d, maps, self.ranks))
        return from_2d(y, kept(self.mechanism, maps), kept(self.mechanism, self.ranks))


class _PlainOfTwo(_Plain):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.compute(x, context)


def is_mechanism(module: nn.Module) -> bool:
    """Return whether a module is a bound mechanism that computes what its definition says."""
    return isinstance(module, Attention) and type(module).forward is Attention.forward


def ordinary(attention: Attention, ranks: Sequence[int]) -> OrdinaryAttention:
    """Return what computes the same over the same layers as a mechanism called with one or two maps of these ranks."""
    plain = (_Plain if len(ranks) == 1 else _PlainOfTwo)(attention, ranks)
    made = OrdinaryAttention(plain, _Tracer().trace(plain), type(attention).__name__)
    made.graph.eliminate_dead_code()
    made.recompile()
    for hooks in HOOKS:
        getattr(made, hooks).update(getattr(attention, hooks))
    return made

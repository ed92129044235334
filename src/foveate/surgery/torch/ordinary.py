"""Bound mechanisms as ordinary modules: a generated forward over their layers, for tracing and scripting."""

import copy
from typing import Any

from torch import Tensor, fx, nn

from foveate.bind.torch import Attention
from foveate.bind.torch_ops import TorchOps
from foveate.spec import Mechanism

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class OrdinaryAttention(fx.GraphModule):
    """A mechanism whose forward is generated code, (N, C, H, W) -> (N, C, H, W), without checks and kernels."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "OrdinaryAttention":
        made = super().__deepcopy__(memo)
        for name in {"qconfig", *HOOKS} & vars(self).keys():  # which a GraphModule leaves behind
            setattr(made, name, copy.deepcopy(getattr(self, name), memo))
        return made  # pyright: ignore[reportReturnType]


class _PlainOps(TorchOps):
    def apply(self, mechanism: Mechanism, p: nn.Module, x: Any, *others: Any, inplace: bool = False) -> Any:
        return mechanism.forward(self, p, x, *others)


class _Tracer(fx.Tracer):
    """Every layer is a leaf. Conditions on sizes only guard errors in a mechanism, so that none holds."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def to_bool(self, obj: Any) -> bool:
        return False


class _Plain(nn.Module):
    """The parts of a mechanism, and its forward for the tracer."""

    def __init__(self, attention: Attention):
        super().__init__()
        self.mechanism = attention.mechanism
        self._modules.update(attention._modules)
        self.training = attention.training

    def forward(self, x: Tensor) -> Tensor:
        return self.mechanism.forward(_PlainOps(), self, x)


class _PlainOfTwo(_Plain):
    def forward(self, x: Tensor, context: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        mechanism: Any = self.mechanism
        return mechanism.forward(_PlainOps(), self, x, context)


def is_mechanism(module: nn.Module) -> bool:
    """Return whether a module is a bound mechanism that computes what its definition says."""
    return isinstance(module, Attention) and type(module).forward is Attention.forward


def ordinary(attention: Attention, inputs: int = 1) -> OrdinaryAttention:
    """Return what computes the same as a mechanism that is called with one map or two, over the same layers."""
    plain = (_Plain if inputs == 1 else _PlainOfTwo)(attention)
    made = OrdinaryAttention(plain, _Tracer().trace(plain), type(attention).__name__)
    made.graph.eliminate_dead_code()
    made.recompile()
    for hooks in HOOKS:
        getattr(made, hooks).update(getattr(attention, hooks))
    return made

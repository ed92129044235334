"""An operation that is prepared for the next calls of a module of attention: one look at what may change, one call.

In a network the caches lose Foveate's code and data between two calls, so each function and each object on the way to
the operation takes time. This is the short way; wherever it does not apply, `dispatch` decides.
"""

import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, is_inference_mode_enabled, nn
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version
from torch.compiler import is_dynamo_compiling

from foveate.kernels import chosen, ops, table
from foveate.kernels.dispatch import GLOBAL_HOOKS, functorch_level
from foveate.kernels.finish import NONE, Activation
from foveate.kernels.table import Unfit
from foveate.kernels.torch_modules import TorchReader
from foveate.kernels.watched import Watched

PREPARED = "_foveate_prepared"
"""The attribute of a module that keeps what `prepare` made for its next call, or None."""

_is_tracing: Any = torch._C._is_tracing
_dispatch_modes: Any = torch._C._len_torch_dispatch_stack
_function_modes: Any = torch._C._len_torch_function_stack


class PreparedOperation:
    """activation(attention(before(x)) + shortcut) for maps x (N, C, H, W) with these channels, in place.

    Raises Unfit where no operation computes it with the same arguments at each call.
    """

    def __init__(self, attention: nn.Module, channels: int, activation: Activation, before: Activation):
        mechanism: Any = attention.mechanism
        watched = Watched()
        watched.layer(attention)
        work = table.work(mechanism, attention, TorchReader(watched))
        table.convolutions(work)
        if work.norm is not None:
            raise Unfit("batch statistics")
        if any(isinstance(value, Tensor) and value.grad_fn for value in work.args):
            raise Unfit("computed weights")
        self.attention, self.channels, self.around = attention, channels, (activation, before)
        self.numbers = (activation.number, activation.slope, before.number, before.slope)
        self._unchanged = watched.unchanged
        self.number: int = work.operation.prepare(channels, *work.args)
        weakref.finalize(self, torch.ops.foveate.release, self.number).atexit = False

    def is_of(self, attention: nn.Module, channels: int, activation: Activation, before: Activation) -> bool:
        """Return whether it was prepared for all this, which is as it was."""
        same = self.attention is attention and self.channels == channels and self.around == (activation, before)
        return same and self._unchanged()

    def run(self, x: Tensor, shortcut: Tensor | None = None) -> bool:
        """Overwrite x with the result; return False, with x as it was, where `dispatch` must decide."""
        if (
            chosen.choice is not None
            or is_grad_enabled()
            or type(x) is not Tensor
            or not (shortcut is None or type(shortcut) is Tensor)
            or any(GLOBAL_HOOKS)
            or _dispatch_modes()
            or _function_modes()
            or _is_tracing()
            or functorch_level() is not None
            or forward_ad._current_level >= 0
            or not self._unchanged()
        ):
            return False
        try:
            if is_inference_mode_enabled():
                done = ops.prepared(x, self.number, shortcut, *self.numbers)
            else:
                with torch._C._AutoDispatchBelowAutograd():
                    done = ops.prepared(x, self.number, shortcut, *self.numbers)
        except NotImplementedError:  # x is on another device now
            return False
        if done and not x.is_inference():
            increment_version(x)  # so that autograd notices the change
        return done

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def prepare(
    module: nn.Module, attention: nn.Module, x: Tensor, activation: Activation = NONE, before: Activation = NONE
) -> None:
    """Keep in a module, for its next call, the operation that just overwrote x (N, C, H, W), where there is one."""
    if is_dynamo_compiling() or is_grad_enabled() or chosen.choice is not None:
        return
    ready = vars(module).get(PREPARED)
    if ready is not None and ready.is_of(attention, x.shape[1], activation, before):
        return  # it does not take this x, such as bfloat16 under autocast
    made = None
    mechanism: Any = attention.mechanism
    if x.is_cpu and not table.inner(mechanism, attention):
        with suppress(Unfit):
            made = PreparedOperation(attention, x.shape[1], activation, before)
    vars(module)[PREPARED] = made

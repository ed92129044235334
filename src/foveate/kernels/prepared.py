"""An operation that is prepared for the next calls of a module of attention.

In a network the caches lose Foveate's code and data between two calls, so each function and each object on the way to
the operation takes time. This is the short way: one check whether anything changed, and one call. Wherever it does not
apply, `dispatch` decides.
"""

import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, is_inference_mode_enabled, nn
from torch.autograd import forward_ad
from torch.autograd.graph import increment_version

from foveate.kernels import chosen, ops, table
from foveate.kernels.dispatch import GLOBAL_HOOKS, functorch_level, why_not_eager
from foveate.kernels.finish import NONE, Activation, fits
from foveate.kernels.layer_reading import READING
from foveate.kernels.table import Unfit
from foveate.kernels.torch_modules import TorchReader
from foveate.kernels.watched import Watched

PREPARED = "_foveate_prepared"
"""The attribute of a module that keeps what `prepare` made for its next call, or None."""
READ = ("forward", "mechanism", "_modules", "vocabulary", "inplace", "rank")
"""The attributes of a module of attention that decide how it is computed; some are absent."""

_is_tracing: Any = torch._C._is_tracing
_dispatch_modes: Any = torch._C._len_torch_dispatch_stack
_function_modes: Any = torch._C._len_torch_function_stack
_ended: list[int] = []


class PreparedOperation:
    """activation(attention(before(x)) + shortcut) in place, for maps (N, C, H, W) with these channels and this type.

    Raises Unfit where no operation computes it with the same arguments at each call.
    """

    def __init__(
        self,
        attention: nn.Module,
        channels: int,
        dtype: torch.dtype,
        activation: Activation = NONE,
        before: Activation = NONE,
    ):
        mechanism: Any = attention.mechanism
        if table.inner(mechanism, attention):
            raise Unfit("several operations")
        watched = Watched()
        watched.attributes(attention, READ)
        work = table.work(mechanism, attention, TorchReader(watched))
        table.convolutions(work)
        if work.norm is not None:
            raise Unfit("batch statistics")
        if any(isinstance(value, Tensor) and value.grad_fn for value in work.args):
            raise Unfit("computed weights")
        self.attention, self.channels, self.dtype, self.around = attention, channels, dtype, (activation, before)
        self.refused = False  # the operation does not take such a map, for example under autocast
        self._numbers = activation.number, activation.slope, before.number, before.slope
        self._unchanged = watched.unchanged
        _release()
        self.number: int = work.operation.prepare(channels, *work.args)
        weakref.finalize(self, _end, self.number).atexit = False

    def holds(self, attention: nn.Module, *key: Any) -> bool:
        """Return whether it was prepared for this attention and this key, and nothing changed since."""
        same = self.attention is attention and (self.channels, self.dtype, *self.around) == key
        return same and (self.refused or self._unchanged())

    def run(self, x: Tensor, shortcut: Tensor | None = None) -> bool:
        """Overwrite x with the result; return False, with x as it was, where `dispatch` must decide."""
        if (
            self.refused
            or chosen.choice is not None
            or is_grad_enabled()
            or type(x) is not Tensor
            or x.dtype is not self.dtype
            or not x.is_cpu
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
                done = ops.run_prepared(x, self.number, shortcut, *self._numbers)
            else:
                with torch._C._AutoDispatchBelowAutograd():
                    done = ops.run_prepared(x, self.number, shortcut, *self._numbers)
        except RuntimeError:  # the weights do not fit any more; the operation checks before it computes
            return False
        if not done:
            self.refused = x.dim() == 4 and x.shape[1] == self.channels and x.numel() > 0 and fits(shortcut, x)
        elif not x.is_inference():
            increment_version(x)  # so that autograd notices the change
        return done

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def _end(number: int) -> None:
    """Release what was prepared, now or later: a finalizer runs at any moment, and no mode or trace may see it."""
    _ended.append(number)
    if not (_dispatch_modes() or _function_modes() or why_not_eager()):
        _release()


def _release() -> None:
    with suppress(IndexError):  # another thread may be quicker
        while True:
            torch.ops.foveate.release(_ended.pop())


def prepare(
    module: nn.Module, attention: nn.Module, x: Tensor, activation: Activation = NONE, before: Activation = NONE
) -> None:
    """Keep in a module, for its next call, the operation that just overwrote x (N, C, H, W), where there is one."""
    reading = vars(attention).get(READING)
    if reading is None or not reading.used_again:
        return  # it would be prepared at each call where each call has other parameters
    if is_grad_enabled() or chosen.choice is not None or not x.is_cpu or _dispatch_modes() or _function_modes():
        return
    if torch.__future__.get_swap_module_params_on_conversion():
        return  # torch swaps only tensors that nothing else holds
    key = x.shape[1], x.dtype, activation, before
    ready = vars(module).get(PREPARED)
    if ready is not None and ready.holds(attention, *key):
        return
    vars(module)[PREPARED] = None
    with suppress(Unfit):
        vars(module)[PREPARED] = PreparedOperation(attention, *key)

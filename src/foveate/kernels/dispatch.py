"""Decide whether a kernel can run, and give the reason if not, for `foveate doctor` and the debug log."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from foveate.checks import check_choice
from foveate.errors import FoveateError
from foveate.kernels import chosen, layer_reading, ops, table
from foveate.kernels.table import Reader, Unfit, Work
from foveate.kernels.torch_modules import TORCH
from foveate.spec import Mechanism

PLAIN = ("off", "reference")
ON_GPU_ASKED = "kernels for a GPU never ran on one, so they run only where FOVEATE_KERNELS=triton asks for them"
REQUIRED = ("cpu", "triton")
DTYPES = (torch.float32, torch.bfloat16)
TENSORS = (Tensor, nn.Parameter)
GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)

_log = logging.getLogger("foveate.kernels")
_logged: set[str] = set()
functorch_level: Any = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]

if chosen.choice != "off":
    ops.load()


class KernelError(FoveateError):
    """A requested kernel cannot run."""


def run(mechanism: Mechanism, p: Any, x: Tensor, *, inplace: bool = False, read: Reader = TORCH) -> Tensor | None:
    """Compute the mechanism on x (N, C, H, W) with a kernel; return None where no kernel can run.

    With `inplace` a kernel may write the result into x. When the choice is "cpu" or "triton", raises KernelError with
    the reason instead of returning None.
    """
    choice = chosen.choice
    if choice is not None and _chose_plain(choice):
        return None
    if choice is None and not table.has_kernel(mechanism):  # without an exception, which takes a microsecond
        _log_once(mechanism, table.NO_KERNEL)
        return None
    try:
        if table.inner(mechanism, p):
            return None
        found = find(mechanism, p, x, read)
    except Unfit as unfit:
        if choice in REQUIRED:
            raise _refused(mechanism, unfit) from None
        _log_once(mechanism, unfit)
        return None
    operation, args, norm = found
    learns = ops.learn(x, *args)
    if torch.compiler.is_compiling():
        return _compiled(found, x, learns, read)
    if learns:
        y, _, statistics = operation.differentiable(x, *args)
    elif inplace and norm is None:
        return operation.scale_(x, *args)
    else:
        y, _, statistics = operation(x, *args)
    if norm is not None:
        read.update_statistics(norm, statistics, found.normed(x))
    return y


def why_not(mechanism: Mechanism, p: Any, x: Tensor, read: Reader = TORCH) -> str | None:
    """Return why the mechanism would run as plain operations on x, None where a kernel would run."""
    if chosen.choice is not None and _chose_plain(chosen.choice):
        return f"FOVEATE_KERNELS={chosen.choice}"
    inner = table.inner(mechanism, p)
    if inner:
        return next(filter(None, (why_not(*part, x, read) for part in inner)), None)
    try:
        find(mechanism, p, x, read)
    except Unfit as unfit:
        return str(unfit)
    return None


def _chose_plain(choice: str) -> bool:
    check_choice("FOVEATE_KERNELS", choice, chosen.CHOICES)
    return choice in PLAIN


def find(mechanism: Mechanism, p: Any, x: Tensor, read: Reader) -> Work:
    """Return the operation that computes the mechanism on x, with its arguments. Raises Unfit."""
    check_call(x)
    if read is TORCH and not torch.compiler.is_compiling():
        found, convolutions = layer_reading.read(mechanism, p)
    else:
        found = table.work(mechanism, p, read)
        convolutions = table.convolutions(found)
    if found.norm is not None and found.normed(x) == 1:
        raise Unfit("batch statistics over a single value")
    if x.is_cpu:
        _check_precisions(x, found, convolutions)
    else:
        from foveate.kernels.gpu import support

        support.check_work(x, found, convolutions)
    return found


def check_call(x: Tensor) -> None:
    """Raise Unfit where no kernel can run on x at all, now."""
    if ops.unavailable is not None:
        raise Unfit(ops.unavailable)
    if type(x) not in TENSORS:
        raise Unfit(f"a {type(x).__name__} as the input")
    if not x.is_cpu or x.layout is not torch.strided or chosen.choice == "triton":
        _check_elsewhere(x)
    elif x.dtype not in DTYPES:
        raise Unfit(f"an input of {str(x.dtype).removeprefix('torch.')}")
    if x.numel() == 0:
        raise Unfit("an empty input")
    if any(GLOBAL_HOOKS):
        raise Unfit("hooks on every module")
    if not torch.compiler.is_compiling():
        reason = why_not_eager()
        if reason is not None:
            raise Unfit(reason)
    elif torch.compiler.is_exporting():
        raise Unfit("torch.export: an exported model must run without Foveate")


def _check_elsewhere(x: Tensor) -> None:
    if x.is_cpu and chosen.choice == "triton":
        raise Unfit("an input on the CPU, where FOVEATE_KERNELS=triton runs no kernel")
    if not x.is_cuda or x.layout is not torch.strided or chosen.choice == "cpu":
        raise Unfit(f"an input on {x.device}, {str(x.layout).removeprefix('torch.')}")
    if chosen.choice != "triton":  # until they have run on a GPU
        raise Unfit(ON_GPU_ASKED)
    from foveate.kernels.gpu import support  # it imports Triton

    support.check_map(x)


def _check_precisions(x: Tensor, found: Work, convolutions: Sequence[Tensor]) -> None:
    for weight in convolutions:
        if weight.dtype is not x.dtype or not weight.is_cpu:
            break
    else:
        return
    cast = all(weight.dim() > 1 for weight in convolutions)  # autocast leaves factors as they are
    if not cast or not torch.is_autocast_enabled("cpu"):
        raise Unfit(f"weights that are not {str(x.dtype).removeprefix('torch.')} on the CPU, as the input is")
    if not all(value.dtype in DTYPES and value.is_cpu for value in found.args if isinstance(value, Tensor)):
        raise Unfit("weights that are neither float32 nor bfloat16 on the CPU")


def why_not_eager() -> str | None:
    """Return why torch does not only compute now, with gradients of the first kind, None where it does."""
    if torch.compiler.is_compiling():
        return "torch.compile"
    if torch._C._is_tracing():
        return "torch.jit tracing: a traced model must run without Foveate"
    if functorch_level() is not None:
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None


def _compiled(found: Work, x: Tensor, learns: bool, read: Reader) -> Tensor | None:
    """Leave the scaling, or a whole channel gate, to torch.compile, which fuses it with the host's operations."""
    operation, args, norm = found
    given = operation.signature(*args)
    gates = given.gates(x)
    if gates[1] is None and chosen.choice not in REQUIRED:
        return None
    if not learns and norm is None and gates != (None, None):
        return given.scaled(x, *operation.gates(x, *args))
    y, _, statistics = operation.full(x, *args)
    if norm is not None:
        read.update_statistics(norm, statistics, found.normed(x))
    return y


def _refused(mechanism: Mechanism, unfit: Unfit) -> KernelError:
    return KernelError(
        expected=f"a kernel for {mechanism.name}, as FOVEATE_KERNELS={chosen.choice} requires",
        received=str(unfit),
        do="unset FOVEATE_KERNELS, so that plain operations run where no kernel can",
    )


def _log_once(mechanism: Mechanism, unfit: Unfit | str) -> None:
    """Log each reason once."""
    if torch.compiler.is_compiling() or not _log.isEnabledFor(logging.DEBUG):
        return
    reason = f"{mechanism.name} runs as plain operations: {unfit}"
    if reason not in _logged:
        _logged.add(reason)
        _log.debug(reason)

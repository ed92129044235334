"""Decide whether a kernel can run, and give the reason if not, for `foveate doctor` and the debug log."""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module

from foveate.checks import check_choice
from foveate.errors import FoveateError
from foveate.kernels import chosen, ops, table
from foveate.kernels.table import Reader, Unfit, Work
from foveate.kernels.torch_modules import TORCH
from foveate.spec import Mechanism

PLAIN = ("off", "reference")
DTYPES = (torch.float32, torch.bfloat16)
TENSORS = (Tensor, nn.Parameter)
ARGUMENTS = {Tensor, nn.Parameter, type(None), bool, float}
GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
    torch_module._global_backward_hooks,
    torch_module._global_backward_pre_hooks,
)

_log = logging.getLogger("foveate.kernels")
_logged: set[str] = set()
_functorch: Any = torch._C._functorch.peek_interpreter_stack  # pyright: ignore[reportAttributeAccessIssue]

if chosen.choice != "off":
    ops.load()


class KernelError(FoveateError):
    """A requested kernel cannot run."""


def run(mechanism: Mechanism, p: Any, x: Tensor, *, inplace: bool = False, read: Reader = TORCH) -> Tensor | None:
    """Compute the mechanism on x (N, C, H, W) with a kernel; return None where no kernel can run.

    With `inplace` a kernel may write the result into x. When the choice is "cpu", raises KernelError with the reason
    instead of returning None.
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
        if choice == "cpu":
            raise _refused(mechanism, unfit) from None
        _log_once(mechanism, unfit)
        return None
    operation, args, norm = found
    learns = torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in (x, *args))
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
    if ops.unavailable is not None:
        raise Unfit(ops.unavailable)
    check_input(x)
    _check_surroundings()
    found = table.work(mechanism, p, read)
    if found.norm is not None and found.normed(x) == 1:
        raise Unfit("batch statistics over a single value")
    _check_weights(x, found)
    return found


def check_input(x: Tensor) -> None:
    """Raise Unfit for a map that the kernels do not take."""
    if type(x) not in TENSORS:
        raise Unfit(f"a {type(x).__name__} as the input")
    if not x.is_cpu or x.layout is not torch.strided:
        raise Unfit(f"an input on {x.device}, {str(x.layout).removeprefix('torch.')}")
    if x.dtype not in DTYPES:
        raise Unfit(f"an input of {str(x.dtype).removeprefix('torch.')}")
    if x.numel() == 0:
        raise Unfit("an empty input")


def _check_weights(x: Tensor, found: Work) -> None:
    operation, args, _ = found
    if not ARGUMENTS.issuperset(map(type, args)):
        raise Unfit("weights that are not plain tensors")
    convolutions = [
        args[index] for index in operation.convolutions if index < len(args) and args[index] is not table.ONE
    ]
    if all(weight is None or (weight.dtype is x.dtype and weight.is_cpu) for weight in convolutions):
        return
    cast = all(weight is None or weight.dim() > 1 for weight in convolutions)  # autocast leaves factors as they are
    if not cast or not torch.is_autocast_enabled("cpu"):
        raise Unfit(f"weights that are not {str(x.dtype).removeprefix('torch.')} on the CPU, as the input is")
    if not all(value.dtype in DTYPES and value.is_cpu for value in args if isinstance(value, Tensor)):
        raise Unfit("weights that are neither float32 nor bfloat16 on the CPU")


def _check_surroundings() -> None:
    if any(GLOBAL_HOOKS):
        raise Unfit("hooks on every module")
    if torch.compiler.is_compiling():
        if torch.compiler.is_exporting():
            raise Unfit("torch.export: an exported model must run without Foveate")
        return
    reason = why_not_eager()
    if reason is not None:
        raise Unfit(reason)


def why_not_eager() -> str | None:
    """Return why torch does not only compute now, with gradients of the first kind, None where it does."""
    if torch.compiler.is_compiling():
        return "torch.compile"
    if torch._C._is_tracing():
        return "torch.jit tracing: a traced model must run without Foveate"
    if _functorch() is not None:
        return "a torch.func transform"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None


def _compiled(found: Work, x: Tensor, learns: bool, read: Reader) -> Tensor | None:
    """Leave the scaling, or a whole channel gate, to torch.compile, which fuses it with the host's operations."""
    operation, args, norm = found
    given = operation.signature(*args)
    gates = given.gates(x)
    if gates[1] is None and chosen.choice != "cpu":
        return None
    if not learns and norm is None and gates != (None, None):
        return given.scaled(x, *operation.gates(x, *args))
    y, _, statistics = operation.full(x, *args)
    if norm is not None:
        read.update_statistics(norm, statistics, found.normed(x))
    return y


def _refused(mechanism: Mechanism, unfit: Unfit) -> KernelError:
    return KernelError(
        expected=f"a kernel for {mechanism.name}, as FOVEATE_KERNELS=cpu requires",
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

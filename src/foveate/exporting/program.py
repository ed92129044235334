"""Trace a subject with `torch.export`: one graph of standard operations, whose batch and sides may vary."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from foveate import kernels
from foveate.errors import UsageError
from foveate.exporting.subject import Subject
from foveate.torch_utils.unchanged import as_found


@torch.no_grad()
def trace(subject: Subject, *, dynamic: bool) -> ExportedProgram:
    """Return the graph of a subject; with `dynamic`, batch, height and width are open where the model allows it.

    Raises UsageError for a model that `torch.export` cannot trace.
    """
    inputs = tuple(map(_two, subject.inputs)) if dynamic and _one_batch(subject.inputs) else subject.inputs
    open_axes = tuple(_open_axes(subject, x, number) for number, x in enumerate(inputs)) if dynamic else None
    try:
        with as_found(subject.module), kernels.using("reference"), warnings.catch_warnings(), whole_padding():
            warnings.simplefilter("ignore")  # about the inside of torch.export
            return torch.export.export(
                subject.module,
                inputs,
                dynamic_shapes=None if open_axes is None else (open_axes,),
                prefer_deferred_runtime_asserts_over_guards=dynamic,
            )
    except UsageError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise UsageError(
            expected="a model that torch.export can trace",
            received=f"{type(error).__name__}: {lines[0][:300]}",
            do="pass dynamic=False, or remove conditions on values from the model's forward"
            if dynamic
            else "remove conditions on values from the model's forward",
        ) from error


@contextlib.contextmanager
def whole_padding() -> Iterator[None]:
    """Compute timm's "same" padding of open sides in whole numbers, with the same values, while a model is traced.

    timm divides floats and takes a maximum. Each layer with a stride then makes the formulas of the sides longer, and
    torch.export takes minutes to compare them. In whole numbers a side becomes ceil(side / stride).
    """
    timm: Any = sys.modules.get("timm.layers.padding")
    if timm is None:
        yield
        return
    plain = timm.get_same_padding

    def padding(side: Any, *layer: int) -> Any:
        return (_whole if isinstance(side, torch.SymInt) else plain)(side, *layer)

    timm.get_same_padding = padding
    try:
        yield
    finally:
        timm.get_same_padding = plain


def _whole(side: Any, kernel: int, stride: int, dilation: int) -> Any:
    reach = (kernel - 1) * dilation + 1
    padding = ((side + stride - 1) // stride - 1) * stride + reach - side
    return padding if reach >= stride else torch.sym_max(padding, 0)


def _one_batch(inputs: tuple[Tensor, ...]) -> bool:
    """Return whether all inputs have a batch of one, which the graph of an open batch cannot have as its example."""
    return all(x.ndim > 1 and len(x) == 1 for x in inputs)


def _two(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _open_axes(subject: Subject, x: Tensor, number: int) -> dict[int, Any]:
    """Return the axes that may vary: the batch, and positions in multiples of the subject's step."""
    axes: dict[int, Any] = {0: Dim.AUTO}
    for axis in subject.positions(x):
        axes[axis] = Dim.AUTO if subject.step == 1 else subject.step * Dim(f"side_{number}_{axis}")
    return axes

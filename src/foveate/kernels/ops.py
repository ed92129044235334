"""Load the operations of the C++ library, and register their shapes, autograd, vmap and flops with torch."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from foveate.errors import UsageError
from foveate.kernels.library import COMMAND, LIBRARY, OLDEST_TORCH
from foveate.kernels.signatures import AROUND, PREPARED_SCHEMA, ChannelSpatial, Coordinate, schemas

NOT_TRIED = "FOVEATE_KERNELS=off, so the library is not loaded"

unavailable: str | None = NOT_TRIED
"""The reason why there are no kernels, None once the library is loaded."""

run_prepared: Any = None
"""The operation `foveate::prepared_`, once the library is loaded, without the Python function around it."""

registrations = torch.library.Library("foveate", "IMPL")  # the registrations end when this object is deleted


class Operation:
    """One operation with its six forms; see docs/design/kernels.md."""

    def __init__(
        self,
        signature: type[ChannelSpatial | Coordinate],
        name: str,
        gates: Sequence[str],
        convolutions: Sequence[str],
        learnable: Sequence[str],
    ):
        self.signature = signature
        self.name = name
        self.convolutions = [signature._fields.index(weight) for weight in convolutions]
        self.learnable = [signature._fields.index(weight) for weight in learnable]
        self.schemas = schemas(name, signature, gates, learnable)
        self.full: Any = None
        self.inplace: Any = None
        self.finish: Any = None
        self.gates: Any = None
        self.backward: Any = None
        self.prepare: Any = None

    def __call__(self, x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the values that backward needs, and the batch statistics, without autograd."""
        return _below(self.full, x, *args)

    def scale_(self, x: Tensor, *args: Any) -> Tensor:
        """Overwrite x with y, without autograd, and increment x's version so that autograd notices the change."""
        _below(self.inplace, x, *args)
        return _changed(x)

    def finish_(self, x: Tensor, *args: Any) -> Tensor:
        """Overwrite x with what `foveate.kernels.finish.attend` says, without autograd."""
        _below(self.finish, x, *args)
        return _changed(x)

    def differentiable(self, x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return y, the values that backward needs, and the batch statistics, with autograd."""
        return _Differentiable.apply(self, x, *self.signature(*args))  # pyright: ignore[reportReturnType]


def finish_(x: Tensor, shortcut: Tensor | None, activation: int, slope: float) -> Tensor:
    """Overwrite x with activation(x + shortcut), without autograd."""
    _below(torch.ops.foveate.finish_.default, x, shortcut, activation, slope)
    return _changed(x)


def learn(*values: Any) -> bool:
    """Return whether a gradient of any of the values is wanted."""
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in values)


def _changed(x: Tensor) -> Tensor:
    """Increment the version of an overwritten x, so that autograd notices the change."""
    if not x.is_inference():
        torch.autograd.graph.increment_version(x)
    return x


def _below(form: Any, *args: Any) -> Any:
    """Call one form of an operation without autograd; inference mode already leaves autograd out."""
    if torch.is_inference_mode_enabled():
        return form(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return form(*args)


class _Differentiable(torch.autograd.Function):
    """An operation with its backward, differentiable once."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        y, kept, statistics = operation(x, *args)
        ctx.operation = operation
        ctx.options = [None if isinstance(value, Tensor) else value for value in args]
        ctx.save_for_backward(x, kept, *(value if isinstance(value, Tensor) else None for value in args))
        ctx.mark_non_differentiable(kept, statistics)
        return y, kept, statistics

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor | None, ...]:
        x, kept, *weights = ctx.saved_tensors
        args = [option if weight is None else weight for option, weight in zip(ctx.options, weights, strict=True)]
        differentiate = _Backward.apply if torch.is_grad_enabled() else _backward
        dx, *gradients = differentiate(ctx.operation, dy[0], kept, x, *args)  # pyright: ignore[reportGeneralTypeIssues]
        found: list[Tensor | None] = [None] * len(args)
        for index, gradient in zip(ctx.operation.learnable, gradients, strict=True):
            if weights[index] is not None:
                found[index] = gradient
        return None, dx, *found


def _backward(operation: Operation, *args: Any) -> tuple[Tensor, ...]:
    return tuple(_below(operation.backward, *args))


class _Backward(torch.autograd.Function):
    """Backward as its own autograd function, so that a second differentiation reaches it and is refused."""

    @staticmethod
    def forward(ctx: Any, operation: Operation, *args: Any) -> tuple[Tensor, ...]:
        return _backward(operation, *args)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise UsageError(
            expected="at most one differentiation of a kernel",
            received="a second differentiation, through its gradient",
            do='set FOVEATE_KERNELS=reference, or run the model inside `with foveate.kernels.using("reference")`',
        )


channel_spatial = Operation(
    ChannelSpatial,
    "channel_spatial",
    gates=["channel", "spatial"],
    convolutions=["reduce", "expand", "conv"],
    learnable=["reduce", "reduce_bias", "expand", "expand_bias", "conv", "conv_bias", "norm_weight", "norm_bias"],
)
coordinate = Operation(
    Coordinate,
    "coordinate",
    gates=["row", "column"],
    convolutions=["squeeze", "row", "column"],
    learnable=["squeeze", "squeeze_bias", "norm_weight", "norm_bias", "row", "row_bias", "column", "column_bias"],
)


def load() -> str | None:
    """Load the library on the first call; return why there are no kernels, None where there are. Never raises."""
    global unavailable, run_prepared
    if unavailable is NOT_TRIED:
        unavailable = _load()
        run_prepared = None if unavailable else torch.ops.foveate.prepared_.default._op
    return unavailable


def instruction_set() -> str:
    """Return the instruction set that the loaded kernels use, such as "avx2"."""
    return torch.ops.foveate.info()


def _load() -> str | None:
    if torch.__version__ < OLDEST_TORCH:
        return f"torch {torch.__version__} is older than {OLDEST_TORCH}, which the kernels need"
    if not LIBRARY.is_file():
        return f"they are not compiled: run {COMMAND}, or pip install with --no-build-isolation"
    try:
        torch.ops.load_library(LIBRARY)
        for operation in (channel_spatial, coordinate):
            _check_schemas(operation.schemas)
        _check_schemas({"prepared_": PREPARED_SCHEMA})
        for operation in (channel_spatial, coordinate):
            _register(operation)
    except (OSError, AttributeError, RuntimeError) as error:
        cause = error.__cause__ or error
        return f"{LIBRARY.name} does not load, {' '.join(str(cause).split())}; compile it again: {COMMAND}"
    return None


def _check_schemas(schemas: Mapping[str, str]) -> None:
    """Raise RuntimeError where a form has another signature in the library than is expected."""
    for form, schema in schemas.items():
        if str(getattr(torch.ops.foveate, form).default._schema) != str(torch._C.parse_schema(schema)):
            raise RuntimeError(f"it was compiled from other sources, where {form} has another signature")


def _register(operation: Operation) -> None:
    """Register the forms of an operation with torch. `prepare` and what it prepares are never traced or counted."""
    name, signature, forms = operation.name, operation.signature, torch.ops.foveate
    operation.full = getattr(forms, name).default
    operation.inplace = getattr(forms, f"{name}_").default
    operation.finish = getattr(forms, f"{name}_finish_").default
    operation.gates = getattr(forms, f"{name}_gates").default
    operation.backward = getattr(forms, f"{name}_backward").default
    operation.prepare = getattr(forms, f"{name}_prepare").default

    def full(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        given = signature(*args)
        kept, statistics = (
            x.new_empty(given.kept(x), dtype=torch.float32),
            x.new_empty((2, given.statistics()), dtype=torch.float32),
        )
        return like(x), kept, statistics

    def inplace(x: Tensor, *args: Any) -> None:
        return None

    def gates(x: Tensor, *args: Any) -> tuple[Tensor, ...]:
        return tuple(x.new_empty((0,) if shape is None else shape) for shape in signature(*args).gates(x))

    def backward(dy: Tensor, kept: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
        given = signature(*args)._asdict()
        weights = [given[signature._fields[index]] for index in operation.learnable]
        return like(x), *(
            x.new_empty((0,) if weight is None else weight.shape, dtype=torch.float32) for weight in weights
        )

    forms_of = {"": full, "_": inplace, "_finish_": inplace, "_gates": gates, "_backward": backward}
    for form, fake in ((f"{name}{end}", fake) for end, fake in forms_of.items()):
        torch.library.register_fake(f"foveate::{form}", fake, lib=registrations)
        torch.library.register_vmap(f"foveate::{form}", _no_vmap, lib=registrations)

    def differentiate(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        return operation.differentiable(x, *args) if learn(x, *args) else operation(x, *args)

    registrations.impl(name, differentiate, "Autograd")

    def flops(x: Tensor, *args: Any, out_val: Any = None) -> int:
        return 2 * signature(*args).macs(x)

    def backward_flops(dy: Tensor, kept: Tensor, x: Tensor, *args: Any, out_val: Any = None) -> int:
        return 2 * flops(x, *args)

    def finish_flops(x: Tensor, *args: Any, out_val: Any = None) -> int:
        return flops(x, *args[AROUND:])

    register_flop_formula(getattr(forms, f"{name}_finish_"), get_raw=True)(finish_flops)
    for form in (name, f"{name}_", f"{name}_gates"):
        register_flop_formula(getattr(forms, form), get_raw=True)(flops)
    register_flop_formula(getattr(forms, f"{name}_backward"), get_raw=True)(backward_flops)


def like(x: Tensor) -> Tensor:
    """Return an uninitialised tensor with the memory layout of the kernels' output.

    It is the layout of x where x is dense, else the closer one of NCHW and channels last.
    """
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return torch.empty_like(x)
    last = x.stride(1) < x.stride(3)
    return torch.empty_like(x, memory_format=torch.channels_last if last else torch.contiguous_format)


def _no_vmap(*_: Any) -> Any:
    raise UsageError(
        expected="a kernel outside torch.func.vmap",
        received="a kernel inside it",
        do='set FOVEATE_KERNELS=reference, or run the model inside `with foveate.kernels.using("reference")`',
    )

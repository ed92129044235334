"""The modules and inputs for the tests of the kernels, and the allowed errors.

The true numbers are those of the module in float64 with plain operations. `tolerance` gives the allowed distance of a
kernel's numbers from them; each error is the largest over several random draws.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pytest
import torch
from torch import Tensor

import foveate
from foveate import kernels
from foveate.bind.torch.attention import Attention
from foveate.errors import ReductionWarning
from foveate.kernels import ops
from foveate.mechanisms import create
from tolerance import allowance, error, with_roundings

Numbers = dict[str, Tensor]
Layout = Literal["nchw", "channels_last"]
Run = Callable[[Callable[[], Numbers]], Numbers]
T = TypeVar("T")
OPERATIONS = (ops.channel_spatial, ops.coordinate)
INSTRUCTION_SETS = ["baseline", "avx2", "avx512", "avx512_bf16"][
    : {"AVX512": 3 + torch.cpu.get_capabilities().get("avx512_bf16", False), "AVX2": 2}.get(
        torch.backends.cpu.get_cpu_capability(), 1
    )
]
DRAWS = 2


@dataclass(frozen=True)
class Subject:
    """A mechanism with options."""

    mechanism: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.mechanism, *(f"{name}={value}" for name, value in self.options.items())])

    def module(
        self, channels: int, *, start: Any = "paper", dtype: torch.dtype = torch.float32, seed: int = 7
    ) -> Attention:
        """Return the module with every weight and statistic changed from its initial value."""
        generator = torch.Generator().manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ReductionWarning)
            if start == "identity" and create(self.mechanism, **self.options).no_identity:
                start = "paper"
            module = foveate.attention(self.mechanism, channels, start=start, **self.options)
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.ndim == 1:
                    tensor.uniform_(0.5, 1.5, generator=generator)
                elif tensor.ndim:
                    tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
        return module.to(dtype)

    def can_train(self, shape: tuple[int, ...], values: int = 2) -> bool:
        """Return whether a batch norm has that many values; SRM's norm has only the samples."""
        n, _, h, w = shape
        return n > 1 if self.mechanism == "srm" else n * min(h * w, h + w) >= values


SUBJECTS = [
    Subject("se"),
    Subject("se", {"bias": False, "reduction": 2}),
    Subject("ese"),
    Subject("ese", {"activation": "sigmoid"}),
    Subject("gct"),
    Subject("gct", {"eps": 0.1}),
    Subject("srm"),
    Subject("channel"),
    Subject("channel", {"pools": ("max",), "bias": False, "reduction": 3}),
    Subject("channel", {"pools": ("avg",)}),
    Subject("eca"),
    Subject("eca", {"kernel_size": 1}),
    Subject("eca", {"kernel_size": 7}),
    Subject("gather_excite"),
    Subject("spatial"),
    Subject("spatial", {"kernel_size": 3, "bias": True}),
    Subject("spatial", {"norm": False}),
    Subject("spatial", {"kernel_size": 1, "norm": False, "bias": True}),
    Subject("scse"),
    Subject("scse", {"mode": "channel", "reduction": 4}),
    Subject("simam"),
    Subject("simam", {"e_lambda": 0.1}),
    Subject("cbam"),
    Subject("cbam", {"order": "parallel", "kernel_size": 3}),
    Subject("cbam", {"order": "spatial-channel", "spatial_bias": True}),
    Subject("cbam", {"pools": ("max",), "norm": False, "bias": False, "reduction": 2}),
    Subject("coordinate"),
    Subject("coordinate", {"activation": "relu", "bias": False, "min_hidden": 3}),
    Subject("residual_cbam"),
    Subject("residual_cbam", {"norm": True, "order": "parallel", "pools": ("avg",)}),
]
DEFAULTS = [
    Subject(name)
    for name in (
        "se",
        "ese",
        "gct",
        "srm",
        "channel",
        "eca",
        "gather_excite",
        "spatial",
        "scse",
        "simam",
        "cbam",
        "coordinate",
    )
]

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "every second channel": lambda x: x[:, ::2],
    "all but the first row": lambda x: x[:, :, 1:],
    "every third column": lambda x: x[..., ::3],
    "rows and columns exchanged": lambda x: x.transpose(2, 3),
    "channels and columns exchanged": lambda x: x.transpose(1, 3),
    "every second sample": lambda x: x[::2],
    "one sample for all": lambda x: x[:1].expand_as(x),
    "one value for all positions": lambda x: x[:, :, :1, :1].expand_as(x),
    "not at a multiple of 64 bytes": lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape),
}


@contextmanager
def replaced(change: Callable[[str, Any], Any]) -> Iterator[None]:
    """Replace every form of the operations, and the prepared operation, by change(name, form) inside."""
    with pytest.MonkeyPatch.context() as patch:
        for operation in OPERATIONS:
            for form in ("full", "inplace", "finish", "gates", "backward"):
                patch.setattr(operation, form, change(f"{operation.name} {form}", getattr(operation, form)))
        patch.setattr(ops, "run_prepared", change("prepared inplace", ops.run_prepared))
        yield


@contextmanager
def watched() -> Iterator[list[str]]:
    """Record the names of the forms of operations that run inside."""
    seen: list[str] = []

    def noted(name: str, run: Any) -> Any:
        def call(*args: Any) -> Any:
            result = run(*args)
            if result is not False:  # else the prepared operation did not take the map
                seen.append(name)
            return result

        return call

    with replaced(noted):
        yield seen


def by_kernel(call: Callable[[], T]) -> T:
    """Return the result of the call with kernels, and check that a kernel ran."""
    with kernels.using("cpu"), watched() as seen:
        result = call()
    assert seen, "no kernel ran"
    return result


def by_reference(call: Callable[[], T]) -> T:
    """Return the result of the call with plain operations, without kernels."""
    with kernels.using("reference"), watched() as seen:
        result = call()
    assert not seen, f"kernels ran: {seen}"
    return result


def recorded(module: Attention, x: Tensor) -> tuple[Any, tuple[Any, ...], Any]:
    """Return the operation that a call of the module runs, its arguments after x, and its results."""
    calls: list[tuple[Any, ...]] = []

    def noted(name: str, run: Any) -> Any:
        def call(*args: Any) -> Any:
            calls.append((name.split()[0], args[1:], run(*args)))
            return calls[-1][-1]

        return call

    with kernels.using("cpu"), torch.no_grad(), replaced(noted):
        module(x)
    ((name, args, result),) = calls
    return next(operation for operation in OPERATIONS if operation.name == name), args, result


def draw(*shape: int, dtype: torch.dtype = torch.float32, layout: Layout = "nchw", seed: int = 0) -> Tensor:
    """Return a map of normally distributed values that are exact in `dtype`."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x


def step(module: Attention, x: Tensor, dy: Tensor) -> Numbers:
    """Return the output, every gradient and every statistic after one step of a copy of the module, by name."""
    module = copy.deepcopy(module)
    x = x.detach().requires_grad_()
    y = module(x)
    y.backward(dy)
    numbers = {
        "y": y,
        "gradient of x": x.grad,
        **{f"gradient of {name}": p.grad for name, p in module.named_parameters()},
    }
    return {
        **{name: value.detach() for name, value in numbers.items() if value is not None},
        **dict(module.named_buffers()),
    }


@dataclass(frozen=True)
class Step:
    """One draw: the true numbers, those of the plain operations with all results rounded, and those of the kernel."""

    exact: Numbers
    rounded: list[Numbers]
    kernel: Numbers
    dtype: torch.dtype


def steps(module: Attention, inputs: Callable[[int], Tensor], draws: int = DRAWS, run: Run = by_kernel) -> list[Step]:
    """Return a step for each draw x = inputs(seed), dy = inputs(seed + 100)."""
    return [one_step(module, inputs(seed), inputs(seed + 100), run) for seed in range(draws)]


def one_step(module: Attention, x: Tensor, dy: Tensor, run: Run = by_kernel) -> Step:
    def in_float64() -> Numbers:
        return by_reference(lambda: step(double, x.double(), dy.double()))

    double = copy.deepcopy(module).double()
    return Step(in_float64(), with_roundings(in_float64, x.dtype), run(lambda: step(module, x, dy)), x.dtype)


def faults(found: list[Step]) -> list[str]:
    """Return the kernel's numbers that are missing, of another kind, or too far from the true ones, by name."""
    said = [f"{name}: missing" for step in found for name in step.exact if name not in step.kernel]
    for name in found[0].kernel:
        exact, kernel = (torch.stack([getattr(step, way)[name] for step in found]) for way in ("exact", "kernel"))
        if (
            kernel.dtype != (found[0].dtype if exact.is_floating_point() else exact.dtype)
            or kernel.shape != exact.shape
        ):
            said.append(f"{name}: {kernel.dtype} {tuple(kernel.shape[1:])}")
        grids = zip(*(step.rounded for step in found), strict=True)
        off, allowed = (
            error(exact, kernel),
            allowance(exact, [torch.stack([numbers[name] for numbers in grid]) for grid in grids]),
        )
        if not off <= allowed:
            said.append(f"{name}: off by {off:.2e}, allowed {allowed:.2e}")
    return said
